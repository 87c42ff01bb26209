from helpers_enhance import picture, psnr
import pytest
import torch
from torch.nn import functional as F

from lowlight_cyclegan.enhance import guided
from lowlight_cyclegan.enhance.guided import enhance_guided


@pytest.mark.parametrize('size', [64, 200])
def test_guided_reproduces_an_affine_effect(size):
    x = picture(150, 203)
    y = enhance_guided(lambda low: low, x, size, eps=1e-8)
    # Identity is not affine in the guide, but nearly so within a window.
    assert y.shape == x.shape
    assert psnr(y, x) > 50


def test_guided_keeps_edges_without_overshoot():
    x = torch.full((1, 3, 160, 240), -0.95)
    x[..., 117:] = -0.2
    bright = enhance_guided(lambda low: (2 * ((low + 1) / 2)**0.5 - 1), x, 60)
    ideal = 2 * ((x + 1) / 2)**0.5 - 1
    height = (ideal.max() - ideal.min()).item()
    assert bright.max() < ideal.max() + 0.03 * height and bright.min() > ideal.min() - 0.03 * height
    assert (bright[..., 117] - bright[..., 116]).min() > 0.9 * height  # the edge is where it was, in one pixel


def test_guided_keeps_gradients_smooth():
    x = torch.linspace(-1, 0, 240).expand(1, 3, 160, 240)
    y = enhance_guided(lambda low: 2 * ((low + 1) / 2)**0.5 - 1, x, 60)
    ideal = 2 * ((x + 1) / 2)**0.5 - 1
    assert (y - ideal)[..., 8:].abs().max() < 0.02
    assert y.diff(dim=3).min() > -1e-4


def test_guided_does_not_amplify_noise():
    generator = torch.Generator().manual_seed(0)
    x = -0.7 + 0.05 * torch.randn(1, 3, 256, 256, generator=generator).clamp(-3, 3)

    def net(low):
        return (low * 3 + 2).clamp(-1, 1)

    assert enhance_guided(net, x, 64).std() < 0.7 * net(x).std()
    assert abs(enhance_guided(net, x, 64).mean() - net(x).mean()) < 0.01


def test_guided_is_the_same_in_strips_and_in_place(monkeypatch):
    x = picture(131, 97)
    upsampled = guided._upsampled_strips
    y = enhance_guided(torch.tanh, x, 48)
    monkeypatch.setattr(guided, '_upsampled_strips', lambda maps, h, w, pixels: upsampled(maps, h, w, 5 * w))
    torch.testing.assert_close(enhance_guided(torch.tanh, x, 48), y, atol=1e-5, rtol=0)
    copy = x.clone()
    assert enhance_guided(torch.tanh, copy, 48, out=copy) is copy
    torch.testing.assert_close(copy, y, atol=1e-5, rtol=0)


def test_upsampling_is_bilinear():
    maps = torch.rand(2, 5, 7, 9)
    strips = [strip for _, _, strip in guided._upsampled_strips(maps, 50, 41, 41 * 8)]
    expected = F.interpolate(maps, (50, 41), mode='bilinear', align_corners=False)
    torch.testing.assert_close(torch.cat(strips, dim=2), expected)
