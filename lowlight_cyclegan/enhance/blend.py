"""Blends a picture with its enhanced one, in linear light."""
from __future__ import annotations

import torch
from torch import Tensor

from lowlight_cyclegan.archs.srgb import from_linear, to_linear

__all__ = ['blend']

ROWS = 256  # of a picture that are blended at a time: linear light takes several copies


def blend(low: Tensor, enhanced: Tensor, strength: float, out: Tensor | None = None) -> Tensor:
    """Blend in linear light (sRGB decoded): (..., h, w) in [0, 1] each -> the same; strength from 0 to 1.

    ``out``, which may be ``enhanced``, takes what is neither of them.
    """
    if strength in (0, 1):
        return enhanced if strength else low
    out = torch.empty_like(enhanced) if out is None else out
    for x, y, rows in zip(*(picture.split(ROWS, -2) for picture in (low, enhanced, out))):
        rows.copy_(from_linear(torch.lerp(to_linear(x), to_linear(y), float(strength))))
    return out
