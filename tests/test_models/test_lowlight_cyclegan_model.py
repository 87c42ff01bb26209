import csv
import errno
import math
import numpy as np
import os
import pytest
import signal
import torch
from basicsr.models import build_model
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


def batch(iteration, n=2, size=32):
    """A batch that depends on the iteration alone."""
    generator = torch.Generator().manual_seed(iteration)
    return {key: torch.rand(n, 3, size, size, generator=generator) for key in ('lq', 'gt')}


class Scale(nn.Module):
    """A one-parameter network, so that losses can be worked out by hand."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return x * self.factor


def train(model, iterations):
    for iteration in iterations:
        model.update_learning_rate(iteration)
        model.feed_data(batch(iteration))
        model.optimize_parameters(iteration)


def weights(model):
    return {f'{name}.{k}': v for name, net in model.networks.items() for k, v in net.state_dict().items()}


def hold(model, **factors):
    """Replace networks by :class:`Scale` and take no step."""
    for name, factor in factors.items():
        model.networks[name] = Scale(factor)
    model.optimizer_g.step = model.optimizer_d.step = lambda: None


def test_losses_are_equations_1_to_4(toy_model):
    """x = 0.5, y = -0.25, G(x) = 2x, F(y) = 3y, D_A(x) = 4x, D_B(y) = -2y."""
    model = toy_model
    hold(model, g=2.0, f=3.0, d_a=4.0, d_b=-2.0)
    model.lq, model.gt = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), -0.25)
    losses = model._train_step()

    def nll(logit):  # -ln of the sigmoid
        return math.log1p(math.exp(-logit))

    assert losses['l_gan_g'].item() == pytest.approx(nll(-2 * 1.0))  # -ln D_B(G(x)), G(x) = 1
    assert losses['l_gan_f'].item() == pytest.approx(nll(4 * -0.75))  # -ln D_A(F(y)), F(y) = -0.75
    assert losses['l_cycle'].item() == pytest.approx(10 * (abs(3 * 1.0 - 0.5) + abs(2 * -0.75 + 0.25)))
    assert losses['l_identity'].item() == pytest.approx(5 * (abs(2 * -0.25 + 0.25) + abs(3 * 0.5 - 0.5)))
    # D_B: -(ln D_B(y) + ln(1 - D_B(G(x)))) / 2
    assert losses['l_d_b'].item() == pytest.approx(0.5 * (nll(-2 * -0.25) + nll(2 * 1.0)))
    assert losses['l_d_a'].item() == pytest.approx(0.5 * (nll(4 * 0.5) + nll(-4 * -0.75)))


def test_share_of_the_low_images_cycle(toy_opt):
    """F(G(x)) = 6x against x; at 0, F is not called on G(x)."""
    x = torch.full((1, 3, 32, 32), 0.125)
    for share, calls in ((0.25, 2), (0, 1)):
        toy_opt['train'].update(cycle_low_weight=share, identity_opt=None)
        model = build_model(toy_opt)
        hold(model, g=2.0, f=3.0)
        seen = []
        model.networks['f'].register_forward_hook(lambda net, args, output, seen=seen: seen.append(output))
        model.lq = model.gt = x
        losses = model._train_step()
        assert losses['l_cycle'].item() == pytest.approx(10 * (share + 1) * 5 * 0.125) and len(seen) == calls
        assert model.visuals['cycled'].eq(0.75).all()


def test_the_camera_takes_its_share(toy_opt):
    """Of 4 normal images the camera darkens 3, F one; all come back to G, and D_A sees F's alone."""
    toy_opt['train'].update(camera={'share': 0.75, 'kinds': {'even': 1}}, identity_opt=None, cycle_low_weight=0)
    model = build_model(toy_opt)
    hold(model, g=1.0, f=0.5)
    seen = {'f': [], 'd_a': []}
    for name, inputs in seen.items():
        model.networks[name].register_forward_hook(lambda net, args, out, inputs=inputs: inputs.append(args[0]))
    model.feed_data(batch(1, n=4))
    losses = model._train_step()
    normal, cycled = model.gt, model.visuals['cycled']
    assert torch.equal(seen['f'][0], normal[3:]) and len(seen['d_a'][0]) == 1
    assert torch.equal(cycled[3:], 0.5 * normal[3:])  # F's way
    assert (cycled[:3].mean((1, 2, 3)) < normal[:3].mean((1, 2, 3))).all()  # the camera's
    assert losses['l_cycle'].item() == pytest.approx(10 * (cycled - normal).abs().mean().item(), rel=1e-5)


