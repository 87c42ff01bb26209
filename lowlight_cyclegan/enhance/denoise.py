"""Removes the noise that a network leaves: a guided filter whose guide is the low-light picture.

Reference: He et al., "Guided Image Filtering", TPAMI 2013.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .guided import guide, local_affine

__all__ = ['denoise']

RIDGE = 2e-3  # by PSNR, SSIM, LPIPS and NIQE on the held-out pairs of LOL
PIXELS = 2**18  # at a time: the filter's maps take 400 bytes a pixel


def denoise(y: Tensor, x: Tensor, strength: float = 1.0) -> Tensor:
    """Remove noise from an enhanced picture by a guided filter, whose guide is the low-light one.

    Around each pixel the enhanced picture is modelled as an affine function of the low one's colours, in square root,
    where noise depends least on brightness. Contrasts below about 0.045 there are taken for noise.

    Args:
        y: Enhanced, (n, 3, h, w) in [-1, 1]. It is written to.
        x: Low-light, the same.
        strength: In [0, 1], the share of the filtered picture; the rest is ``y`` as it was.

    Returns:
        ``y``.
    """
    h, w = y.shape[2:]
    halo = 2  # rows: a window of 3x3, and the mean of its coefficients over another
    rows = max(halo, PIXELS // (len(y) * w))
    above = y[:, :, :0]  # rows as they were before the last strip was written
    for top in range(0, h, rows):
        bottom = min(top + rows, h)
        first, last = max(0, top - halo), min(h, bottom + halo)
        colours, part = guide(x[:, :, first:last].float()), torch.cat([above, y[:, :, top:last]], dim=2).float()
        above = y[:, :, bottom - halo:bottom].clone()
        maps = local_affine(colours, part, 1, RIDGE)
        for c in range(3):
            strip = (maps[:, 3 * c:3 * c + 3] * colours).sum(1).add_(maps[:, 9 + c]).clamp_(-1, 1)
            strip = strip[:, top - first:bottom - first].to(y.dtype)
            y[:, c, top:bottom] = y[:, c, top:bottom].lerp(strip, strength)
    return y
