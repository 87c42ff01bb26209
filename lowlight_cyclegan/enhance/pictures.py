"""Arrays, tensors and PIL images as what a network takes, and back: type, size, alpha and metadata stay."""
from __future__ import annotations

import numpy as np
import torch
from collections.abc import Callable
from dataclasses import dataclass, replace
from torch import Tensor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

__all__ = ['Result', 'enhance_picture']

# Of a TIFF, whose other tags say how its file is laid out: description, make, model, software, date, artist, copyright.
DESCRIPTIVE = (0x10E, 0x10F, 0x110, 0x131, 0x132, 0x13B, 0x8298)
EXIF_IFD, GPS_IFD = 0x8769, 0x8825


@dataclass(frozen=True)
class Result:
    """An enhanced picture and how it was made.

    Attributes:
        image: Of the type, dtype, size and device of the input.
        mode: 'direct' or 'guided', as it ran in the end. None where strength 0 took no network.
        reason: Why that mode, in a line.
    """
    image: Any
    mode: str | None
    reason: str


def enhance_picture(image: Any, run: Callable[[Tensor], Result]) -> Result:
    """Enhance an array, tensor or PIL image, see :meth:`~lowlight_cyclegan.enhance.enhancer.Enhancer.enhance`.

    Args:
        image: Of one of these types.
        run: Takes (..., c, h, w) float32 in [0, 1] or uint8, c from 1 to 4, gives the same without alpha, in memory of
            its own.

    Raises:
        TypeError: If it is of no such type, or holds values of another.
        ValueError: If its shape is none of these.
    """
    if isinstance(image, np.ndarray):
        return _enhance_array(image, run)
    if isinstance(image, Tensor):
        return _enhance_tensor(image.detach(), run)
    from PIL import Image
    if not isinstance(image, Image.Image):
        raise TypeError(f'an image is an array, PIL image, tensor or a list of them, got {type(image).__name__}')
    return _enhance_pil(image, run)


def _enhance_array(image: np.ndarray, run: Callable[[Tensor], Result]) -> Result:
    scale = {'u1': 1, 'u2': 65535}.get(image.dtype.str[1:]) or (1 if image.dtype.kind == 'f' else None)
    if scale is None:
        raise TypeError(f'an array holds uint8, uint16 or floating point, got {image.dtype}')
    if image.ndim not in (2, 3, 4):
        raise ValueError(f'an array is (h, w), (h, w, c) or (n, h, w, c), got {image.shape}')
    pixels = image[..., None] if image.ndim == 2 else image
    dtype = np.uint8 if image.dtype == np.uint8 else np.float32
    x = torch.from_numpy(np.array(np.moveaxis(pixels, -1, -3), dtype, order='C'))  # never a view of the caller's
    if scale > 1:
        x.div_(scale)
    result = run(x)
    y = result.image
    del x
    if scale > 1:
        y.mul_(scale).round_()
    enhanced = np.empty(pixels.shape, image.dtype)
    enhanced[..., :y.shape[-3]] = np.moveaxis(y.numpy(), -3, -1)
    if pixels.shape[-1] in (2, 4):  # alpha as it was, not rounded twice
        enhanced[..., -1] = pixels[..., -1]
    return replace(result, image=enhanced.reshape(image.shape))


def _enhance_tensor(image: Tensor, run: Callable[[Tensor], Result]) -> Result:
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f'a tensor holds uint8 or floating point, got {image.dtype}')
    if image.dim() not in (3, 4):
        raise ValueError(f'a tensor is (c, h, w) or (n, c, h, w), got {tuple(image.shape)}')
    result = run(image if image.dtype == torch.uint8 else image.float())
    y = result.image.to(image.dtype)
    return replace(result, image=torch.cat([y, image[..., -1:, :, :]], dim=-3) if image.shape[-3] in (2, 4) else y)


def _enhance_pil(image: Image.Image, run: Callable[[Tensor], Result]) -> Result:
    from PIL import Image
    if image.mode.startswith('I'):  # 16 bits to a pixel, in 32 of mode I
        values = np.asarray(image)
        result = _enhance_array(values.clip(0, 65535).astype(np.uint16), run)
        pixels, mode = result.image.astype(values.dtype), image.mode
    else:
        mode = image.mode
        if mode not in ('L', 'LA', 'RGB', 'RGBA'):
            mode = 'RGBA' if image.has_transparency_data else 'RGB'
        result = _enhance_array(np.asarray(image.convert(mode)), run)
        pixels = result.image
    enhanced = Image.frombytes(mode, image.size, pixels.tobytes())
    enhanced.info = _metadata(image, mode)
    return replace(result, image=enhanced)


def _metadata(image: Image.Image, mode: str) -> dict[Any, Any]:
    """What a PIL image carries beside its pixels: EXIF with its orientation, ICC profile, resolution and more."""
    kept = {key: value for key, value in image.info.items() if key != 'transparency'}  # alpha holds that now
    space = b'RGB ' if mode.startswith('RGB') else b'GRAY'
    if (kept.get('icc_profile') or b'')[16:20] != space:  # of CMYK, for example, whose pixels became RGB
        kept.pop('icc_profile', None)
    exif = image.getexif()
    if exif and 'exif' not in kept:  # a TIFF
        descriptive = type(exif)()
        descriptive.update({tag: exif[tag] for tag in DESCRIPTIVE if tag in exif})
        for tag in (EXIF_IFD, GPS_IFD):
            if values := exif.get_ifd(tag):
                descriptive.get_ifd(tag).update(values)
        kept['exif'] = descriptive.tobytes()
    return kept
