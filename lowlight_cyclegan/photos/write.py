"""Photos to files: 8 or 16 bits with EXIF data and colour profile, complete or not at all."""
from __future__ import annotations

import io
import numpy as np
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowlight_cyclegan.files import atomic_write
from .exif import tiff_directory
from .formats import FORMATS, OPAQUE, QUALITY, WRITTEN, ImageError, Photo, fitting_profile, unfit
from .png import encode_16_bit, kept_chunks

__all__ = ['encode_image', 'write_bytes', 'write_image']

MAX_JPEG_EXIF = 65527  # a JPEG segment less its length and 'Exif\0\0'


def write_image(path: str | os.PathLike, photo: Photo, quality: int | None = None, format: str | None = None) -> None:
    """Write a photo; the file is there completely or, as before, not at all.

    Args:
        path: File.
        photo: See there.
        quality: See :func:`encode_image`.
        format: A key of ``FORMATS``. Default: by the suffix of path.

    Raises:
        ImageError: If the format is not known or cannot hold the photo, or the file cannot be written.
    """
    write_bytes(path, encode_image(photo, path, quality, format))


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """:func:`~lowlight_cyclegan.files.atomic_write` whose error is an :class:`ImageError`."""
    try:
        atomic_write(path, data)
    except OSError as error:
        raise ImageError(path, f'cannot be written ({error.strerror or error})') from error


def encode_image(
        photo: Photo, name: str | os.PathLike, quality: int | None = None, format: str | None = None) -> bytes:
    """Encode a photo as the content of a file.

    16 bits are kept in PNG and TIFF and rounded to 8 elsewhere. EXIF data and the colour profile are kept in all
    formats but BMP; EXIF data too large for a JPEG is left out.

    Args:
        photo: See there.
        name: File, for messages and its suffix.
        quality: 1 to 100, of JPEG and WebP; 100 is lossless in WebP. Default: 95.
        format: A key of ``FORMATS``. Default: by the suffix.

    Raises:
        ImageError: If the format is not known, or cannot hold transparency or a picture of that size.
    """
    kind = FORMATS.get(format) if format else WRITTEN.get(Path(os.fsdecode(name)).suffix.lower())
    if kind is None:
        raise ImageError(name, f'is no name or format to write ({", ".join(FORMATS)})')
    pixels = photo.pixels
    reason = unfit(kind, pixels)
    if reason:
        raise ImageError(name, reason)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4) and kind in OPAQUE:
        pixels = pixels[..., :-1].squeeze(-1) if pixels.shape[2] == 2 else pixels[..., :3]
    if kind not in ('PNG', 'TIFF') and pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.ndim == 2 and kind == 'WEBP':
        pixels = np.dstack([pixels] * 3)
    elif pixels.ndim == 3 and pixels.shape[2] == 2 and (kind == 'WEBP' or kind == 'TIFF' and pixels.itemsize == 2):
        pixels = pixels[..., [0, 0, 0, 1]]  # Pillow, for one, cannot read such a TIFF
    photo = replace(photo, pixels=pixels, icc=fitting_profile(photo.icc, pixels))
    try:
        if kind == 'TIFF':
            return _encode_tiff(photo)
        if pixels.dtype == np.uint16:
            return encode_16_bit(photo)
        return _encode_with_pillow(photo, kind, quality or QUALITY)
    except MemoryError as error:
        raise ImageError(name, 'does not fit into memory') from error
    except (OSError, ValueError, OverflowError, struct.error) as error:
        raise ImageError(name, f'cannot be written as {kind} ({error})') from error


def _encode_with_pillow(photo: Photo, kind: str, quality: int) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    options: dict[str, Any] = {
        'JPEG': dict(quality=quality, subsampling=0 if quality >= 90 else 2),
        'WEBP': dict(quality=quality, lossless=quality == 100, exact=True),
    }.get(kind, {})
    if kind != 'BMP':
        if photo.exif and (kind != 'JPEG' or len(photo.exif) <= MAX_JPEG_EXIF):
            options['exif'] = b'Exif\0\0' + photo.exif
        if photo.icc:
            options['icc_profile'] = photo.icc
    if photo.dpi and kind != 'WEBP':
        options['dpi'] = photo.dpi
    if kind == 'PNG' and photo.chunks:
        options['pnginfo'] = PngInfo()
        for name, content in kept_chunks(photo):
            options['pnginfo'].add(name, content)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(photo.pixels)).save(file, kind, **options)
    return file.getvalue()


def _encode_tiff(photo: Photo) -> bytes:
    """TIFF 6.0: one strip, deflated after horizontal differencing. Pillow writes no 16-bit colour, but directories."""
    pixels = photo.pixels
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    samples = pixels.astype(pixels.dtype.newbyteorder('<')).reshape(height, width, channels)
    samples[:, 1:] -= pixels.reshape(samples.shape)[:, :-1]
    data = zlib.compress(np.ascontiguousarray(samples), 6)
    tags: dict[int, Any] = {
        256: width, 257: height, 258: (pixels.itemsize * 8, ) * channels, 259: 8, 262: 1 if channels < 3 else 2, 273: 0,
        277: channels, 278: height, 279: len(data), 284: 1, 317: 2
    }
    if channels in (2, 4):
        tags[338] = 2  # alpha, not premultiplied
    if photo.dpi:
        tags.update({282: photo.dpi[0], 283: photo.dpi[1], 296: 2})
    directory = tiff_directory(photo.exif)
    for tag, value in tags.items():
        directory[tag] = value
    if photo.icc:
        directory.tagtype[34675] = 7
        directory[34675] = photo.icc
    file = io.BytesIO()
    directory.save(file)
    file.write(data)
    return file.getvalue()
