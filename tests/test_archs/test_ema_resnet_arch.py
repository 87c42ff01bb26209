import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.archs import EMA, EMAResidualBlock, EMAResNetGenerator, convert_cyclegan_generator


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize('use_ema, use_aspp, millions',
                         [(False, False, 11.378), (True, False, 11.384), (False, True, 13.607), (True, True, 13.613)])
def test_parameter_counts(use_ema, use_aspp, millions):
    with torch.device('meta'):
        assert round(count(EMAResNetGenerator(use_ema=use_ema, use_aspp=use_aspp)) / 1e6, 3) == millions


def ema_by_the_paper(module, x):
    """Figure 3 of Ouyang et al., step by step on one group at a time, with library layers only for the convolutions."""
    out = torch.empty_like(x)
    width = x.shape[1] // module.factor
    for n in range(x.shape[0]):
        for g in range(module.factor):
            group = x[n, g * width:(g + 1) * width]  # (c, h, w)
            c, h, w = group.shape
            average_over_width = group.sum(2) / w  # (c, h)
            average_over_height = group.sum(1) / h  # (c, w)
            mixed = torch.cat([average_over_width, average_over_height], dim=1)
            mixed = module.conv1x1.weight[:, :, 0, 0] @ mixed + module.conv1x1.bias[:, None]
            gates = 1 / (1 + torch.exp(-mixed))
            gated = group * gates[:, :h, None] * gates[:, None, h:]
            mean, variance = gated.mean((1, 2), keepdim=True), gated.var((1, 2), keepdim=True, unbiased=False)
            branch1 = (gated - mean) / torch.sqrt(variance + module.gn.eps)
            branch1 = branch1 * module.gn.weight[:, None, None] + module.gn.bias[:, None, None]
            branch2 = F.conv2d(group[None], module.conv3x3.weight, module.conv3x3.bias, padding=1)[0]
            attention1 = torch.softmax(branch1.mean((1, 2)), 0)
            attention2 = torch.softmax(branch2.mean((1, 2)), 0)
            spatial = (attention1[:, None, None] * branch2).sum(0) + (attention2[:, None, None] * branch1).sum(0)
            out[n, g * width:(g + 1) * width] = group / (1 + torch.exp(-spatial))
    return out


def test_ema_follows_the_paper():
    torch.manual_seed(0)
    module = EMA(24, factor=3).double()
    nn.init.normal_(module.gn.weight)
    nn.init.normal_(module.gn.bias)
    x = torch.randn(2, 24, 7, 10, dtype=torch.float64)
    torch.testing.assert_close(module(x), ema_by_the_paper(module, x), rtol=1e-10, atol=1e-12)


def test_ema_trains_every_parameter():
    torch.manual_seed(0)
    module = EMA(16, factor=2)
    module(torch.randn(1, 16, 8, 8)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


def test_ema_refuses_channels_that_do_not_divide():
    with pytest.raises(ValueError, match='multiple of ema_factor'):
        EMA(20, factor=8)


def test_ema_positions():
    torch.manual_seed(0)
    x = torch.randn(1, 16, 8, 8)
    branch, output = (EMAResidualBlock(16, ema_factor=2, ema_position=p) for p in ('branch', 'output'))
    output.load_state_dict(branch.state_dict())
    residual = branch.body(x)
    torch.testing.assert_close(branch(x), x + branch.ema(residual))
    torch.testing.assert_close(output(x), x + residual + branch.ema(x + residual))
    with pytest.raises(ValueError, match='ema_position'):
        EMAResidualBlock(16, ema_factor=2, ema_position='input')


@pytest.mark.parametrize('upsample', ['deconv', 'resize'])
@pytest.mark.parametrize('head', ['tanh', 'gain'])
@pytest.mark.parametrize('size', [(1, 32, 32), (1, 33, 47), (2, 34, 39)])
def test_output_has_the_size_of_the_input(size, head, upsample):
    torch.manual_seed(0)
    n, h, w = size
    net = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, head=head, upsample=upsample)
    y = net(torch.rand(n, 3, h, w) * 2 - 1)
    assert y.shape == (n, 3, h, w)
    assert y.abs().max() <= 1 and y.std() > 0


def test_images_of_a_batch_do_not_touch():
    torch.manual_seed(0)
    net = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4).double()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(net(x), torch.cat([net(x[:1]), net(x[1:])]))


@pytest.mark.parametrize('option', [dict(upsample='bilinear'), dict(head='residual')])
def test_unknown_choice_is_refused(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, **option)


def test_blocks_without_norm_keep_names_and_see_brightness():
    torch.manual_seed(0)
    x = torch.rand(1, 16, 8, 8)
    change = {}
    for norm in ('instance', None):
        block = EMAResidualBlock(16, ema_factor=2, norm=norm)
        branch = [block.body(x * scale) for scale in (1.0, 0.2)]
        change[norm] = ((branch[0] - branch[1]).std() / branch[0].std()).item()
        assert branch[0].std() > 0.3  # of about the size of x's
    assert change['instance'] < 0.05 and 0.6 < change[None] < 1
    names = [EMAResidualBlock(16, ema_factor=2, norm=norm).state_dict().keys() for norm in ('instance', None)]
    assert names[0] == names[1]
    with pytest.raises(ValueError, match='norm is'):
        EMAResidualBlock(16, ema_factor=2, norm='batch')


