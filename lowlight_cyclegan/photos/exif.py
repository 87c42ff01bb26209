"""EXIF data: taken from any file as it is, less what belongs to the old pixels."""
from __future__ import annotations

import contextlib
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

__all__ = ['LAYOUT_TAGS', 'exif_of', 'exif_of_tiff', 'pillow', 'tiff_directory']

# TIFF tags that lay out pixels or belong to a page: those of the input are not those of the output
LAYOUT_TAGS = {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 285, 288, 289,
               290, 291, 292, 293, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 337,
               338, 339, 340, 341, 342, 343, 344, 345, 346, 347, *range(512, 522), 529, 530, 531, 532, 559, 700,
               33421, 33422, 33723, 34377, 34675}
ORIENTATION, EXIF_IFD, GPS_IFD, INTEROPERABILITY = 0x112, 0x8769, 0x8825, 0xA005
FIRST_DNG_TAG = 50706

# Pillow's filter of warnings and its limit of pixels belong to the whole process: guarded by this lock
PILLOW = threading.Lock()
logging.getLogger('PIL').addHandler(logging.NullHandler())  # else its remarks on broken files go to standard error


@contextlib.contextmanager
def pillow() -> Iterator[None]:
    """Pillow without its warnings and without its own limit of pixels, ours being checked. One thread at a time."""
    from PIL import Image
    with PILLOW, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def exif_of(image: Image.Image) -> tuple[bytes, int]:
    """(EXIF data for a :class:`~.formats.Photo`, orientation of the pixels in the file) of an opened picture."""
    try:
        tags = image.getexif()
        orientation = tags.get(ORIENTATION, 1)  # XMP's, if EXIF has none
        data = image.info.get('exif') or (tags.tobytes() if len(tags) else b'')
        return _reset(data), orientation
    except Exception:  # the pixels are sound
        return b'', 1


def _reset(data: bytes) -> bytes:
    """Set the orientation to 1 and unlink the thumbnail, which shows the dark picture. All else stays as it is, byte
    for byte: maker notes refer to positions."""
    changed = bytearray(data.removeprefix(b'Exif\0\0'))
    if not changed:
        return b''
    order = {b'II': '<', b'MM': '>'}[bytes(changed[:2])]
    first, = struct.unpack_from(f'{order}I', changed, 4)
    count, = struct.unpack_from(f'{order}H', changed, first)
    for entry in range(first + 2, first + 2 + 12 * count, 12):
        if struct.unpack_from(f'{order}H', changed, entry)[0] == ORIENTATION:
            struct.pack_into(f'{order}HIHH', changed, entry + 2, 3, 1, 1, 0)
    struct.pack_into(f'{order}I', changed, first + 2 + 12 * count, 0)
    return bytes(changed)


def exif_of_tiff(tags: Image.Exif) -> bytes:
    """EXIF data from the tags of a TIFF structure: less those about the layout of pixels."""
    from PIL import Image
    try:
        result = Image.Exif()
        for tag, value in tags.items():
            if tag in (EXIF_IFD, GPS_IFD):
                result[tag] = _directory(tags, tag)
            elif tag == ORIENTATION:
                result[tag] = 1
            elif tag not in LAYOUT_TAGS and tag < FIRST_DNG_TAG:
                result[tag] = value
        return result.tobytes().removeprefix(b'Exif\0\0') if len(result) else b''
    except Exception:  # the pixels are sound
        return b''


def tiff_directory(exif: bytes) -> ImageFileDirectory_v2:
    """A TIFF directory with the tags of EXIF data, to which those of the pixels are added; empty if it is broken."""
    from PIL import Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2
    if exif:
        with pillow(), contextlib.suppress(Exception):  # the pixels are sound
            tags = Image.Exif()
            tags.load(exif)
            directory = ImageFileDirectory_v2()
            for tag, value in tags.items():
                if tag in (EXIF_IFD, GPS_IFD):
                    directory[tag] = _directory(tags, tag)
                elif tag not in LAYOUT_TAGS:
                    directory[tag] = value
            directory.tobytes()
            return directory
    return ImageFileDirectory_v2()


def _directory(tags: Image.Exif, tag: int) -> dict:
    return {key: value for key, value in tags.get_ifd(tag).items() if key != INTEROPERABILITY}