def test_a_share_for_each_folder(toy_opt):
    """The camera darkens the images of the first folder, F those of the second."""
    toy_opt['train'].update(camera={'share': [1, 0], 'kinds': {'none': 1}}, identity_opt=None, cycle_low_weight=0)
    model = build_model(toy_opt)
    hold(model, g=1.0, f=0.5)
    data = {**batch(1, n=4), 'gt_folder': torch.tensor([1, 0, 1, 0])}
    model.feed_data(data)
    model._train_step()
    normal, cycled = model.visuals['normal'], model.visuals['cycled']
    assert torch.equal(normal, model.gt[[1, 3, 0, 2]]) and torch.equal(cycled[2:], 0.5 * normal[2:])
    assert torch.allclose(cycled[:2], normal[:2], atol=1.5 / 127.5)  # the camera left them as they are
    data['gt_folder'] = torch.ones(4, dtype=torch.long)  # none for the camera
    model.feed_data(data)
    model._train_step()
    assert torch.equal(model.visuals['cycled'], 0.5 * model.gt)


def test_the_camera_may_take_all(toy_opt):
    toy_opt['train'].update(camera={}, identity_opt=None, cycle_low_weight=0)
    model = build_model(toy_opt)
    before = {key: value.clone() for key, value in weights(model).items()}
    train(model, [1])
    moved = {key.split('.')[0] for key, value in weights(model).items() if not torch.equal(value, before[key])}
    assert moved == {'g'} and model.get_current_log().keys() == {'l_cycle'}


def test_gradients_are_clipped(toy_opt):
    toy_opt['train'].update(clip_grad=1e-3)
    model = build_model(toy_opt)
    model.optimizer_g.step = lambda: None
    model.feed_data(batch(1))
    model.optimize_parameters(1)
    norms = [p.grad.norm() for name in 'gf' for p in model.networks[name].parameters() if p.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_distillation_compares_with_the_teacher(toy_opt):
    toy_opt['train']['distill_opt'] = dict(type='L1Loss', loss_weight=2)
    model = build_model(toy_opt)
    data = batch(1)
    model.feed_data({**data, 'teacher': data['lq'].flip(3)})
    model.optimize_parameters(1)
    expected = 2 * F.l1_loss(model.visuals['enhanced'], 2 * data['lq'].flip(3) - 1).item()
    assert model.get_current_log()['l_distill'] == pytest.approx(expected, rel=1e-5)


def test_fixed_parameters_stay(toy_opt):
    toy_opt['train'].update(fixed_g=['encoder.', 'decoder.0'])
    model = build_model(toy_opt)
    before = {name: p.clone() for name, p in model.networks['g'].named_parameters()}
    train(model, [1, 2])
    for name, parameter in model.networks['g'].named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith(('encoder.', 'decoder.0')), name
    toy_opt['train'].update(fixed_f=['exposure'])
    with pytest.raises(ValueError, match="fixed_f: no parameter of network_f begins with 'exposure'"):
        build_model(toy_opt)


def test_fused_calls_give_the_gradients_of_separate_ones(toy_opt):
    """Six generator calls and four discriminator calls, each loss by itself, in float64."""
    toy_opt['train'].update(pool_size=0, ema_decay=0)
    model = build_model(toy_opt)
    for net in model.networks.values():
        net.double()
    x, y = (batch(1)[key].double() * 2 - 1 for key in ('lq', 'gt'))
    g, f, d_a, d_b = model.networks.values()

    fake_y, fake_x = g(x), f(y)
    logits_b, logits_a = d_b(fake_y), d_a(fake_x)
    loss_g = (
        F.binary_cross_entropy_with_logits(logits_b, torch.ones_like(logits_b)) +
        F.binary_cross_entropy_with_logits(logits_a, torch.ones_like(logits_a)) + 10 *
        (F.l1_loss(f(fake_y), x) + F.l1_loss(g(fake_x), y)) + 5 * (F.l1_loss(g(y), y) + F.l1_loss(f(x), x)))
    expected_g = torch.autograd.grad(loss_g, [*g.parameters(), *f.parameters()])
    loss_d = 0
    for d, real, fake in ((d_a, x, fake_x.detach()), (d_b, y, fake_y.detach())):
        real, fake = d(real), d(fake)
        loss_d += 0.5 * (
            F.binary_cross_entropy_with_logits(real, torch.ones_like(real)) +
            F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake)))
    expected_d = torch.autograd.grad(loss_d, [*d_a.parameters(), *d_b.parameters()])

    model.optimizer_g.step = model.optimizer_d.step = lambda: None
    model.lq, model.gt = x, y
    model.optimize_parameters(1)
    for expected, nets in ((expected_g, (g, f)), (expected_d, (d_a, d_b))):
        for gradient, parameter in zip(expected, [p for net in nets for p in net.parameters()]):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(('identity', 'detach', 'calls'), [
    (True, False, [4, 2]), (False, False, [4]), (False, True, [2, 2])])
