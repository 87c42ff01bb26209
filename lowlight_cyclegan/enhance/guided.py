"""Mode guided: the network on a reduced copy of a photo, its effect carried over by a local affine model.

References:
    He et al., "Guided Image Filtering", TPAMI 2013.
    He and Sun, "Fast Guided Filter", arXiv:1505.00996, 2015.
"""
from __future__ import annotations

import torch
from collections.abc import Callable, Iterator
from torch import Tensor
from torch.nn import functional as F

__all__ = ['enhance_guided', 'guide', 'local_affine', 'reduced_size']

SIZE = 600


def _box(x: Tensor, radius: int) -> Tensor:
    """Mean over windows of (2 radius + 1) squared pixels, at the border over the part inside the image."""
    for kernel, pad in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        x = F.avg_pool2d(x, kernel, 1, pad, count_include_pad=False)
    return x


def guide(x: Tensor) -> Tensor:
    """[-1, 1] -> the square root of [0, 1]: shadows get their share of the scale, as in the enhanced image."""
    return ((x + (1 + 1 / 255)) * 0.5).clamp_min_(0).sqrt_()


def local_affine(colours: Tensor, y: Tensor, radius: int, eps: float) -> Tensor:
    """Coefficients (n, 12, h, w) of y_i = sum_j a_ij g_j + b_i around each pixel: a_00, a_01, ..., a_22, b_0, b_1, b_2.

    Ridge regression in each window with a 3x3 covariance of the colours, averaged over the windows that hold the pixel.
    """
    mean_g, mean_y = _box(colours, radius), _box(y, radius)
    index = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    products = torch.stack([colours[:, i] * colours[:, j] for i, j in index], 1)
    rr, rg, rb, gg, gb, bb = (_box(products, radius) - torch.stack([mean_g[:, i] * mean_g[:, j] for i, j in index], 1)
                              ).unbind(1)
    rr, gg, bb = rr + eps, gg + eps, bb + eps
    # The inverse of the symmetric 3x3 matrix by cofactors.
    inverse = [gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb, rr * bb - rb * rb, rb * rg - rr * gb,
               rr * gg - rg * rg]
    determinant = rr * inverse[0] + rg * inverse[1] + rb * inverse[2]
    i00, i01, i02, i11, i12, i22 = (v / determinant for v in inverse)
    coefficients = []
    for c in range(3):
        r, g, b = (_box(colours * y[:, c:c + 1], radius) - mean_g * mean_y[:, c:c + 1]).unbind(1)
        coefficients += [i00 * r + i01 * g + i02 * b, i01 * r + i11 * g + i12 * b, i02 * r + i12 * g + i22 * b]
    a = torch.stack(coefficients, 1)
    b = mean_y - torch.stack([(a[:, 3 * c:3 * c + 3] * mean_g).sum(1) for c in range(3)], 1)
    return _box(torch.cat([a, b], dim=1), radius)


def _upsampled_strips(maps: Tensor, h: int, w: int, pixels: int) -> Iterator[tuple[int, int, Tensor]]:
    """Bilinear upsampling of (n, c, h', w') to h x w: yields (top, bottom, strip) with about ``pixels`` pixels each.

    The width is done once, for the few rows there are; the height is a product with a narrow band of weights.
    """
    n, c, low_h, low_w = maps.shape
    wide = F.interpolate(maps.reshape(n, c * low_h, low_w), w, mode='linear', align_corners=False)
    wide = wide.view(n * c, low_h, w)
    position = (torch.arange(h, device=maps.device, dtype=torch.float64) + 0.5) * (low_h / h) - 0.5
    position.clamp_(0, low_h - 1)
    rows = max(1, pixels // w)
    for top in range(0, h, rows):
        bottom = min(top + rows, h)
        first = int(position[top])
        last = min(int(position[bottom - 1]) + 2, low_h)
        nodes = torch.arange(first, last, device=maps.device)
        weights = (1 - (position[top:bottom, None] - nodes).abs()).clamp_(min=0).to(maps.dtype)  # (rows, nodes)
        yield top, bottom, (weights @ wide[:, first:last]).view(n, c, bottom - top, w)


def reduced_size(h: int, w: int, size: int) -> tuple[int, int]:
    """Size of the reduced copy; neither side falls below the 32 pixels that networks need."""
    scale = min(1.0, size / max(h, w))
    return max(min(h, 32), round(h * scale)), max(min(w, 32), round(w * scale))


@torch.no_grad()
def enhance_guided(net: Callable[[Tensor], Tensor], x: Tensor, size: int = SIZE, radius: int = 2, eps: float = 1e-4,
                   out: Tensor | None = None) -> Tensor:
    """The network on a reduced copy of the photo, its effect carried over by a fast guided filter.

    Around each pixel of the reduced copy the output is modelled as an affine function of the input's colours, in square
    root, with a ridge: edges keep their place, noise that the copy averages out is not amplified. The coefficients are
    upsampled bilinearly and applied at full resolution in strips: beyond the input and the output, memory grows with
    the photo's width alone.

    Args:
        net: Any network, in evaluation mode, (n, 3, h, w) in [-1, 1] -> the same.
        x: (n, 3, h, w) in [-1, 1].
        size: Longer side of the reduced copy. Smaller photos are not reduced, only filtered.
        radius: Of the windows, in pixels of the reduced copy.
        eps: Ridge, on the scale of squared differences of the guide.
        out: Where to write the output, which may be ``x`` itself.

    Returns:
        (n, 3, h, w) in [-1, 1].
    """
    h, w = x.shape[2:]
    low_h, low_w = reduced_size(h, w, size)
    low = x.float() if (low_h, low_w) == (h, w) else F.interpolate(x.float(), (low_h, low_w), mode='area')
    coefficients = local_affine(guide(low), net(low).float(), radius, eps)
    out = torch.empty_like(x) if out is None else out
    for top, bottom, strip in _upsampled_strips(coefficients, h, w, 2**16):
        colours = guide(x[:, :, top:bottom].float()).unbind(1)
        for c in range(3):
            y = strip[:, 9 + c]
            for j in range(3):
                y.addcmul_(strip[:, 3 * c + j], colours[j])
            out[:, c, top:bottom] = y.clamp_(-1, 1)
    return out
