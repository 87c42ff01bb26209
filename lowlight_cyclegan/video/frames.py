"""Frames between the decoder and the encoder: what a network does to RGB, done to the planes of YUV.

References:
    ITU-T H.273, 8.3: the matrices.
    He and Sun, "Fast Guided Filter", arXiv:1505.00996, 2015: the local affine model.
"""
from __future__ import annotations

import av
import cv2
import numpy as np
import torch
from av.video.reformatter import Interpolation
from collections.abc import Callable, Sequence
from torch import Tensor

from lowlight_cyclegan.enhance.guided import SIZE, reduced_size
from .decode import colour_matrix, colour_range

# Shares of red and blue in the luma, by swscale's numbers of the matrices.
LUMA_SHARES = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
WINDOW, RIDGE = 5, 1e-5  # of the local affine model: pixels of the reduced copy, squared differences of the guide
OFFSET = 0.5 / 255  # half a grey level: the slope of the guide at black stays finite


def enhance_frame(frame: av.VideoFrame, pixel_format: str, enhance: Callable[[Tensor], Tensor]) -> av.VideoFrame:
    """Enhance a frame as a whole, by way of RGB.

    Args:
        frame: Decoded.
        pixel_format: Of the result, which keeps the size, the matrix and the range.
        enhance: (1, 3, h, w) RGB in [0, 1] -> the same.
    """
    matrix, value_range = colour_matrix(frame), colour_range(frame)
    rgb = frame.reformat(
        format='rgb24', src_colorspace=matrix, src_color_range=value_range,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT).to_ndarray()
    y = enhance(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255)
    pixels = (y[0] * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return av.VideoFrame.from_ndarray(pixels, format='rgb24').reformat(
        format=pixel_format, dst_colorspace=matrix, dst_color_range=value_range,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND)


def enhance_frame_guided(frame: av.VideoFrame, pixel_format: str,
                         enhance: Callable[[Tensor], Tensor]) -> av.VideoFrame:
    """Enhance a reduced copy of a frame, and carry over what that does to each place's luma and chroma.

    As :func:`lowlight_cyclegan.enhance.guided.enhance_guided`, but no plane is converted to RGB at its full size: the
    affine model is one of luma and chroma, and for the chroma of 4:2:0 it is applied at half the size.

    Args:
        frame: Decoded.
        pixel_format: 'yuv420p' or 'yuv444p', of the result, which keeps the size, the matrix and the range.
        enhance: (1, 3, h, w) RGB in [0, 1] -> the same.
    """
    matrix, value_range = colour_matrix(frame), colour_range(frame)
    planes = _planes(frame.reformat(format=pixel_format, src_colorspace=matrix, dst_colorspace=matrix,
                                    src_color_range=value_range, dst_color_range=value_range))
    luma_scale, chroma_scale, black = (255.0, 255.0, 0.0) if value_range == 2 else (219.0, 224.0, 16.0)
    codes = np.arange(256, dtype=np.float32)
    y = cv2.LUT(planes[0], (codes - black) / luma_scale)
    u, v = (cv2.LUT(plane, (codes - 128) / chroma_scale) for plane in planes[1:])
    h, w = y.shape
    small = reduced_size(h, w, SIZE)
    low = [_resize(plane, small, cv2.INTER_AREA) for plane in (y, u, v)]
    rgb = np.stack(_to_rgb(low, matrix)).clip(0, 1)
    enhanced = enhance(torch.from_numpy(rgb)[None])[0].cpu().numpy()
    slopes, offsets = _local_affine(_guide(*low), _from_rgb(enhanced, matrix))

    guide = _guide(_resize(y, u.shape, cv2.INTER_AREA), u, v)
    results = []
    for i, scale, offset in ((0, luma_scale, black), (1, chroma_scale, 128.0), (2, chroma_scale, 128.0)):
        value = _resize(offsets[i] * scale + offset, u.shape)
        for j in range(1 if i == 0 else 0, 3):
            value += _resize(slopes[i][j] * scale, u.shape) * guide[j]
        if i == 0:  # the luma's own share, at its own size
            square_root = cv2.LUT(planes[0], _root((codes - black) / luma_scale))
            value = _resize(value, y.shape) + _resize(slopes[0][0] * scale, y.shape) * square_root
        low_code, high_code = (0, 255) if value_range == 2 else (16, 235 if i == 0 else 240)
        results.append(cv2.convertScaleAbs(np.clip(value, low_code, high_code, out=value)))
    return av.VideoFrame.from_ndarray(_packed(results), format=pixel_format)


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """Views of the planes, (h, w) uint8 each."""
    return [np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, :plane.width]
            for plane in frame.planes]


def _packed(planes: list[np.ndarray]) -> np.ndarray:
    """Planes as PyAV takes them in one array: (3, h, w) for 4:4:4, (1.5 h, w) for 4:2:0."""
    if planes[0].shape == planes[1].shape:
        return np.stack(planes)
    return np.concatenate([plane.reshape(-1) for plane in planes]).reshape(-1, planes[0].shape[1])


def _resize(plane: np.ndarray, shape: tuple[int, int], interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    return plane if plane.shape == shape else cv2.resize(plane, shape[::-1], interpolation=interpolation)


def _to_rgb(yuv: Sequence[np.ndarray], matrix: int) -> list[np.ndarray]:
    y, u, v = yuv
    red, blue = LUMA_SHARES[matrix]
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return [r, (y - red * r - blue * b) / (1 - red - blue), b]


def _from_rgb(rgb: Sequence[np.ndarray], matrix: int) -> list[np.ndarray]:
    r, g, b = rgb
    red, blue = LUMA_SHARES[matrix]
    y = red * r + (1 - red - blue) * g + blue * b
    return [y, (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))]


def _root(y: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(y, 0) + OFFSET)


def _guide(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    """Values whose affine functions model the result: shadows and their colours get their share of the scale."""
    root = _root(y)
    return [root, u / root, v / root]


def _local_affine(guide: list[np.ndarray], target: list[np.ndarray]) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """Slopes a and offsets b of t_i = sum_j a_ij g_j + b_i around each pixel, by ridge regression in its windows."""

    def box(plane: np.ndarray) -> np.ndarray:
        return cv2.blur(plane, (WINDOW, WINDOW), borderType=cv2.BORDER_REFLECT)

    mean = [box(g) for g in guide]
    c00, c01, c02, c11, c12, c22 = (
        box(guide[i] * guide[j]) - mean[i] * mean[j] + (RIDGE if i == j else 0)
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)))
    # The inverse of the symmetric 3x3 covariance by cofactors.
    i00, i01, i02 = c11 * c22 - c12 * c12, c12 * c02 - c01 * c22, c01 * c12 - c11 * c02
    i11, i12, i22 = c00 * c22 - c02 * c02, c01 * c02 - c12 * c00, c00 * c11 - c01 * c01
    determinant = c00 * i00 + c01 * i01 + c02 * i02
    slopes, offsets = [], []
    for t in target:
        mean_t = box(t)
        k = [(box(g * t) - m * mean_t) / determinant for g, m in zip(guide, mean)]
        a = [i00 * k[0] + i01 * k[1] + i02 * k[2], i01 * k[0] + i11 * k[1] + i12 * k[2],
             i02 * k[0] + i12 * k[1] + i22 * k[2]]
        offsets.append(box(mean_t - a[0] * mean[0] - a[1] * mean[1] - a[2] * mean[2]))
        slopes.append([box(plane) for plane in a])
    return slopes, offsets