def test_generator_calls_that_share_one(toy_opt, identity, detach, calls):
    """Translation with identity; without identity translation with the cycle, with the gradients of separate calls."""
    toy_opt['train'].update(detach_exposure=detach, cycle_jitter={'noise': 0.1})
    if not identity:
        toy_opt['train']['identity_opt'] = None
    toy_opt['network_g']['head'] = 'gain'
    torch.manual_seed(0)
    model = build_model(toy_opt)
    for net in model.networks.values():
        net.double()
    hold(model)
    x, y = model.lq, model.gt = [batch(1)[key].double() * 2 - 1 for key in ('lq', 'gt')]
    seen = []
    handle = model.networks['g'].register_forward_hook(lambda net, args, output: seen.append(len(args[0])))
    torch.manual_seed(1)
    losses = model._train_step()
    assert seen == calls and {len(p.grad.shape) > 0 for p in model.networks['g'].parameters()} == {True}
    handle.remove()

    torch.manual_seed(1)
    g, f, d_a, d_b = model.networks.values()
    fake_x = f(y)
    back = model.cycle_jitter(fake_x)
    fake_y = g(x, detach_exposure=detach)
    loss = (model.cri_gan(d_b(fake_y), True) + model.cri_gan(d_a(fake_x), True) + model.cri_cycle(g(back), y) +
            model.cri_cycle(f(fake_y), x))
    if identity:
        loss = loss + model.cri_identity(g(y), y) + model.cri_identity(f(x), x)
    expected = torch.autograd.grad(loss, [*g.parameters()])
    torch.testing.assert_close([p.grad for p in g.parameters()], list(expected), rtol=1e-9, atol=1e-12)
    assert {name for name in losses if 'd_' not in name} == {
        'l_gan_g', 'l_gan_f', 'l_cycle', *['l_identity'] * identity}


def test_generator_step_leaves_the_discriminators_alone(toy_model):
    model, learning = toy_model, {}
    model.optimizer_g.step = lambda: learning.update(
        {name: {p.grad is not None for p in net.parameters()} for name, net in model.networks.items()})
    calls = dict.fromkeys(model.networks, 0)
    for name, net in model.networks.items():
        net.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    train(model, [1])
    assert learning == {'g': {True}, 'f': {True}, 'd_a': {False}, 'd_b': {False}}
    assert calls == {'g': 2, 'f': 2, 'd_a': 2, 'd_b': 2}
    assert all(p.grad is not None for name in ('d_a', 'd_b') for p in model.networks[name].parameters())


def test_identity_loss_is_optional(toy_opt):
    del toy_opt['train']['identity_opt']
    model = build_model(toy_opt)
    train(model, [1])
    assert 'l_identity' not in model.get_current_log()


def test_training_changes_every_network_and_logs_means(toy_model):
    before = {k: v.clone() for k, v in weights(toy_model).items()}
    toy_model.feed_data(batch(1))
    toy_model.optimize_parameters(1)
    first = toy_model.get_current_log()
    assert set(first) == {'l_gan_g', 'l_gan_f', 'l_cycle', 'l_identity', 'l_d_a', 'l_d_b'}
    unchanged = [k for k, v in weights(toy_model).items() if k.endswith('weight') and torch.equal(v, before[k])]
    assert not unchanged
    train(toy_model, [2, 3])
    assert toy_model.loss_meter.count == 2 and all(map(math.isfinite, toy_model.get_current_log().values()))


def test_uint8_and_float_batches_are_the_same(toy_model):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    toy_model.feed_data({'lq': images, 'gt': images})
    from_uint8 = toy_model.lq
    toy_model.feed_data({'lq': images.float() / 255, 'gt': images.float() / 255})
    torch.testing.assert_close(from_uint8, toy_model.lq)
    assert from_uint8.min() >= -1 and from_uint8.max() <= 1


def test_weight_averaging(toy_model):
    net, averaged = toy_model.networks['g'], toy_model.net_g_ema
    start = averaged.decoder[0].weight.clone()
    train(toy_model, [1])
    decay = 2 / 11  # (1 + 1) / (10 + 1), below ema_decay
    torch.testing.assert_close(averaged.decoder[0].weight, decay * start + (1 - decay) * net.decoder[0].weight)
    start = averaged.decoder[0].weight.clone()
    toy_model.model_ema(0.9)
    torch.testing.assert_close(averaged.decoder[0].weight, 0.9 * start + 0.1 * net.decoder[0].weight)


