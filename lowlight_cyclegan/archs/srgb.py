"""The curve of sRGB, IEC 61966-2-1, for tensors of any shape."""
import torch

__all__ = ['from_linear', 'to_linear']


def to_linear(x):
    """sRGB in [0, 1] to linear light in [0, 1]."""
    return torch.where(x <= 0.04045, x / 12.92, _power((x + 0.055) / 1.055, 2.4))


def from_linear(x):
    """Linear light in [0, 1] to sRGB in [0, 1]."""
    # Clamped for the gradient, which is infinite at 0.
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * _power(x.clamp_min(0.0031308), 1 / 2.4) - 0.055)


def _power(x, exponent):
    """x**exponent of positive x, in half the time."""
    return x.log2().mul_(exponent).exp2_()
