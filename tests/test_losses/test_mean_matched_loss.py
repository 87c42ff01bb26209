import pytest
import torch
from torch.nn import functional as F

from lowlight_cyclegan.losses import MeanMatchedMSELoss


def test_value_by_its_definition():
    """Image by image: the target's factor is that of the means, with black at -1."""
    pred, target = torch.rand(2, 3, 8, 8) * 2 - 1, torch.rand(2, 3, 8, 8) * 2 - 1
    expected = 0
    for p, t in zip((pred + 1) / 2, (target + 1) / 2):
        expected += F.mse_loss(2 * p, 2 * t * p.mean() / t.mean()).item() / 2
    assert MeanMatchedMSELoss(3.0)(pred, target).item() == pytest.approx(3 * expected, rel=1e-5)


def test_exposure_counts_for_nothing():
    target = torch.rand(2, 3, 8, 8)
    darker = torch.tensor([0.3, 0.8]).view(2, 1, 1, 1) * target
    loss = MeanMatchedMSELoss()
    assert loss(2 * darker - 1, 2 * target - 1).item() == pytest.approx(0, abs=1e-12)
    noisy = (2 * darker - 1 + 0.1 * torch.randn(2, 3, 8, 8)).requires_grad_()
    loss(noisy, 2 * target - 1).backward()
    matched = noisy.detach() + 1
    matched = matched - (target * (matched.mean((1, 2, 3)) / target.mean((1, 2, 3))).view(2, 1, 1, 1))
    torch.testing.assert_close(noisy.grad, 2 * matched / matched.numel())


def test_black_target():
    pred, target = torch.zeros(1, 3, 8, 8), -torch.ones(1, 3, 8, 8)
    assert MeanMatchedMSELoss()(pred, target).item() == 1