def test_bf16_stays_close_and_losses_are_fp32(toy_opt):
    logs = []
    for amp in (None, 'bf16'):
        toy_opt['amp'] = amp
        torch.manual_seed(0)
        model = build_model(toy_opt)
        model.feed_data(batch(1))
        losses = model._train_step()
        assert model.visuals['enhanced'].dtype == torch.float32
        assert all(v.dtype == torch.float32 for v in losses.values())
        logs.append({k: v.item() for k, v in losses.items()})
    assert logs[1] == pytest.approx(logs[0], rel=0.02)
    assert logs[1] != logs[0]


def test_unknown_amp_is_refused(toy_opt):
    toy_opt['amp'] = 'fp8'
    with pytest.raises(ValueError, match="amp: 'fp8'"):
        build_model(toy_opt)


def test_schedule_reaches_zero_after_the_last_step(toy_model):
    rates = []
    for iteration in range(1, 11):
        toy_model.update_learning_rate(iteration)
        rates.append(toy_model.get_current_learning_rate()[0])
    assert rates[:6] == [1e-3] * 6
    assert rates[6:] == pytest.approx([8e-4, 6e-4, 4e-4, 2e-4])
    toy_model.update_learning_rate(11)
    assert [group['lr'] for o in toy_model.optimizers for group in o.param_groups] == [0, 0]


@pytest.mark.parametrize('scheduler', [dict(type='MultiStepLR', milestones=[2], gamma=0.5)])
def test_basicsr_schedulers_still_work(toy_opt, scheduler):
    toy_opt['train']['scheduler'] = scheduler
    model = build_model(toy_opt)
    for iteration in range(1, 5):
        model.update_learning_rate(iteration)
    assert model.get_current_learning_rate() == [5e-4]


def test_resumed_run_is_bit_for_bit_the_uninterrupted_one(toy_opt):
    torch.manual_seed(0)
    whole = build_model(toy_opt)
    train(whole, range(1, 8))
    torch.manual_seed(0)
    part = build_model(toy_opt)
    train(part, range(1, 5))
    part.save(0, 4)
    torch.manual_seed(99)
    np.random.seed(99)
    for name in ('g', 'f', 'd_a', 'd_b'):
        toy_opt['path'][f'pretrain_network_{name}'] = f"{toy_opt['path']['models']}/net_{name}_4.pth"
    resumed = build_model(toy_opt)
    resumed.resume_training(torch.load(f"{toy_opt['path']['training_states']}/4.state", weights_only=True))
    train(resumed, range(5, 8))
    for (key, expected), value in zip(weights(whole).items(), weights(resumed).values()):
        assert torch.equal(value, expected), key
    for expected, value in zip(whole.net_g_ema.parameters(), resumed.net_g_ema.parameters()):
        assert torch.equal(value, expected)


def test_loss_that_is_not_finite_stops_the_run_and_saves_nothing(toy_model, toy_opt, tmp_path):
    train(toy_model, [1, 2])
    toy_model.save(0, 2)
    with torch.no_grad():
        next(toy_model.networks['f'].parameters()).fill_(float('nan'))
    with pytest.raises(ValueError, match=r'iteration 3 .*l_cycle: nan'):
        train(toy_model, [3])
    with pytest.raises(ValueError, match='iteration 3'):
        toy_model.save(0, 3)
    assert sorted(p.name for p in (tmp_path / 'training_states').iterdir()) == ['2.state']
    assert all(p.name.endswith('_2.pth') for p in (tmp_path / 'models').iterdir())


def test_only_the_last_checkpoints_are_kept(toy_model, toy_opt, tmp_path):
    toy_model.checkpoints.keep_last = 2
    for iteration in (1, 2, 3, 11):
        toy_model.save(0, iteration)
    toy_model.save(-1, -1)
    assert sorted(p.name for p in (tmp_path / 'training_states').iterdir()) == ['11.state', '3.state']
    assert {p.name.rsplit('_')[-1] for p in (tmp_path / 'models').iterdir()} == {'11.pth', '3.pth', 'latest.pth'}


