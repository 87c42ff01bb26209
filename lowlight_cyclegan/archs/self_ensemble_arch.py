"""Geometric self-ensemble, with the four flips.

Reference: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR Workshops 2017,
section 3.4 (which also transposes: a photo's shape should stay).
"""
import torch

__all__ = ['self_ensemble']

FLIPS = ((), (-1, ), (-2, ), (-2, -1))


def self_ensemble(net, x):
    """Mean of what a network makes of the four flips of its input, one after another.

    Args:
        net (Callable): (n, c, h, w) -> the same shape. It may write to its input, which is a copy.
        x (Tensor): (n, c, h, w), its type is that of the sum.

    Returns:
        Tensor: (n, c, h, w).
    """
    total = torch.zeros_like(x)
    for dims in FLIPS:
        total += net(x.flip(dims)).flip(dims)
    return total.div_(len(FLIPS))
