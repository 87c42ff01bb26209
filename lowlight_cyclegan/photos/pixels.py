"""From an opened picture to the pixels of a :class:`~.formats.Photo`: kinds of pixels, orientation, profile, limits."""
from __future__ import annotations

import io
import numpy as np
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from .color import HDR, encoding_of, transfer_of
from .formats import ImageError, Photo, fitting_profile

if TYPE_CHECKING:
    from PIL import Image

__all__ = ['FLOATING_POINT', 'check_size', 'pixels_of', 'refuse_hdr', 'resolution', 'settled', 'upright']

FLOATING_POINT = 'has floating-point pixels, which do not say how bright they are shown: save it with 16 bits'


def check_size(size: tuple[int, int], name: str | os.PathLike, max_pixels: int) -> None:
    """Refuse a picture of no or of too many pixels.

    Raises:
        ImageError: If it is one.
    """
    width, height = size
    if not width or not height:
        raise ImageError(name, 'has no pixels')
    if width * height > max_pixels:
        raise ImageError(name, f'{width}x{height} is {width * height / 1e6:.1f} megapixels, more than the limit of '
                         f'{max_pixels / 1e6:g} (--max-megapixels raises it)')


def refuse_hdr(transfer: int, name: str | os.PathLike) -> None:
    """Refuse a picture whose transfer characteristics are those of HDR.

    Raises:
        ImageError: If they are.
    """
    if transfer in HDR:
        raise ImageError(name, f'is HDR ({HDR[transfer]}), which the network does not know: tone-map it to SDR first')


def pixels_of(image: Image.Image, icc: bytes, name: str | os.PathLike) -> np.ndarray:
    """Pixels of a picture that Pillow has loaded, as :class:`~.formats.Photo` describes them.

    Raises:
        ImageError: If it holds floating point or integers of 32 bits.
    """
    if image.mode.startswith('I'):
        values = np.asarray(image)
        if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
            raise ImageError(name, f'has integer pixels from {values.min()} to {values.max()}: 0 to 65535 is supported')
        values = values.astype(np.uint16)
        if image.format == 'TIFF' and image.tag_v2.get(262) == 0:  # white is zero, which Pillow leaves at 16 bits
            values = 65535 - values
        key = image.info.get('transparency')
        return values if key is None else np.dstack([values, np.where(values == key, 0, 65535).astype(np.uint16)])
    if image.mode == 'F':
        raise ImageError(name, FLOATING_POINT)
    if image.mode == 'CMYK':
        return np.asarray(_to_srgb(image, icc) or image.convert('RGB'))
    alpha = image.has_transparency_data
    mode = ('LA' if alpha else 'L') if image.mode in ('1', 'L', 'LA', 'La') else ('RGBA' if alpha else 'RGB')
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _to_srgb(image: Image.Image, icc: bytes) -> Image.Image | None:
    """8-bit RGB by LittleCMS; None without a profile, or with a broken one."""
    from PIL import ImageCms
    try:
        return ImageCms.profileToProfile(image, io.BytesIO(icc), ImageCms.createProfile('sRGB'), outputMode='RGB')
    except (OSError, ImageCms.PyCMSError):
        return None


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def resolution(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch, if the file gives likely ones."""
    try:
        dpi = tuple(float(value) for value in image.info['dpi'])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return dpi if len(dpi) == 2 and all(1 < value <= 65535 for value in dpi) else None


def settled(photo: Photo, name: str | os.PathLike) -> Photo:
    """Keep a profile that fits the pixels and that :mod:`~.color` follows; pixels of another become sRGB by LittleCMS,
    with 8 bits.

    Raises:
        ImageError: If the profile is one of HDR.
    """
    icc = fitting_profile(photo.icc, photo.pixels)
    refuse_hdr(transfer_of(icc), name)
    try:
        encoding_of(icc)
    except ValueError:
        return _without_profile(replace(photo, icc=icc))
    return replace(photo, icc=icc)


def _without_profile(photo: Photo) -> Photo:
    from PIL import Image
    pixels = photo.pixels if photo.pixels.dtype == np.uint8 else (photo.pixels // 257).astype(np.uint8)
    gray = pixels.ndim == 2 or pixels.shape[2] == 2
    colours = pixels if pixels.ndim == 2 else pixels[..., :1 if gray else 3].squeeze()
    image = _to_srgb(Image.fromarray(np.ascontiguousarray(colours)), photo.icc)
    if image is None:  # nobody can follow it
        return replace(photo, icc=b'', chunks=())
    converted = np.asarray(image.convert('L') if gray else image)
    if photo.pixels.ndim == 3 and photo.pixels.shape[2] in (2, 4):
        converted = np.dstack([converted, pixels[..., -1]])
    note = 'its colour profile holds tables, which are followed with 8 bits: the output is sRGB'
    return replace(photo, pixels=converted, icc=b'', chunks=(), note=note)