def test_basicsr_reads_the_weights(toy_model, toy_opt):
    train(toy_model, [1])
    toy_model.save(0, 1)
    saved = torch.load(f"{toy_opt['path']['models']}/net_g_1.pth", weights_only=True)
    assert set(saved) == {'params', 'params_ema'}
    test_opt = dict(toy_opt, is_train=False)
    test_opt['path'] = dict(
        toy_opt['path'], pretrain_network_g=f"{toy_opt['path']['models']}/net_g_1.pth", param_key_g='params_ema')
    model = build_model(test_opt)
    assert list(model.networks) == ['g']
    for key, value in model.networks['g'].state_dict().items():
        assert torch.equal(value, toy_model.net_g_ema.state_dict()[key])


class ToyPairs(Dataset):

    def __init__(self, n=3, with_gt=True):
        self.n, self.with_gt = n, with_gt
        self.opt = dict(name='toy_val')

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        pair = batch(index, n=1, size=33)
        data = {'lq': pair['lq'][0], 'lq_path': f'/data/{index}.png'}
        return dict(data, gt=pair['gt'][0]) if self.with_gt else data


def test_validation_reports_means_and_each_image(toy_model, toy_opt, tmp_path):
    toy_model.iteration = 5
    toy_model.validation(DataLoader(ToyPairs()), 5, None, save_img=True)
    with open(tmp_path / 'log' / 'metrics' / 'toy_val_5.csv') as f:
        rows = list(csv.DictReader(f))
    assert [row['image'] for row in rows] == ['0', '1', '2']
    assert toy_model.validator.means['psnr'] == pytest.approx(np.mean([float(row['psnr']) for row in rows]))
    assert toy_model.validator.best['toy_val']['psnr']['iter'] == 5
    assert (tmp_path / 'visualization' / '1' / '1_5.png').exists()
    assert toy_model.networks['g'].training and not toy_model.net_g_ema.training


def test_validation_with_flips(toy_model):
    """The mean over the four flips, of the averaged weights."""
    x = batch(0, n=1)['lq']
    outputs = {}
    for dims in (None, (), (2, ), (3, ), (2, 3)):
        toy_model.opt['val']['self_ensemble'] = dims is None
        toy_model.feed_data({'lq': x.flip(dims or ())})
        toy_model.test()
        outputs[dims] = toy_model.output.flip(dims or ())
    together = outputs.pop(None)
    torch.testing.assert_close(together, sum(outputs.values()) / 4)
    assert not torch.allclose(together, outputs[()])


def test_mean_is_over_finite_values(toy_model, monkeypatch, caplog):
    values = iter([20.0, math.inf, 10.0])
    monkeypatch.setattr(toy_model.validator, 'measure', lambda images: {'psnr': next(values)})
    toy_model.validation(DataLoader(ToyPairs()), 5, None)
    assert toy_model.validator.means['psnr'] == 15


def test_validation_without_ground_truth_keeps_to_metrics_that_need_none(toy_model, toy_opt):
    toy_model.opt['val']['metrics']['niqe'] = dict(type='calculate_niqe_tolerant', crop_border=0, better='lower')
    toy_model.validation(DataLoader(ToyPairs(with_gt=False)), 5, None)
    assert list(toy_model.validator.means) == ['niqe']


def test_validation_that_measures_nothing_says_so(toy_model, caplog):
    with caplog.at_level('WARNING', logger='basicsr'):
        toy_model.validation(DataLoader(ToyPairs(with_gt=False)), 5, None)
    assert 'toy_val, 3 images: nothing is measured' in caplog.text and 'dataroot_gt' in caplog.text


def test_pictures_of_two_sets_stay_apart(toy_opt, tmp_path):
    toy_opt['datasets']['val_2'] = dict(name='other')
    model = build_model(toy_opt)
    other = ToyPairs(1)
    other.opt = dict(name='other')
    model.iteration = 5
    for dataset in (ToyPairs(1), other):
        model.validation(DataLoader(dataset), 5, None, save_img=True)
    pictures = sorted(str(p.relative_to(tmp_path / 'visualization')) for p in tmp_path.rglob('0_5.png'))
    assert pictures == ['other/0/0_5.png', 'toy_val/0/0_5.png']


def test_basicsrs_warning_of_several_sets_is_left_out(toy_model, caplog):
    from basicsr.utils import get_root_logger
    with caplog.at_level('WARNING', logger='basicsr'):
        get_root_logger().warning('Multiple validation datasets are *only* supported by SRModel.')
        get_root_logger().warning('another')
    assert [record.message for record in caplog.records] == ['another']


