import torch

from lowlight_cyclegan.enhance import denoise as denoise_module
from lowlight_cyclegan.enhance.denoise import denoise
from lowlight_cyclegan.enhance.guided import enhance_guided


def test_denoise_is_the_guided_filter_at_full_size_in_any_strips(monkeypatch):
    torch.manual_seed(0)
    x, y = torch.rand(2, 3, 41, 50) * 0.2 - 1, torch.rand(2, 3, 41, 50) * 2 - 1
    filtered = enhance_guided(lambda _: y, x, size=50, radius=1, eps=2e-3)
    expected = (y + filtered) / 2
    for pixels in (1, 150, 2**18):
        monkeypatch.setattr(denoise_module, 'PIXELS', pixels)
        found = y.clone()
        assert denoise(found, x, 0.5) is found
        torch.testing.assert_close(found, expected)


def test_denoise_removes_noise_and_keeps_edges():
    """A step of .2 in the square root of the low picture, with a noise of .03 there."""
    torch.manual_seed(0)
    clean = torch.full((1, 3, 60, 60), 0.2)
    clean[..., 30:] = 0.4
    noisy = clean + 0.03 * torch.randn_like(clean)
    low, enhanced = noisy**2 * 2 - 1, noisy * 4 - 1
    found = (denoise(enhanced, low) + 1) / 4
    flat = (..., slice(5, 55), slice(5, 25))
    assert (found - clean)[flat].std() < 0.45 * 0.03
    edge = (found[..., 30] - found[..., 29]).mean()
    assert edge > 0.15
    weaker = (denoise(noisy * 4 - 1, low, 0.7) + 1) / 4
    assert (found - clean)[flat].std() < (weaker - clean)[flat].std() < 0.9 * 0.03
