"""Photos from files: upright pixels of 8 or 16 bits with their EXIF data and colour profile.

A broken, foreign or oversized file is an :class:`~.formats.ImageError` of one line, and nothing else is raised for it.
"""
from __future__ import annotations

import contextlib
import io
import numpy as np
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .exif import PILLOW, exif_of, exif_of_tiff, pillow
from .formats import MAX_PIXELS, RAW, ImageError, Photo, fitting_profile

if TYPE_CHECKING:
    from PIL import Image

__all__ = ['decode_image', 'read_bytes', 'read_image']

READ_BYPILLOW = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')
HEIF_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')
SIXTEEN_BIT_COMPRESSIONS = (1, 5, 8, 32773, 32946)  # that OpenCV decodes


def read_image(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo: JPEG, PNG, WebP, BMP, TIFF, a GIF of one frame; HEIC and camera RAW with their extras.

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
    try:
        if Path(os.fsdecode(name)).suffix.lower() in RAW:
            return _decode_raw(data, name, max_pixels)
        return _decode_with_pillow(data, name, max_pixels)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(name, 'does not fit into memory') from error
    except Exception as error:  # decoders answer broken files with every kind there is
        raise ImageError(name, f'is broken or truncated ({error or type(error).__name__})') from error


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """libtiff (in Pillow and in OpenCV) and LibRaw write to file descriptor 2. One thread at a time."""
    try:
        kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is no standard error
        yield
        return
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _decode_with_pillow(data: bytes, name: str | os.PathLike, max_pixels: int) -> Photo:
    from PIL import Image, UnidentifiedImageError
    formats = READ_BYPILLOW
    if data[4:8] == b'ftyp' and data[8:12] in HEIF_BRANDS:
        _register_heif(name)
        formats = ('HEIF', )
    with pillow():
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError as error:
            raise ImageError(name, 'holds no image of a known kind (JPEG, PNG, WebP, BMP, TIFF, HEIC, camera RAW), or '
                             'one that is broken or not supported') from error
        _check_size(image.size, name, max_pixels)
        # MPO is a JPEG that brings along a depth map, a gain map or a preview; HEIC collections have a primary image
        if getattr(image, 'is_animated', False) and image.format not in ('MPO', 'HEIF'):
            pages = 'pages' if image.format == 'TIFF' else 'frames'
            raise ImageError(name, f'is {"multi-page" if pages == "pages" else "animated"}, {_count(image)} {pages}: '
                             'only single pictures are enhanced')
        sixteen = _has_16_bit_colour(image, name)
        if image.format == 'TIFF':  # checks and warns while it loads
            exif, orientation = exif_of_tiff(image.getexif()), 1  # orientation is applied by load()
            with _silent_stderr():
                image.load()
    if image.format != 'TIFF':
        image.load()
        with pillow():
            exif, orientation = exif_of(image)
    kind = {'MPO': 'JPEG'}.get(image.format, image.format)
    icc = image.info.get('icc_profile') or b''
    # Pillow has decoded the whole file as 8 bits: it is known to be sound
    pixels = _decode_16_bit(data, image) if sixteen else _pixels(image, icc, name)
    _check_size(pixels.shape[1::-1], name, max_pixels)
    return Photo(_upright(pixels, orientation), kind, exif, fitting_profile(icc, pixels), _resolution(image))


def _check_size(size: tuple[int, int], name: str | os.PathLike, max_pixels: int) -> None:
    width, height = size
    if not width or not height:
        raise ImageError(name, 'has no pixels')
    if width * height > max_pixels:
        raise ImageError(name, f'{width}x{height} is {width * height / 1e6:.1f} megapixels, more than the limit of '
                         f'{max_pixels / 1e6:g} (--max-megapixels raises it)')


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


def _has_16_bit_colour(image: Image.Image, name: str | os.PathLike) -> bool:
    """Pillow opens 16-bit gray as such, and 16-bit colour as 8-bit."""
    if image.format == 'PNG':
        return image.mode in ('RGB', 'RGBA') and bool(image.tile) and str(image.tile[0][3]).endswith(';16B')
    if image.format == 'TIFF' and image.mode in ('RGB', 'RGBA', 'RGBX') and 16 in image.tag_v2.get(258, ()):
        if image.tag_v2.get(284, 1) != 1:
            raise ImageError(name, 'has 16-bit colour in separate planes, which is not supported')
        if image.tag_v2.get(259, 1) not in SIXTEEN_BIT_COMPRESSIONS:
            raise ImageError(name, f'has 16-bit colour compressed by {image.info.get("compression")}, which is not '
                             'supported (raw, LZW, Deflate and PackBits are)')
        return True
    return False


def _decode_16_bit(data: bytes, image: Image.Image) -> np.ndarray:
    import cv2
    if image.format == 'PNG':
        data = _critical_chunks(data)  # libpng remarks on others upon stderr
    with PILLOW, _silent_stderr():
        # TIFF's orientation is applied
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != image.size[::-1]:
        raise ValueError('16-bit pixels of this kind are not supported')
    pixels = pixels[..., [2, 1, 0, 3][:pixels.shape[2]]]
    if image.format == 'TIFF' and pixels.shape[2] == 4 and image.tag_v2.get(338, (2, ))[0] == 1:
        alpha = pixels[..., 3:].astype(np.uint32)
        colour = (pixels[..., :3] * np.uint32(65535) + alpha // 2) // np.maximum(alpha, 1)
        pixels = np.concatenate([colour.clip(0, 65535).astype(np.uint16), pixels[..., 3:]], axis=-1)
    if image.format == 'TIFF' and image.mode == 'RGBX':
        pixels = pixels[..., :3]
    if image.format == 'PNG' and data[25] == 4:  # gray with alpha
        pixels = pixels[..., [0, 3]]
    return np.ascontiguousarray(pixels)


def _critical_chunks(data: bytes) -> bytes:
    """A PNG less all chunks that do not decide about its pixels."""
    parts, start = [data[:8]], 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start:start + 4], 'big')
        if data[start + 4:start + 8] in (b'IHDR', b'tRNS', b'IDAT', b'IEND'):
            parts.append(data[start:end])
        start = end
    return b''.join(parts)


