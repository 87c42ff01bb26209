"""SCI's losses, which need no reference.

Reference: Ma et al., "Toward Fast, Flexible, and Robust Low-Light Image Enhancement", CVPR 2022, section 3.3.
"""
import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import nn

from lowlight_cyclegan.registry import register_once

__all__ = ['SCILoss']

# BT.601 luma and chroma, rows Y, Cb, Cr
YUV = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@register_once(LOSS_REGISTRY)
class SCILoss(nn.Module):
    """Fidelity and smoothness of the illumination in every stage (eqs. 4 and 5).

    Args:
        fidelity_weight (float): Default: 1.5.
        smoothness_weight (float): Default: 1.
        sigma (float): Of the colour distances that decide which neighbours are to be alike. Default: 0.1.
    """

    def __init__(self, fidelity_weight=1.5, smoothness_weight=1.0, sigma=0.1):
        super().__init__()
        self.fidelity_weight, self.smoothness_weight, self.sigma = fidelity_weight, smoothness_weight, sigma

    def forward(self, stages):
        """The two terms by name, weighted.

        Args:
            stages (list[tuple[Tensor, Tensor]]): :meth:`SCI.stages`: input v and illumination x of each stage,
                (n, 3, h, w).

        Returns:
            dict[str, Tensor]: Scalars.
        """
        fidelity = sum((x - v).square().mean() for v, x in stages)
        smooth = sum(smoothness(v, x, self.sigma) for v, x in stages)
        return {'l_fidelity': self.fidelity_weight * fidelity, 'l_smoothness': self.smoothness_weight * smooth}


def smoothness(v, x, sigma):
    """Differences of x to the neighbours in a 5x5 window, less where v has another colour; mean over pairs."""
    yuv = torch.einsum('kc,nchw->nkhw', v.new_tensor(YUV), v)
    total = 0
    for dy in range(3):  # the other half of the window gives the same pairs
        for dx in range(-2 if dy else 1, 3):
            near, far = _shifted(yuv, dy, dx)
            weight = torch.exp(-(near - far).square().sum(1, keepdim=True) / (2 * sigma**2))
            near, far = _shifted(x, dy, dx)
            total = total + (weight * (near - far).abs()).mean()
    return 2 * total


def _shifted(x, dy, dx):
    """The two views of x whose pixels are (dy, dx) apart, dy >= 0."""
    h, w = x.shape[2:]
    near, far = x[..., :h - dy, :], x[..., dy:, :]
    return (near[..., :w - dx], far[..., dx:]) if dx >= 0 else (near[..., -dx:], far[..., :w + dx])
