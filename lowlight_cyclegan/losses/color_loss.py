"""Gray-world colour constancy.

Reference: Guo et al., "Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement", CVPR 2020, eq. 7.
"""
from basicsr.utils.registry import LOSS_REGISTRY
from torch import nn

from lowlight_cyclegan.registry import register_once

__all__ = ['ColorConstancyLoss', 'color_constancy']


@register_once(LOSS_REGISTRY)
class ColorConstancyLoss(nn.Module):
    """Pulls the means of the three channels of each image together.

    Args:
        loss_weight (float): Default: 1.
    """

    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, images):
        """(n, 3, h, w) in [0, 1] -> scalar."""
        return self.loss_weight * color_constancy(images)


def color_constancy(images):
    """Squared differences between the means of the channels, (n, 3, h, w) -> scalar."""
    means = images.mean((2, 3))
    return (means - means.roll(1, dims=1)).square().sum(1).mean()
