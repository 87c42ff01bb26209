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
