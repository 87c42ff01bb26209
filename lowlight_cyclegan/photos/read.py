"""Photos from files: upright pixels of 8 or 16 bits with their EXIF data and colour profile.

A broken, foreign or oversized file is an :class:`~.formats.ImageError` of one line, and nothing else is raised for it.
"""
from __future__ import annotations

import io
import numpy as np
import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from . import png, tiff
from .apart import decode_apart
from .color import profile_of_codes
from .exif import PILLOW, exif_of, pillow
from .formats import MAX_PIXELS, RAW, ImageError, Photo
from .pixels import check_size, pixels_of, refuse_hdr, resolution, settled, upright

if TYPE_CHECKING:
    from PIL import Image

__all__ = ['decode_here', 'decode_image', 'read_bytes', 'read_image']

READ_BY_PILLOW = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'AVIF', 'JPEG2000', 'PPM', 'QOI')
TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
END_OF_JPEG = b'\xff\xd9'
METADATA = 2**16  # bytes of an AVIF in which its colour is looked for
HEIF_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')


def read_image(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo: JPEG, PNG, WebP, AVIF, BMP, TIFF, JPEG 2000, PPM, QOI, a GIF of one frame; HEIC and camera RAW with
    their extras.

    EXIF orientation is applied. 16-bit PNG and TIFF stay 16-bit, RAW becomes 16-bit sRGB. CMYK becomes sRGB, palettes
    become RGB, or RGBA if they are transparent.

    Args:
        path: File.
        max_pixels: A larger photo is refused before it is decoded.

    Raises:
        ImageError: If the file cannot be read, holds no photo or a broken, animated or too large one.
    """
    return decode_image(read_bytes(path, max_pixels), path, max_pixels)


def read_bytes(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> bytes:
    """Content of a file that may be a photo.

    Raises:
        ImageError: If it is no regular file, empty, larger than a photo of max_pixels can be, or cannot be read.
    """
    try:
        if os.path.isdir(path):
            raise ImageError(path, 'is no file')
        with open(path, 'rb', opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(path, 'is no file')
            # 8 bytes to a pixel of 16-bit RGBA, and room for metadata
            if status.st_size > 8 * max_pixels + 2**26:
                raise ImageError(path, f'has {status.st_size / 1e6:.0f} MB, more than a photo of '
                                 f'{max_pixels / 1e6:g} megapixels (--max-megapixels raises the limit)')
            data = file.read()
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(path, f'cannot be read ({getattr(error, "strerror", None) or error})') from error
    if not data:
        raise ImageError(path, 'is empty')
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    # a pipe without a writer would block
    return os.open(path, flags | getattr(os, 'O_NONBLOCK', 0))


def decode_image(data: bytes, name: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Photo:
    """:func:`read_image` from the bytes of a file; its name is for messages, and its suffix tells camera RAW."""
    if data[:4] in TIFF_MAGIC or _is_raw(name):
        return decode_apart(data, name, max_pixels)
    return decode_here(data, name, max_pixels)


def decode_here(data: bytes, name: str | os.PathLike, max_pixels: int) -> Photo:
    """:func:`decode_image` in this process, where libraries may write to standard error."""
    try:
        if _is_raw(name):
            return tiff.decode_raw(data, name, max_pixels)
        if data[:4] in TIFF_MAGIC:
            return tiff.decode_tiff(data, name, max_pixels)
        return _decode_with_pillow(data, name, max_pixels)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(name, 'does not fit into memory') from error
    except Exception as error:  # decoders answer broken files with every kind there is
        raise ImageError(name, f'is broken or truncated ({error or type(error).__name__})') from error


def _is_raw(name: str | os.PathLike) -> bool:
    return Path(os.fsdecode(name)).suffix.lower() in RAW


def _decode_with_pillow(data: bytes, name: str | os.PathLike, max_pixels: int) -> Photo:
    from PIL import Image, UnidentifiedImageError
    formats: tuple[str, ...] = READ_BY_PILLOW
    if data[4:8] == b'ftyp' and data[8:12] in HEIF_BRANDS:
        _register_heif(name)
        formats = ('HEIF', )
    with pillow():
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError as error:
            raise ImageError(name, 'holds no image of a known kind (JPEG, PNG, WebP, AVIF, BMP, TIFF, HEIC, JPEG 2000, '
                             'PPM, camera RAW), or one that is broken or not supported') from error
        check_size(image.size, name, max_pixels)
        # MPO is a JPEG that brings along a depth map, a gain map or a preview; HEIC collections have a primary image
        if getattr(image, 'is_animated', False) and image.format not in ('MPO', 'HEIF'):
            raise ImageError(name, f'is animated, {_count(image)} frames: only single pictures are enhanced; '
                             'lowlight-cyclegan video takes it')
    kind = {'MPO': 'JPEG'}.get(image.format, image.format)
    icc = image.info.get('icc_profile') or b''
    chunks = png.colour_chunks(data) if kind == 'PNG' else {}
    primaries, transfer = _codes(data, image, chunks)
    refuse_hdr(transfer, name)
    if kind == 'JPEG' and image.mode in ('L', 'RGB'):
        pixels = _decode_jpeg(data, image, name)
    else:
        top = _top_of_16_bit_colour(image)
        image.load()
        # Pillow has decoded the whole file as 8 bits: it is known to be sound
        pixels = _decode_16_bit(data, image, top) if top else pixels_of(image, icc, name)
    with pillow():
        exif, orientation = exif_of(image)
    check_size(pixels.shape[1::-1], name, max_pixels)
    gray = pixels.ndim == 2 or pixels.shape[2] == 2
    if kind == 'PNG':
        icc = png.profile_of_chunks(chunks, icc, gray)
    elif not icc:
        icc = profile_of_codes(primaries, transfer, gray)
    photo = Photo(upright(pixels, orientation), kind, exif, icc, resolution(image), tuple(chunks.items()))
    return settled(photo, name)


def _codes(data: bytes, image: Image.Image, chunks: dict[bytes, bytes]) -> tuple[int, int]:
    """Colour primaries and transfer characteristics of ITU-T H.273, as a PNG, HEIF or AVIF gives them; 2: unknown."""
    if len(chunks.get(b'cICP', b'')) == 4:
        return chunks[b'cICP'][0], chunks[b'cICP'][1]
    nclx = image.info.get('nclx_profile')
    if image.format == 'HEIF' and nclx:
        return int(nclx['color_primaries']), int(nclx['transfer_characteristics'])
    found = data.find(b'colrnclx', 0, METADATA) if image.format == 'AVIF' else -1
    return struct.unpack_from('>HH', data, found + 8) if found >= 0 else (2, 2)


def _count(image: Image.Image) -> int | str:
    try:
        return image.n_frames
    except Exception:  # a broken later frame
        return 'several'


def _register_heif(name: str | os.PathLike) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(name, 'HEIC needs an extra: pip install "lowlight_cyclegan[heif]"') from error
    with PILLOW:
        pillow_heif.register_heif_opener()


def _decode_jpeg(data: bytes, image: Image.Image, name: str | os.PathLike) -> np.ndarray:
    """Pixels of a gray or RGB JPEG. Pillow says nothing of a scan that ends too early, and refuses one that lacks its
    end marker alone."""
    import simplejpeg
    try:
        # with an end marker for a file that lacks it; nothing is read after the first
        pixels = simplejpeg.decode_jpeg(data + END_OF_JPEG, 'GRAY' if image.mode == 'L' else 'RGB', strict=True)
    except ValueError as error:
        if 'premature end' in str(error).lower():
            raise ImageError(name, 'is truncated: its pixels end in the middle of the picture') from error
        image.load()  # libjpeg warned of something that it can mend
        return np.asarray(image)
    return pixels[..., 0] if image.mode == 'L' else pixels


def _top_of_16_bit_colour(image: Image.Image) -> int:
    """The value of white in 16-bit colour, which Pillow opens as 8-bit (gray it opens as such); 0 for other pixels."""
    if image.mode not in ('RGB', 'RGBA') or not image.tile:
        return 0
    arguments = image.tile[0][3]
    if image.format == 'PNG':
        return 65535 if str(arguments).endswith(';16B') else 0
    if image.format == 'PPM' and isinstance(arguments, tuple) and arguments[-1] > 255:
        return arguments[-1]
    return 0


def _decode_16_bit(data: bytes, image: Image.Image, top: int) -> np.ndarray:
    import cv2
    if image.format == 'PNG':
        data = png.critical_chunks(data)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != image.size[::-1]:
        raise ValueError('16-bit pixels of this kind are not supported')
    pixels = pixels[..., [2, 1, 0, 3][:pixels.shape[2]]]
    if top < 65535:
        pixels = (pixels * np.uint32(65535) // top).clip(0, 65535).astype(np.uint16)
    gray_with_alpha = image.format == 'PNG' and data[25] == 4
    return pixels[..., [0, 3]] if gray_with_alpha else pixels
