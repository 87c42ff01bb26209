"""Which files are photos, what a photo is in memory, and the error that names a file that cannot be one."""
from __future__ import annotations

import mimetypes
import numpy as np
import os
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = [
    'FORMATS', 'LIMITED', 'MAX_PIXELS', 'OPAQUE', 'QUALITY', 'RAW', 'SUFFIXES', 'WRITTEN', 'ImageError', 'Photo',
    'default_suffix', 'fitting_profile', 'is_other_picture', 'is_transparent', 'shown', 'unfit'
]

MAX_PIXELS = 200_000_000  # the largest cameras of phones have 16320x12240
QUALITY = 95  # of JPEG and WebP

FORMATS = {'jpg': 'JPEG', 'png': 'PNG', 'webp': 'WEBP', 'bmp': 'BMP', 'tiff': 'TIFF'}  # that are written
WRITTEN = {
    **{f'.{name}': known for name, known in FORMATS.items()}, '.jpeg': 'JPEG', '.jpe': 'JPEG', '.jfif': 'JPEG', '.tif':
    'TIFF'
}
HEIF = ('.heic', '.heif', '.hif')
RAW = ('.3fr', '.arw', '.cr2', '.cr3', '.crw', '.dng', '.erf', '.iiq', '.kdc', '.mef', '.mos', '.mrw', '.nef', '.nrw',
       '.orf', '.pef', '.raf', '.raw', '.rw2', '.rwl', '.sr2', '.srf', '.srw', '.x3f')
OPAQUE = ('JPEG', 'BMP')  # hold no transparency
LONGEST = {'JPEG': 65500, 'WEBP': 16383}  # pixels of a side
LIMITED = {*OPAQUE, *LONGEST}  # formats that do not hold every photo
LOSSY = (*HEIF, *RAW, '.avif', '.mpo')  # that become JPEG
SUFFIXES = {*WRITTEN, *LOSSY, '.gif', '.apng', '.dib', '.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx', '.pbm', '.pgm',
            '.ppm', '.pnm', '.qoi'}  # taken for photos in a folder
# Pictures that are not read, whose suffix mimetypes does not know as such
OTHERS = {'.jxl', '.exr', '.hdr', '.dds', '.xcf', '.pfm', '.jxr', '.wdp', '.hdp', '.bpg', '.flif', '.fits', '.fit',
          '.dcm', '.psd', '.psb', '.tga', '.pcx', '.sgi', '.eps', '.ai', '.kra', '.svg', '.jxs'}


class ImageError(ValueError):
    """A photo cannot be read or written: one line, its name and then the reason.

    Attributes:
        name: The file, as it was given.
        reason: The line without the name.
    """

    def __init__(self, name: str | os.PathLike, reason: object) -> None:
        self.name, self.reason = name, ' '.join(str(reason).split())
        super().__init__(f'{shown(name)}: {self.reason}')


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        pixels: uint8 or uint16, upright, (h, w) gray, (h, w, 2) gray with alpha, (h, w, 3) RGB or (h, w, 4) RGB with
            alpha, which is not premultiplied.
        format: Of the file: a value of ``FORMATS``, 'GIF', 'HEIF', 'AVIF', 'JPEG2000', 'PPM', 'QOI' or 'RAW'.
        exif: EXIF data as a TIFF structure, orientation 1, without thumbnail. May be empty.
        icc: ICC profile of the pixels. Empty means sRGB.
        dpi: Resolution, horizontal and vertical.
        chunks: Of a PNG that say how its pixels are shown (name and content); ``icc`` says the same.
        note: What the user should know of how it was read, in a line.
    """
    pixels: np.ndarray
    format: str = 'PNG'
    exif: bytes = b''
    icc: bytes = b''
    dpi: tuple[float, float] | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    note: str = ''

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        """The same photo, with other pixels."""
        return replace(self, pixels=pixels)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.pixels.shape[1], self.pixels.shape[0]


def shown(path: str | os.PathLike) -> str:
    """A path as text for a terminal or a report: one line, no control characters, whatever bytes it holds."""
    text = os.fsencode(path).decode('utf-8', 'backslashreplace')
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def default_suffix(path: str | os.PathLike, photo: Photo | None = None) -> str:
    """Suffix of the file that a photo becomes: its own if that is written, JPEG for HEIC, AVIF and RAW, else PNG; and
    PNG where that format does not hold the photo (a transparent PNG that is named .jpg, say)."""
    suffix = Path(path).suffix
    if suffix.lower() not in WRITTEN:
        suffix = '.jpg' if suffix.lower() in LOSSY else '.png'
    return '.png' if photo is not None and unfit(WRITTEN[suffix.lower()], photo.pixels) else suffix


def unfit(kind: str, pixels: np.ndarray) -> str | None:
    """Why a format (a value of ``FORMATS``) does not hold pixels of a :class:`Photo`, in words; None if it does."""
    if kind in OPAQUE and is_transparent(pixels):
        return f'{kind} holds no transparency, which the photo has: write PNG, WebP or TIFF'
    longest = LONGEST.get(kind)
    if longest and max(pixels.shape[:2]) > longest:
        return (f'{kind} holds at most {longest} pixels a side, and the photo has {pixels.shape[1]}x{pixels.shape[0]}: '
                'write PNG or TIFF')
    return None


def is_transparent(pixels: np.ndarray) -> bool:
    """True if pixels of a :class:`Photo` have alpha, and it is not full everywhere."""
    alpha = pixels[..., -1] if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else None
    return alpha is not None and bool(alpha.min() < np.iinfo(pixels.dtype).max)


def is_other_picture(path: str | os.PathLike) -> bool:
    """True if a file is a picture by its suffix, of a kind that is not read."""
    suffix = Path(path).suffix.lower()
    kind = mimetypes.guess_type(f'a{suffix}')[0] or ''
    return suffix not in SUFFIXES and (suffix in OTHERS or kind.startswith('image/'))


def fitting_profile(icc: bytes, pixels: np.ndarray) -> bytes:
    """The ICC profile if it describes such pixels, else none: one of CMYK does not describe the RGB made from it."""
    space = b'GRAY' if pixels.ndim == 2 or pixels.shape[2] == 2 else b'RGB '
    return icc if len(icc) > 128 and icc[16:20] == space else b''