class OriginalBlock(nn.Module):

    def __init__(self, c):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c), nn.ReLU(), nn.ReflectionPad2d(1),
            nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c))

    def forward(self, x):
        return x + self.conv_block(x)


class OriginalGenerator(nn.Module):
    """CycleGAN's generator laid out as in its appendix 7.2, with the authors' key names."""

    def __init__(self, f, num_block):
        super().__init__()

        def step(conv):
            return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU()]

        self.model = nn.Sequential(
            nn.ReflectionPad2d(3), *step(nn.Conv2d(3, f, 7)), *step(nn.Conv2d(f, 2 * f, 3, 2, 1)),
            *step(nn.Conv2d(2 * f, 4 * f, 3, 2, 1)), *[OriginalBlock(4 * f) for _ in range(num_block)],
            *step(nn.ConvTranspose2d(4 * f, 2 * f, 3, 2, 1, output_padding=1)),
            *step(nn.ConvTranspose2d(2 * f, f, 3, 2, 1, output_padding=1)), nn.ReflectionPad2d(3), nn.Conv2d(f, 3, 7),
            nn.Tanh())

    def forward(self, x):
        return self.model(x)


@pytest.mark.parametrize('num_block', [6, 9])
def test_original_cyclegan_weights_give_the_same_picture(num_block):
    torch.manual_seed(0)
    original = OriginalGenerator(8, num_block).double()
    state = original.state_dict()
    state['model.2.running_mean'] = torch.zeros(8)  # as old checkpoints have it
    assert 'model.1.weight' in state and 'model.10.conv_block.5.bias' in state
    plain = EMAResNetGenerator(num_feat=8, num_block=num_block, use_ema=False, use_aspp=False).double()
    plain.load_state_dict(convert_cyclegan_generator(state))
    x = torch.rand(1, 3, 48, 64, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(plain(x), original(x), rtol=0, atol=1e-12)


def test_converter_refuses_other_checkpoints():
    with pytest.raises(ValueError, match='features.0.weight'):
        convert_cyclegan_generator({'features.0.weight': torch.zeros(1)})


def test_gain_head_starts_from_the_exposed_input():
    torch.manual_seed(0)
    net = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, head='gain')
    x = torch.rand(1, 3, 40, 60) * 0.2 - 1
    torch.testing.assert_close(net(x), (net.exposure((x + 1) / 2) * 2 - 1).clamp(-1, 1))


def test_detached_exposure_is_not_trained_and_changes_nothing_else():
    torch.manual_seed(0)
    net = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, head='gain')
    torch.nn.init.normal_(net.fine[4].weight, std=0.1)
    torch.nn.init.normal_(net.exposure.linear.weight)
    x = torch.rand(1, 3, 40, 60) * 0.2 - 1
    free, detached = net(x), net(x, detach_exposure=True)
    torch.testing.assert_close(free, detached)
    detached.square().sum().backward()
    assert all(p.grad is None for p in net.exposure.parameters())
    assert net.fine[4].weight.grad.abs().sum() > 0
    free.square().sum().backward()
    assert net.exposure.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('size', [(40, 60), (41, 63)])
@pytest.mark.parametrize('head', ['tanh', 'gain'])
def test_forward_is_its_three_steps(head, size):
    torch.manual_seed(0)
    net = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, head=head)
    if head == 'gain':
        torch.nn.init.normal_(net.fine[4].weight, std=0.1)
        torch.nn.init.normal_(net.exposure.linear.weight)
    x = torch.rand(2, 3, *size) * 0.4 - 1
    thumbnail = net.thumbnail(x)
    curve = net.predict(thumbnail)
    if head == 'tanh':
        assert thumbnail is None and curve is None
    else:
        assert thumbnail.shape == (2, 3, 64, 96) and 0 <= thumbnail.min() and thumbnail.max() <= 0.2
        assert curve.mean.shape == curve.power.shape == (2, 1, 1, 1) and curve.balance.shape == (2, 3, 1, 1)
    y = net(x)
    assert torch.equal(net.apply(x, curve), y)
    assert torch.equal(net.apply(x, curve, strength=0.0), x)
    torch.testing.assert_close(net.apply(x, curve, strength=0.25), x + 0.25 * (y - x))


def test_the_curve_that_is_applied_is_the_one_given():
    torch.manual_seed(0)
    net = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, head='gain')
    x = torch.rand(1, 3, 40, 60) * 0.2 - 1
    curve = net.predict(net.thumbnail(x))
    darker = net.apply(x, curve._replace(mean=0.5 * curve.mean))
    torch.testing.assert_close((darker + 1).mean(), 0.5 * (net(x) + 1).mean(), rtol=0.02, atol=0)


def test_functions_are_applied_to_all_modules_as_to_any_network():
    net, seen = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4), []
    nn.Sequential(net).apply(seen.append)
    assert net in seen and net.encoder.stem[1] in seen
