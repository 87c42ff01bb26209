import pytest
import torch

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