def resume_with(opt, **changes):
    """A run saved at iteration 6, resumed with these options of the section train."""
    torch.manual_seed(0)
    model = build_model(opt)
    train(model, range(1, 7))
    model.save(0, 6)
    resumed = build_model({**opt, 'train': {**opt['train'], **changes}})
    resumed.resume_training(torch.load(f"{opt['path']['training_states']}/6.state", weights_only=True))
    resumed.update_learning_rate(7)
    return resumed


def rates(model):
    return [group['lr'] for optimizer in model.optimizers for group in optimizer.param_groups]


def test_a_changed_rate_is_taken_on_resume_and_said(toy_opt, caplog):
    with caplog.at_level('WARNING', logger='basicsr'):
        same = resume_with(toy_opt)
    assert 'Changed' not in caplog.text and rates(same) == pytest.approx([8e-4, 8e-4])
    with caplog.at_level('WARNING', logger='basicsr'):
        changed = resume_with(toy_opt, optim_g=dict(type='Adam', lr=1e-5, betas=[0.9, 0.99]))
    assert rates(changed) == pytest.approx([8e-6, 8e-4])  # decayed as far as the schedule says
    assert tuple(changed.optimizer_g.param_groups[0]['betas']) == (0.9, 0.99)
    assert next(iter(changed.optimizer_g.state.values()))['step'] == 6  # its moments stay
    assert 'lr: was 0.001, is 1e-05 from here on' in caplog.text and 'betas: was [0.5, 0.999]' in caplog.text


@pytest.mark.parametrize(('before', 'after', 'rate', 'said'), [
    (dict(milestones=[2, 8], gamma=0.5), dict(milestones=[2, 4], gamma=0.1), 1e-5, 'milestones: was [2, 8], is [2, 4]'),
    (dict(type='LinearDecayLR'), dict(type='LinearDecayLR', decay_start=2), 5e-4, 'decay_start: was 5, is 2'),
    (dict(type='LinearDecayLR'), dict(milestones=[2, 4], gamma=0.1), 1e-5, 'is MultiStepRestartLR from here on'),
    (dict(milestones=[2, 4], gamma=0.1), dict(type='LinearDecayLR'), 8e-4, 'is LinearDecayLR from here on')])
def test_a_changed_schedule_is_taken_on_resume_and_said(toy_opt, caplog, before, after, rate, said):
    toy_opt['train']['scheduler'] = {'type': 'MultiStepLR', **before}
    with caplog.at_level('WARNING', logger='basicsr'):
        model = resume_with(toy_opt, scheduler={'type': 'MultiStepLR', **after})
    assert rates(model) == pytest.approx([rate, rate]) and said in caplog.text


def test_a_checkpoint_beyond_the_last_iteration_is_refused(toy_opt):
    with pytest.raises(ValueError, match='total_iter: is 4, but the checkpoint is of iteration 6'):
        resume_with(toy_opt, total_iter=4, scheduler=dict(type='LinearDecayLR', decay_start=1))


@pytest.mark.parametrize('damage', [lambda saved: saved['state'].update({0: None}),
                                    lambda saved: saved['state'][0].update(step=None),
                                    lambda saved: saved.clear(), lambda saved: saved['param_groups'].clear()])
def test_a_damaged_state_of_an_optimizer_is_one_line(toy_opt, monkeypatch, damage):
    load = torch.load

    def damaged(path, *args, **kwargs):
        state = load(path, *args, **kwargs)
        if str(path).endswith('.state'):
            damage(state['optimizers'][0])
        return state

    monkeypatch.setattr(torch, 'load', damaged)
    with pytest.raises(ValueError, match='^path:resume_state: the state of iteration 6 does not suit these optimizers'):
        resume_with(toy_opt)


@pytest.mark.parametrize('half', [False, True])
def test_training_starts_from_safetensors(toy_opt, tmp_path, half):
    from safetensors.torch import save_file
    torch.manual_seed(1)
    state = build_model({**toy_opt, 'is_train': False}).networks['g'].state_dict()
    save_file({k: v.half() if half else v for k, v in state.items()}, tmp_path / 'g.safetensors')
    toy_opt['path']['pretrain_network_g'] = str(tmp_path / 'g.safetensors')
    model = build_model(toy_opt)
    for net in (model.networks['g'], model.net_g_ema):
        assert next(net.parameters()).dtype == torch.float32
        for key, value in net.state_dict().items():
            assert torch.equal(value, state[key].half().float() if half else state[key])


