import pytest
import torch

from lowlight_cyclegan.losses import PhotoLoss


def test_exact_picture_costs_nothing():
    x = torch.rand(2, 3, 16, 24) * 2 - 1
    assert PhotoLoss()(x, x).item() == pytest.approx(0, abs=1e-3)


def test_noise_counts_beside_a_wrong_exposure():
    """In one absolute error it would not: too bright by more than the noise, noise averages out."""
    torch.manual_seed(0)
    x = torch.zeros(1, 3, 64, 64)
    noise = 0.05 * torch.randn_like(x)
    loss = PhotoLoss(psnr_weight=0)
    plain = ((x + 0.5 + noise) - x).abs().mean() - ((x + 0.5) - x).abs().mean()
    assert plain.abs() < 0.002
    assert loss(x + 0.5 + noise, x) - loss(x + 0.5, x) > 0.03


def test_grey_is_told_from_colour():
    colour = torch.zeros(1, 3, 8, 8)
    colour[:, 0] = 0.5
    grey = colour.mean(1, keepdim=True).expand_as(colour)
    with_chroma, without = (PhotoLoss(chroma_weight=weight)(grey, colour) for weight in (1.0, 0.0))
    assert with_chroma - without == pytest.approx(((0.5**2 + 0.25**2 + 1e-4)**0.5 - 0.01), abs=1e-3)


def test_small_errors_pull_harder_than_in_proportion():
    x = torch.zeros(1, 3, 8, 8)
    plain, loss = PhotoLoss(psnr_weight=0), PhotoLoss()
    assert plain(x + 0.02, x).item() == pytest.approx(0.1 * plain(x + 0.2, x).item(), rel=1e-4)
    assert loss(x + 0.02, x) > 0.15 * loss(x + 0.2, x)
