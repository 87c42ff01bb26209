"""Pictures in TIFF structures: TIFF files, of which one page is the photo, and camera RAW."""
from __future__ import annotations

import contextlib
import io
import logging
import numpy as np
import os
from typing import TYPE_CHECKING

from .exif import exif_of_tiff, pillow
from .formats import ImageError, Photo
from .pixels import FLOATING_POINT, check_size, pixels_of, resolution, settled, upright

if TYPE_CHECKING:
    from PIL import Image

__all__ = ['decode_raw', 'decode_tiff']

REDUCED = 1  # bit of NewSubfileType, TIFF 6.0: a reduced copy of another page
BY_TIFFFILE = (1, 8, 32773, 32946)  # compressions: none, Deflate, PackBits, Deflate
BY_OPENCV = (*BY_TIFFFILE, 5)  # LZW
ORIENTATION, ICC_PROFILE, EXTRA_SAMPLES, ASSOCIATED_ALPHA = 274, 34675, 338, 1
logging.getLogger('tifffile').addHandler(logging.NullHandler())  # else its remarks go to standard error


def decode_tiff(data: bytes, name: str | os.PathLike, max_pixels: int) -> Photo:
    """The one page of a TIFF that is no reduced copy of another. Samples of 8 and 16 bits are kept, those in between
    become 16 bits.

    Raises:
        ImageError: If there are several pages, or its samples are of a kind that is not read.
    """
    from PIL import Image, UnidentifiedImageError
    with pillow():
        try:
            image = Image.open(io.BytesIO(data), formats=('TIFF', ))
        except UnidentifiedImageError:  # kinds of pixels that Pillow does not know
            pixels, exif = _deep(data, 0, name, max_pixels), Image.Exif()
            exif.load(data)
            return settled(Photo(pixels, 'TIFF', exif_of_tiff(exif), exif.get(ICC_PROFILE) or b''), name)
        page = _main_page(image, name)
        check_size(image.size, name, max_pixels)
        exif_bytes = exif_of_tiff(image.getexif())
        bits = max(image.tag_v2.get(258, (1, )))
        deep = 8 < bits <= 16 and image.tag_v2.get(262) in (0, 1, 2) and not (bits == 16 and image.mode[0] == 'I')
        image.load()  # shows that the file is sound; applies the orientation
    icc = image.info.get('icc_profile') or b''
    pixels = _deep(data, page, name, max_pixels) if deep else pixels_of(image, icc, name)
    check_size(pixels.shape[1::-1], name, max_pixels)
    return settled(Photo(np.ascontiguousarray(pixels), 'TIFF', exif_bytes, icc, resolution(image)), name)


def _main_page(image: Image.Image, name: str | os.PathLike) -> int:
    """Go to the page that is no reduced copy; its index."""
    pages = []
    for i in range(getattr(image, 'n_frames', 1)):
        image.seek(i)
        if not (image.tag_v2.get(254, 0) & REDUCED or image.tag_v2.get(255) == 2):
            pages.append(i)
    if len(pages) > 1:
        raise ImageError(name, f'is multi-page, {len(pages)} pages: only single pictures are enhanced')
    page = pages[0] if pages else 0
    image.seek(page)
    return page


def _deep(data: bytes, index: int, name: str | os.PathLike, max_pixels: int) -> np.ndarray:
    """Upright pixels, uint16, of a page with samples of 10 to 16 bits.

    Raises:
        ImageError: If its samples are of another kind.
    """
    import tifffile
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[index]
        check_size((page.imagewidth, page.imagelength), name, max_pixels)
        photometric, compression = (getattr(tag, 'name', tag) for tag in (page.photometric, page.compression))
        samples, bits, dtype, extra = page.samplesperpixel, page.bitspersample, page.dtype, page.extrasamples[:1]
        if dtype is not None and dtype.kind == 'f':
            raise ImageError(name, FLOATING_POINT)
        gray = photometric in ('MINISBLACK', 'MINISWHITE') and samples <= 2
        if dtype != np.uint16 or not (gray or photometric == 'RGB' and samples in (3, 4)):
            raise ImageError(name, f'has pixels of {samples} x {dtype} ({photometric}), which are not supported: save '
                             'it as RGB of 8 or 16 bits')
        if page.planarconfig == 1 and samples != 2 and page.compression in BY_OPENCV:
            pixels, orientation = _with_opencv(data, index, bits), 1
        elif bits == 16 and page.compression in BY_TIFFFILE:
            pixels, orientation = page.asarray(), page.tags.valueof(ORIENTATION, 1)
            if page.planarconfig == 2 and pixels.ndim == 3:
                pixels = np.moveaxis(pixels, 0, -1)
        else:
            raise ImageError(name, f'has pixels of {samples} x {bits} bits{" in planes" * (page.planarconfig == 2)}, '
                             f'compressed by {compression}, which is not supported: save it without compression')
    pixels = pixels.reshape(*pixels.shape[:2], samples)
    if photometric == 'MINISWHITE':
        pixels[..., 0] = 65535 - pixels[..., 0]
    if extra == (ASSOCIATED_ALPHA, ):
        pixels = _divide_by_alpha(pixels)
    elif extra == (0, ):  # no alpha
        pixels = pixels[..., :-1]
    return upright(pixels[..., 0] if pixels.shape[2] == 1 else pixels, orientation)


def _with_opencv(data: bytes, index: int, bits: int) -> np.ndarray:
    """Samples in a row, as uint16; the orientation is applied."""
    import cv2
    _, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(index, index + 1))
    if not pages or pages[0].dtype != np.uint16:
        raise ValueError('16-bit pixels of this kind are not supported')
    pixels = pages[0].reshape(*pages[0].shape[:2], -1)
    if bits < 16:  # OpenCV shifts them to the upper end
        pixels = ((pixels >> (16 - bits)) * np.uint32(65535) // (2**bits - 1)).astype(np.uint16)
    return pixels[..., [2, 1, 0, 3][:pixels.shape[2]] if pixels.shape[2] > 1 else [0]]


def _divide_by_alpha(pixels: np.ndarray) -> np.ndarray:
    """(h, w, c) uint16 with premultiplied alpha -> the same without."""
    alpha = pixels[..., -1:].astype(np.uint32)
    colour = (pixels[..., :-1] * np.uint32(65535) + alpha // 2) // np.maximum(alpha, 1)
    return np.concatenate([colour.clip(0, 65535).astype(np.uint16), pixels[..., -1:]], axis=-1)


def decode_raw(data: bytes, name: str | os.PathLike, max_pixels: int) -> Photo:
    """Camera RAW as 16-bit sRGB.

    Raises:
        ImageError: If rawpy is not installed, or the sensor has other colours than gray or RGB.
    """
    try:
        import rawpy
    except ImportError as error:
        raise ImageError(name, 'camera RAW needs an extra: pip install "lowlight_cyclegan[raw]"') from error
    from PIL import Image
    with rawpy.imread(io.BytesIO(data)) as raw:
        check_size((raw.sizes.width, raw.sizes.height), name, max_pixels)
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