@pytest.mark.parametrize('name', ['g.safetensors', 'g.pth'])
@pytest.mark.parametrize('content', ['broken', 'other'])
def test_weights_that_cannot_be_loaded_are_one_line(toy_opt, tmp_path, name, content):
    from safetensors.torch import save_file
    path = tmp_path / name
    if content == 'broken':
        path.write_bytes(b'no weights')
    elif name == 'g.pth':
        torch.save({'params': {'other': torch.zeros(1)}}, path)
    else:
        save_file({'other': torch.zeros(1)}, path)
    toy_opt['path']['pretrain_network_g'] = str(path)
    said = 'cannot be read as weights' if content == 'broken' else 'does not fit EMAResNetGenerator'
    with pytest.raises(ValueError, match=f'{name}: {said}') as error:
        build_model(toy_opt)
    assert '\n' not in str(error.value)


def test_one_way_of_taking_a_step_is_enough(toy_opt):
    """torch refuses fused and foreach together."""
    toy_opt['train']['optim_g']['foreach'] = True
    model = build_model(toy_opt)
    assert not model.optimizer_g.param_groups[0]['fused'] and model.optimizer_d.param_groups[0]['fused']


def test_last_validation_is_logged_once_and_at_the_last_iteration(toy_model, tmp_path):
    toy_model.iteration = 10
    for iteration in (10, 11):  # BasicSR's loop leaves its counter one too far
        toy_model.validation(DataLoader(ToyPairs()), iteration, None)
    assert [p.name for p in (tmp_path / 'log' / 'metrics').glob('*.csv')] == ['toy_val_10.csv']


def test_strip_of_the_training_batch(toy_model, tmp_path):
    import cv2
    train(toy_model, [1])
    toy_model.validation(DataLoader(ToyPairs(1)), 1, None, save_img=True)
    strip = cv2.imread(str(tmp_path / 'visualization' / 'training' / 'low_enhanced_normal_cycled_1.png'))
    assert strip.shape == (2 * 32, 4 * 32, 3)


@pytest.mark.parametrize('share', [1, 0.5])
def test_strip_with_the_camera(toy_opt, tmp_path, share):
    """Of low images there are as few as F translates; black stands in the places of the others."""
    import cv2
    toy_opt['train'].update(camera={'share': share}, identity_opt=None, cycle_low_weight=0)
    model = build_model(toy_opt)
    train(model, [1])
    model.validation(DataLoader(ToyPairs(1)), 1, None, save_img=True)
    strip = cv2.imread(str(tmp_path / 'visualization' / 'training' / 'low_enhanced_normal_cycled_1.png'))
    assert strip.shape == (2 * 32, 4 * 32, 3)
    assert strip[:, 64:].any() and not strip[32:, :64].any() and strip[:32, :64].any() == (share < 1)



def test_collapse_and_inversion_are_said_once(toy_model, monkeypatch):
    said = []
    monkeypatch.setattr('lowlight_cyclegan.models.lowlight_cyclegan_model.get_root_logger',
                        lambda: type('Logger', (), {'warning': said.append})())
    train(toy_model, [1])
    low = torch.linspace(-1, 1, 48).view(1, 3, 4, 4)
    toy_model.visuals.update(low=low, enhanced=-low)
    toy_model._warn_of_collapse(dict(l_d_a=0.001, l_d_b=0.5))
    assert not said  # of a generator that has hardly been trained
    toy_model.iteration = 100
    for _ in range(2):
        toy_model._warn_of_collapse(dict(l_d_a=0.001, l_d_b=0.5))
    assert len(said) == 2 and 'D_A tells' in said[0] and 'G inverts' in said[1]


def states(tmp_path):
    return sorted(p.name for p in (tmp_path / 'training_states').iterdir())


class Broken(ToyPairs):

    def __getitem__(self, index):
        if index == 1:
            raise ValueError('1.png is broken')
        return super().__getitem__(index)


def test_a_validation_that_fails_costs_nothing(toy_model, tmp_path):
    train(toy_model, [5])
    toy_model.save(0, 5)
    assert states(tmp_path) == ['5.state']  # a checkpoint does not wait for its validation
    train(toy_model, [10])
    with pytest.raises(ValueError, match='1.png is broken'):
        toy_model.validation(DataLoader(Broken()), 10, None)
    assert states(tmp_path) == ['10.state', '5.state']


def test_a_metric_that_fails_on_a_picture_is_named(toy_model):
    """BasicSR's NIQE raises on pictures below two of its blocks."""
    toy_model.opt['val']['metrics'] = {'niqe': {'type': 'calculate_niqe', 'crop_border': 0}}
    said = r'^val:metrics:niqe: calculate_niqe cannot measure a picture of .* calculate_niqe_tolerant gives nan there'
    with pytest.raises(ValueError, match=said):
        toy_model.validation(DataLoader(ToyPairs()), 5, None)


