"""Zero-DCE's losses, which need no reference.

Reference: Guo et al., "Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement", CVPR 2020, section 3.3.
"""
from basicsr.utils.registry import LOSS_REGISTRY
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.registry import register_once
from .color_loss import color_constancy

__all__ = ['ZeroDCELoss']


@register_once(LOSS_REGISTRY)
class ZeroDCELoss(nn.Module):
    """Weighted sum of four terms, as the paper prints them (the published code squares and weighs some differently).

    Args:
        spatial_weight (float): Of spatial consistency (eq. 5). Default: 1.
        exposure_weight (float): Of exposure control (eq. 6). Default: 1.
        color_weight (float): Of colour constancy (eq. 7). Default: 0.5.
        smoothness_weight (float): Of illumination smoothness (eq. 8). Default: 20.
        exposure (float): Brightness that regions of 16x16 are to have, in [0, 1]. Default: 0.6.
    """

    def __init__(self, spatial_weight=1.0, exposure_weight=1.0, color_weight=0.5, smoothness_weight=20.0, exposure=0.6):
        super().__init__()
        self.weights = {'l_spatial': spatial_weight, 'l_exposure': exposure_weight, 'l_color': color_weight,
                        'l_smoothness': smoothness_weight}
        self.exposure = exposure

    def forward(self, low, enhanced, curves):
        """All four terms by name, weighted.

        Args:
            low (Tensor): (n, 3, h, w) in [0, 1], h and w at least 16.
            enhanced (Tensor): The same.
            curves (Tensor): :meth:`ZeroDCE.curves` of low, (n, iterations, 3, h, w).

        Returns:
            dict[str, Tensor]: Scalars.
        """
        terms = (spatial_consistency(enhanced, low), exposure_control(enhanced, self.exposure),
                 color_constancy(enhanced), smoothness(curves))
        return {name: weight * term for (name, weight), term in zip(self.weights.items(), terms)}


def spatial_consistency(enhanced, low):
    """Differences between neighbouring regions of 4x4 pixels are to stay (eq. 5)."""
    y, i = (F.avg_pool2d(image.mean(1, keepdim=True), 4) for image in (enhanced, low))
    total = sum((y.diff(dim=dim).abs() - i.diff(dim=dim).abs()).square().sum() for dim in (2, 3))
    return 2 * total / y.numel()  # each pair counts for both of its regions


def exposure_control(enhanced, exposure):
    """Distance of the brightness of 16x16 regions from a good exposure (eq. 6)."""
    return (F.avg_pool2d(enhanced.mean(1, keepdim=True), 16) - exposure).abs().mean()


def smoothness(curves):
    """Total variation of the curve maps, mean over iterations, sum over channels (eq. 8)."""
    variation = curves.diff(dim=3)[..., :-1].abs() + curves.diff(dim=4)[..., :-1, :].abs()
    return variation.square().mean((0, 1, 3, 4)).sum()
