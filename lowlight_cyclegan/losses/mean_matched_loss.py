"""Squared error that is blind to exposure."""
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.registry import LOSS_REGISTRY

__all__ = ['MeanMatchedMSELoss']


@LOSS_REGISTRY.register()
class MeanMatchedMSELoss(nn.Module):
    """Mean squared error after the target has been given the prediction's mean brightness, image by image.

    The training counterpart of measuring "with the means matched": a picture's exposure can hardly be told from a dark
    image, and as a constant of every pixel's error it hides what could be, noise and colour.

    Args:
        loss_weight (float): Default: 1.
    """

    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred, target):
        """Two of (n, 3, h, w) in [-1, 1] -> scalar. The factor of the target gets no gradient."""
        pred_mean, target_mean = ((x.detach().mean((1, 2, 3), keepdim=True) + 1) / 2 for x in (pred, target))
        factor = pred_mean / target_mean.clamp_min(1 / 255)  # a black target stays black
        return self.loss_weight * F.mse_loss(pred, (target + 1) * factor - 1)