def test_best_values_of_a_validation_after_the_checkpoint_are_known_on_resume(toy_model, toy_opt, monkeypatch):
    values = iter([20.0, 30.0, 10.0, 25.0])
    monkeypatch.setattr(toy_model.validator, 'measure', lambda images: {'psnr': next(values)})
    saved = {}
    for iteration in (5, 6, 7):
        train(toy_model, [iteration])
        toy_model.save(0, iteration)
        toy_model.validation(DataLoader(ToyPairs(1)), iteration, None)
        saved[iteration] = torch.load(f"{toy_opt['path']['training_states']}/{iteration}.state", weights_only=True)
    for iteration, best in ((6, 30), (7, 30)):
        resumed = build_model(toy_opt)
        resumed.resume_training(saved[iteration])
        assert resumed.validator.best['toy_val']['psnr'] == {'better': 'higher', 'val': best, 'iter': 6}
    resumed = build_model(toy_opt)
    resumed.resume_training(saved[5])  # the best that is on disk comes later than this
    assert resumed.validator.best == {}


def test_a_metric_that_is_new_on_resume_starts_without_a_best_value(toy_model, toy_opt):
    train(toy_model, [5])
    toy_model.validation(DataLoader(ToyPairs()), 5, None)
    toy_model.save(0, 5)
    toy_opt['val']['metrics']['ssim'] = dict(type='calculate_ssim', crop_border=0)
    resumed = build_model(toy_opt)
    resumed.resume_training(torch.load(f"{toy_opt['path']['training_states']}/5.state", weights_only=True))
    train(resumed, [6])
    resumed.validation(DataLoader(ToyPairs()), 6, None)
    assert resumed.validator.best['toy_val']['ssim']['iter'] == 6


@pytest.mark.parametrize('iteration, validated', [(3, False), (5, True)])
def test_sigterm_saves_after_the_iteration(toy_model, tmp_path, iteration, validated):
    train(toy_model, [1])
    os.kill(os.getpid(), signal.SIGTERM)
    assert toy_model.stop_signal.received == signal.SIGTERM
    toy_model.feed_data(batch(iteration))
    if validated:  # the loop validates iteration 5: that comes first, so that nothing is missing on resume
        toy_model.optimize_parameters(iteration)
        assert states(tmp_path) == []
    with pytest.raises(SystemExit) as stop:
        if validated:
            toy_model.validation(DataLoader(ToyPairs(1)), iteration, None)
        else:
            toy_model.optimize_parameters(iteration)
    assert stop.value.code == 128 + signal.SIGTERM
    assert states(tmp_path) == [f'{iteration}.state']


def test_best_generator_is_kept(toy_model, tmp_path, monkeypatch):
    toy_model.opt['logger']['keep_best'] = 'psnr'
    values = iter([20.0, 30.0, 10.0])
    monkeypatch.setattr(toy_model.validator, 'measure', lambda images: {'psnr': next(values)})
    saved = []
    for iteration in (5, 6, 7):
        toy_model.iteration = iteration
        toy_model.validation(DataLoader(ToyPairs(1)), iteration, None)
        saved.append((tmp_path / 'models' / 'net_g_best.pth').read_bytes())
        train(toy_model, [iteration])
    assert saved[0] != saved[1] == saved[2]


def test_full_disk_stops_the_run_and_keeps_the_older_checkpoints(toy_model, tmp_path, monkeypatch):
    toy_model.save(0, 1)
    before = {p: p.read_bytes() for p in tmp_path.rglob('*.*') if p.is_file()}

    def no_space(fd):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', no_space)
    train(toy_model, [2])
    with pytest.raises(OSError, match=r'cannot be saved \(No space left.*older checkpoints are whole.*net_g_2.pth'):
        toy_model.save(0, 2)
    assert {p: p.read_bytes() for p in tmp_path.rglob('*.*') if p.is_file()} == before


def test_files_whose_state_is_gone_are_removed_with_the_next_checkpoint(toy_model, tmp_path):
    """As a kill between removing a state and removing its networks leaves them."""
    toy_model.checkpoints.keep_last = 2
    for iteration in (1, 2):
        toy_model.save(0, iteration)
    (tmp_path / 'training_states' / '1.state').unlink()
    (tmp_path / 'training_states' / '1_rank1.pth').write_bytes(b'')
    toy_model.save(0, 3)
    assert states(tmp_path) == ['2.state', '3.state']
    assert {p.name.rsplit('_')[-1] for p in (tmp_path / 'models').iterdir()} == {'2.pth', '3.pth'}
