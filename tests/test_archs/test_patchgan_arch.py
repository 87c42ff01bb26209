import pytest
import torch
from copy import deepcopy

from lowlight_cyclegan.archs import PatchGANDiscriminator


def test_patchgan_has_the_papers_size_and_shape():
    with torch.device('meta'):
        net = PatchGANDiscriminator()
        assert round(sum(p.numel() for p in net.parameters()) / 1e6, 3) == 2.765
        assert net(torch.empty(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_a_logit_sees_a_patch_of_70_pixels():
    torch.manual_seed(0)
    net = PatchGANDiscriminator(num_feat=4)
    for i, layer in enumerate(net.model):
        if isinstance(layer, torch.nn.InstanceNorm2d):
            net.model[i] = torch.nn.Identity()  # its statistics see the whole image
    x = torch.rand(1, 3, 256, 256, requires_grad=True)
    net(x)[0, 0, 15, 15].backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    columns = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert len(rows) == len(columns) == rows[-1] - rows[0] + 1 == 70


def test_only_without_norm_does_it_see_brightness():
    """InstanceNorm takes an image's contrast away, apart from what its borders add."""
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    change = {}
    for norm in ('instance', 'none'):
        net = PatchGANDiscriminator(num_feat=8, norm=norm)
        logits = [net(x * scale) for scale in (1.0, 0.2)]
        change[norm] = ((logits[0] - logits[1]).std() / logits[0].std()).item()
    assert change['instance'] < 0.2 < 0.7 < change['none']
    with pytest.raises(ValueError, match='norm'):
        PatchGANDiscriminator(norm='batch')


def test_spectral_norm_bounds_each_convolution():
    torch.manual_seed(0)
    net = PatchGANDiscriminator(num_feat=4, norm='none', spectral_norm=True)
    x = torch.rand(1, 3, 64, 64)
    for _ in range(30):  # one step of the power method each
        net(x)
    convs = [layer for layer in net.model if isinstance(layer, torch.nn.Conv2d)]
    raw = [conv.parametrizations.weight.original for conv in convs]
    norms = [torch.linalg.matrix_norm(w.flatten(1), 2).item() for conv in convs for w in [conv.weight]]
    assert norms == pytest.approx([1] * 5, abs=0.02)
    assert all(torch.linalg.matrix_norm(w.flatten(1), 2) > 1.2 for w in raw)
    assert all(w.requires_grad and torch.allclose(conv.weight * torch.linalg.matrix_norm(w.flatten(1), 2), w, rtol=0.02)
               for conv, w in zip(convs, raw))


def test_spectral_norm_survives_copies_and_state_dicts():
    torch.manual_seed(0)
    net = PatchGANDiscriminator(num_feat=4, spectral_norm=True)
    other = PatchGANDiscriminator(num_feat=4, spectral_norm=True)
    other.load_state_dict(net.state_dict())
    x = torch.rand(2, 3, 64, 64)
    copy = deepcopy(net)
    expected = [net(x) for _ in range(3)]
    assert not torch.equal(expected[0], expected[2])  # the power method goes on
    for same in (copy, other):
        assert all(torch.equal(same(x), logits) for logits in expected)


def test_further_scales_judge_reduced_images():
    torch.manual_seed(0)
    net = PatchGANDiscriminator(num_feat=4, num_scale=3)
    x = torch.rand(2, 3, 96, 128)
    logits = net(x)
    half = x.view(2, 3, 48, 2, 64, 2).mean((3, 5))
    quarter = x.view(2, 3, 24, 4, 32, 4).mean((3, 5))
    for value, part, image in zip(logits, (net.model, *net.reduced), (x, half, quarter), strict=True):
        torch.testing.assert_close(value, part(image))
    single = PatchGANDiscriminator(num_feat=4)
    assert single.state_dict().keys() == {f'model.{i}.{key}' for i in (0, 2, 5, 8, 11) for key in ('weight', 'bias')}
    net.load_state_dict(single.state_dict(), strict=False)
    assert torch.equal(net(x)[0], single(x))


@pytest.mark.parametrize('wrong', [dict(spectral_norm='yes'), dict(num_scale=0), dict(num_scale=1.5)])
def test_wrong_values(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))} is'):
        PatchGANDiscriminator(**wrong)