def _pixels(image: Image.Image, icc: bytes, name: str | os.PathLike) -> np.ndarray:
    if image.mode.startswith('I'):
        values = np.asarray(image)
        if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
            raise ImageError(name, 'has 32-bit integer pixels, which are not supported')
        values = values.astype(np.uint16)
        if image.format == 'TIFF' and image.tag_v2.get(262) == 0:  # white is zero, which Pillow leaves at 16 bits
            values = 65535 - values
        key = image.info.get('transparency')
        return values if key is None else np.dstack([values, np.where(values == key, 0, 65535).astype(np.uint16)])
    if image.mode == 'F':
        raise ImageError(name, 'has floating-point pixels, which are not supported')
    if image.mode == 'CMYK':
        return np.asarray(_cmyk_to_rgb(image, icc))
    alpha = image.has_transparency_data
    mode = ('LA' if alpha else 'L') if image.mode in ('1', 'L', 'LA', 'La') else ('RGBA' if alpha else 'RGB')
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _cmyk_to_rgb(image: Image.Image, icc: bytes) -> Image.Image:
    from PIL import ImageCms
    try:
        return ImageCms.profileToProfile(image, io.BytesIO(icc), ImageCms.createProfile('sRGB'), outputMode='RGB')
    except (OSError, ImageCms.PyCMSError):  # no profile, or a broken one
        return image.convert('RGB')


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    try:
        dpi = tuple(float(value) for value in image.info['dpi'])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return dpi if len(dpi) == 2 and all(1 < value <= 65535 for value in dpi) else None


def _decode_raw(data: bytes, name: str | os.PathLike, max_pixels: int) -> Photo:
    try:
        import rawpy
    except ImportError as error:
        raise ImageError(name, 'camera RAW needs an extra: pip install "lowlight_cyclegan[raw]"') from error
    from PIL import Image
    with PILLOW, _silent_stderr(), rawpy.imread(io.BytesIO(data)) as raw:
        _check_size((raw.sizes.width, raw.sizes.height), name, max_pixels)
        # the network brightens, LibRaw need not
        pixels = raw.postprocess(use_camera_wb=True, no_auto_bright=True, output_bps=16)
    if pixels.shape[2] == 1:  # a sensor without colours
        pixels = pixels[..., 0]
    elif pixels.shape[2] != 3:
        raise ImageError(name, f'has {pixels.shape[2]} colours, which is not supported')
    exif = b''
    if data[:4] in (b'II*\0', b'MM\0*'):  # most are TIFF structures
        tags = Image.Exif()
        with pillow(), contextlib.suppress(Exception):
            tags.load(data)
            exif = exif_of_tiff(tags)
    return Photo(pixels, 'RAW', exif)
