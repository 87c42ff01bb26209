import torch

from lowlight_cyclegan.models import ExposureJitter


def images(n=64):
    return (torch.arange(n * 3 * 16 * 16) % 100 / 100 * 1.2 - 1).view(n, 3, 16, 16).requires_grad_()


def test_without_strength_only_the_rounding_is_left():
    x = images()
    y = ExposureJitter()(x)
    assert (y - x).abs().max() <= 1 / 255 + 1e-6
    assert torch.allclose((y + 1) * 127.5, ((y + 1) * 127.5).round(), atol=1e-3)


def test_gradient_passes_the_rounding():
    x = images(2)
    ExposureJitter()(x).sum().backward()
    inside = x.detach() > -0.99
    assert torch.allclose(x.grad[inside], torch.ones(()))


def test_exposures_spread_by_image_and_by_channel():
    torch.manual_seed(0)
    x = images()
    ratio = ((ExposureJitter(gain=0.3, channel=0.1)(x) + 1).mean((2, 3)) / (x + 1).mean((2, 3))).log()
    assert 0.2 < ratio.mean(1).std() < 0.4
    assert 0.03 < ratio.std(1).mean() < 0.15


def test_noise_and_range():
    torch.manual_seed(0)
    x = torch.zeros(64, 3, 16, 16)
    y = ExposureJitter(noise=0.1)(x)
    spread = y.std((1, 2, 3)) / 2
    assert spread.max() < 0.11 and spread.min() < 0.02 < spread.mean()
    extreme = ExposureJitter(power=1, gain=2, channel=1, noise=1)(images())
    assert extreme.min() >= -1 and extreme.max() <= 1


def test_highlights_get_brighter_and_shadows_hardly():
    torch.manual_seed(0)
    x = torch.linspace(-1, 0, 16).expand(64, 3, 16, 16)  # up to 0.5
    ratio = (ExposureJitter(highlights=1)(x) + 1) / (x + 1).clamp_min(1e-3)
    assert (ratio[..., -1] > 0.99).all() and ratio[..., -1].max() > 1.9 and 1.3 < ratio[..., -1].mean() < 1.7
    assert ratio[..., 4].mean() < 1.2 and (ratio[..., 8].mean() < ratio[..., -1].mean())
    assert torch.isfinite(ExposureJitter(highlights=1)(torch.full((2, 3, 8, 8), -1.0))).all()


def test_draws_follow_the_seed():
    x, jitter = images(2), ExposureJitter(power=0.2, gain=0.4, channel=0.1, noise=0.01, highlights=1)
    torch.manual_seed(5)
    first = jitter(x)
    assert not torch.equal(first, jitter(x))
    torch.manual_seed(5)
    assert torch.equal(first, jitter(x))
