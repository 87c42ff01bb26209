"""Blends a picture with its enhanced one, in linear light.

Reference: IEC 61966-2-1 (sRGB).
"""
from __future__ import annotations

import torch
from torch import Tensor

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
        light = torch.lerp(_to_linear(x), _to_linear(y), float(strength))
        bright = 1.055 * light.clamp_min(0.0031308)**(1 / 2.4) - 0.055
        rows.copy_(torch.where(light <= 0.0031308, light * 12.92, bright))
    return out


def _to_linear(x: Tensor) -> Tensor:
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055)**2.4)
