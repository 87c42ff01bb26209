"""Photos from files and back: pixels of 8 or 16 bits with their EXIF data and colour profile; atomic writes.

A broken, foreign or oversized file is an :class:`ImageError` of one line, and nothing else is raised for it.
"""
import contextlib
import io
import logging
import numpy as np
import os
import secrets
import stat
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

__all__ = [
    'FORMATS', 'MAX_PIXELS', 'SUFFIXES', 'ImageError', 'Photo', 'decode_image', 'default_suffix', 'encode_image',
    'read_bytes', 'read_image', 'shown', 'temporary_prefix', 'write_bytes', 'write_image'
]

MAX_PIXELS = 200_000_000  # the largest cameras of phones have 16320x12240
QUALITY = 95

FORMATS = {'jpg': 'JPEG', 'png': 'PNG', 'webp': 'WEBP', 'bmp': 'BMP', 'tiff': 'TIFF'}  # that are written
WRITTEN = {
    **{f'.{name}': known for name, known in FORMATS.items()}, '.jpeg': 'JPEG', '.jpe': 'JPEG', '.jfif': 'JPEG', '.tif':
    'TIFF'
}
HEIF = ('.heic', '.heif', '.hif')
RAW = ('.3fr', '.arw', '.cr2', '.cr3', '.crw', '.dng', '.erf', '.iiq', '.kdc', '.mef', '.mos', '.mrw', '.nef', '.nrw',
       '.orf', '.pef', '.raf', '.raw', '.rw2', '.rwl', '.sr2', '.srf', '.srw', '.x3f')
SUFFIXES = {*WRITTEN, '.gif', *HEIF, *RAW}  # taken for photos in a folder
READ_BY_PILLOW = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')
HEIF_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')

# TIFF tags that lay out pixels or belong to a page: those of the input are not those of the output
LAYOUT_TAGS = {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 285, 288, 289,
               290, 291, 292, 293, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 337,
               338, 339, 340, 341, 342, 343, 344, 345, 346, 347, *range(512, 522), 529, 530, 531, 532, 559, 700,
               33421, 33422, 33723, 34377, 34675}
ORIENTATION, EXIF_IFD, GPS_IFD, INTEROPERABILITY, MAKER_NOTE = 0x112, 0x8769, 0x8825, 0xA005, 0x927C
SIXTEEN_BIT_COMPRESSIONS = (1, 5, 8, 32773, 32946)  # that OpenCV decodes
FIRST_DNG_TAG = 50706
MAX_JPEG_EXIF = 65527  # a JPEG segment less its length and 'Exif\0\0'

# Pillow's warnings filter and pixel limit belong to the process: what touches them goes one thread at a time
_PILLOW = threading.Lock()
logging.getLogger('PIL').addHandler(logging.NullHandler())  # else its remarks on broken files go to standard error


class ImageError(ValueError):
    """A photo cannot be read or written: one line, its name and then the reason, which is also the attribute."""

    def __init__(self, name, reason):
        self.name, self.reason = name, ' '.join(str(reason).split())
        super().__init__(f'{shown(name)}: {self.reason}')


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        pixels (ndarray): uint8 or uint16, upright, (h, w) gray, (h, w, 2) gray with alpha, (h, w, 3) RGB or (h, w, 4)
            RGB with alpha, which is not premultiplied.
        format (str): Of the file: a value of ``FORMATS``, 'GIF', 'HEIF' or 'RAW'.
        exif (bytes): EXIF data as a TIFF structure, orientation 1, without thumbnail. May be empty.
        icc (bytes): ICC profile of the pixels. Empty means sRGB.
        dpi (tuple[float, float] | None): Resolution.
    """
    pixels: np.ndarray
    format: str = 'PNG'
    exif: bytes = b''
    icc: bytes = b''
    dpi: tuple | None = None

    def with_pixels(self, pixels):
        """The same photo, with other pixels."""
        return replace(self, pixels=pixels)

    @property
    def size(self):
        """(width, height)."""
        return self.pixels.shape[1], self.pixels.shape[0]


def shown(path):
    """A path as text for a terminal or a report: one line, no control characters, whatever bytes it holds."""
    text = os.fsencode(path).decode('utf-8', 'backslashreplace')
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def read_image(path, max_pixels=MAX_PIXELS):
    """Read a photo: JPEG, PNG, WebP, BMP, TIFF, a GIF of one frame; HEIC and camera RAW with their extras.

    EXIF orientation is applied. 16-bit PNG and TIFF stay 16-bit, RAW becomes 16-bit sRGB. CMYK becomes sRGB, palettes
    become RGB, or RGBA if they are transparent.

    Args:
        path (str | Path): File.
        max_pixels (int): A larger photo is refused before it is decoded.

    Returns:
        Photo: See there.

    Raises:
        ImageError: If the file cannot be read, holds no photo or a broken, animated or too large one.
    """
    return decode_image(read_bytes(path, max_pixels), path, max_pixels)


def read_bytes(path, max_pixels=MAX_PIXELS):
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


def _open_without_waiting(path, flags):
    # a pipe without a writer would block
    return os.open(path, flags | getattr(os, 'O_NONBLOCK', 0))


def decode_image(data, name, max_pixels=MAX_PIXELS):
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
def _pillow():
    """Pillow without its warnings and without its own limit of pixels, ours being checked."""
    from PIL import Image
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def _silent_stderr():
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


def _decode_with_pillow(data, name, max_pixels):
    from PIL import Image, UnidentifiedImageError
    formats = READ_BY_PILLOW
    if data[4:8] == b'ftyp' and data[8:12] in HEIF_BRANDS:
        _register_heif(name)
        formats = ('HEIF', )
    with _pillow():
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
            exif, orientation = _exif_of_tiff(image.getexif()), 1  # orientation is applied by load()
            with _silent_stderr():
                image.load()
    if image.format != 'TIFF':
        image.load()
        with _pillow():
            exif, orientation = _exif(image)
    kind = {'MPO': 'JPEG'}.get(image.format, image.format)
    icc = image.info.get('icc_profile') or b''
    # Pillow has decoded the whole file as 8 bits: it is known to be sound
    pixels = _decode_16_bit(data, image) if sixteen else _pixels(image, icc, name)
    _check_size(pixels.shape[1::-1], name, max_pixels)
    return Photo(_upright(pixels, orientation), kind, exif, _fitting_profile(icc, pixels), _resolution(image))


def _check_size(size, name, max_pixels):
    width, height = size
    if not width or not height:
        raise ImageError(name, 'has no pixels')
    if width * height > max_pixels:
        raise ImageError(name, f'{width}x{height} is {width * height / 1e6:.1f} megapixels, more than the limit of '
                         f'{max_pixels / 1e6:g} (--max-megapixels raises it)')


def _count(image):
    try:
        return image.n_frames
    except Exception:  # a broken later frame
        return 'several'


def _register_heif(name):
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(name, 'HEIC needs an extra: pip install "lowlight_cyclegan[heif]"') from error
    with _PILLOW:
        pillow_heif.register_heif_opener()


def _has_16_bit_colour(image, name):
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


def _decode_16_bit(data, image):
    import cv2
    if image.format == 'PNG':
        data = _critical_chunks(data)  # libpng remarks on others upon stderr
    with _PILLOW, _silent_stderr():
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


def _critical_chunks(data):
    """A PNG less all chunks that do not decide about its pixels."""
    parts, start = [data[:8]], 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start:start + 4], 'big')
        if data[start + 4:start + 8] in (b'IHDR', b'tRNS', b'IDAT', b'IEND'):
            parts.append(data[start:end])
        start = end
    return b''.join(parts)


def _pixels(image, icc, name):
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


def _cmyk_to_rgb(image, icc):
    from PIL import ImageCms
    try:
        return ImageCms.profileToProfile(image, io.BytesIO(icc), ImageCms.createProfile('sRGB'), outputMode='RGB')
    except (OSError, ImageCms.PyCMSError):  # no profile, or a broken one
        return image.convert('RGB')


def _upright(pixels, orientation):
    """Apply an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _fitting_profile(icc, pixels):
    """A profile of CMYK, say, does not describe the RGB pixels that were made from it."""
    space = b'GRAY' if pixels.ndim == 2 or pixels.shape[2] == 2 else b'RGB '
    return icc if len(icc) > 128 and icc[16:20] == space else b''


def _resolution(image):
    try:
        dpi = tuple(float(value) for value in image.info['dpi'])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return dpi if len(dpi) == 2 and all(1 < value <= 65535 for value in dpi) else None


def _exif(image):
    """(EXIF data for a :class:`Photo`, orientation of the pixels in the file)."""
    try:
        tags = image.getexif()
        orientation = tags.get(ORIENTATION, 1)  # XMP's, if EXIF has none
        data = image.info.get('exif') or (tags.tobytes() if len(tags) else b'')
        return _reset_exif(data), orientation
    except Exception:  # the pixels are sound
        return b'', 1


def _reset_exif(data):
    """Set the orientation to 1 and unlink the thumbnail, which shows the dark picture. All else stays as it is, byte
    for byte: maker notes refer to positions."""
    data = bytearray(data.removeprefix(b'Exif\0\0'))
    if not data:
        return b''
    order = {b'II': '<', b'MM': '>'}[bytes(data[:2])]
    first, = struct.unpack_from(f'{order}I', data, 4)
    count, = struct.unpack_from(f'{order}H', data, first)
    for entry in range(first + 2, first + 2 + 12 * count, 12):
        if struct.unpack_from(f'{order}H', data, entry)[0] == ORIENTATION:
            struct.pack_into(f'{order}HIHH', data, entry + 2, 3, 1, 1, 0)
    struct.pack_into(f'{order}I', data, first + 2 + 12 * count, 0)
    return bytes(data)


def _exif_of_tiff(tags):
    """EXIF data from the tags of a TIFF structure: less those about the layout of pixels."""
    from PIL import Image
    try:
        result = Image.Exif()
        for tag, value in tags.items():
            if tag in (EXIF_IFD, GPS_IFD):
                result[tag] = {key: value for key, value in tags.get_ifd(tag).items() if key != INTEROPERABILITY}
            elif tag == ORIENTATION:
                result[tag] = 1
            elif tag not in LAYOUT_TAGS and tag < FIRST_DNG_TAG:
                result[tag] = value
        return result.tobytes().removeprefix(b'Exif\0\0') if len(result) else b''
    except Exception:  # the pixels are sound
        return b''


def _decode_raw(data, name, max_pixels):
    try:
        import rawpy
    except ImportError as error:
        raise ImageError(name, 'camera RAW needs an extra: pip install "lowlight_cyclegan[raw]"') from error
    from PIL import Image
    with _PILLOW, _silent_stderr(), rawpy.imread(io.BytesIO(data)) as raw:
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
        with _pillow(), contextlib.suppress(Exception):
            tags.load(data)
            exif = _exif_of_tiff(tags)
    return Photo(pixels, 'RAW', exif)


def default_suffix(path):
    """Suffix of the file that a photo becomes: its own if that is written, JPEG for HEIC and RAW, else PNG."""
    suffix = Path(path).suffix
    if suffix.lower() in WRITTEN:
        return suffix
    return '.jpg' if suffix.lower() in HEIF + RAW else '.png'


def write_image(path, photo, quality=None, format=None):
    """Write a photo; the file is there completely or, as before, not at all.

    Args:
        path (str | Path): File.
        photo (Photo): See there.
        quality (int | None): See :func:`encode_image`.
        format (str | None): A key of ``FORMATS``. Default: by the suffix of path.

    Raises:
        ImageError: If the format is not known or cannot hold the photo, or the file cannot be written.
    """
    write_bytes(path, encode_image(photo, path, quality, format))


def encode_image(photo, name, quality=None, format=None):
    """Encode a photo.

    16 bits are kept in PNG and TIFF and rounded to 8 elsewhere. EXIF data and the colour profile are kept in all
    formats but BMP; EXIF data too large for a JPEG is left out.

    Args:
        photo (Photo): See there.
        name (str | Path): File, for messages and its suffix.
        quality (int | None): 1 to 100, of JPEG and WebP; 100 is lossless in WebP. Default: 95.
        format (str | None): A key of ``FORMATS``. Default: by the suffix.

    Returns:
        bytes: Content of a file.

    Raises:
        ImageError: If the format is not known, or cannot hold transparency or a picture of that size.
    """
    kind = FORMATS.get(format) if format else WRITTEN.get(Path(os.fsdecode(name)).suffix.lower())
    if kind is None:
        raise ImageError(name, f'is no name or format to write ({", ".join(FORMATS)})')
    pixels = photo.pixels
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4) and kind in ('JPEG', 'BMP'):
        if pixels[..., -1].min() < np.iinfo(pixels.dtype).max:
            raise ImageError(name, f'{kind} holds no transparency, which the photo has: write PNG, WebP or TIFF')
        pixels = pixels[..., :-1].squeeze(-1) if pixels.shape[2] == 2 else pixels[..., :3]
    if kind not in ('PNG', 'TIFF') and pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.ndim == 2 and kind == 'WEBP':
        pixels = np.dstack([pixels] * 3)
    elif pixels.ndim == 3 and pixels.shape[2] == 2 and (kind == 'WEBP' or kind == 'TIFF' and pixels.itemsize == 2):
        pixels = pixels[..., [0, 0, 0, 1]]  # Pillow, for one, cannot read such a TIFF
    photo = replace(photo, icc=_fitting_profile(photo.icc, pixels))
    try:
        if kind == 'TIFF':
            return _encode_tiff(pixels, photo)
        if pixels.dtype == np.uint16:
            return _encode_16_bit_png(pixels, photo)
        return _encode_with_pillow(pixels, photo, kind, quality or QUALITY)
    except MemoryError as error:
        raise ImageError(name, 'does not fit into memory') from error
    except (OSError, ValueError, OverflowError, struct.error) as error:
        raise ImageError(name, f'cannot be written as {kind} ({error})') from error


def _encode_with_pillow(pixels, photo, kind, quality):
    from PIL import Image
    options = {
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
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def _encode_16_bit_png(pixels, photo):
    """PNG (ISO/IEC 15948) of 16 bits, which Pillow writes for gray alone; rows are filtered by differences upwards."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    rows = pixels.astype('>u2').view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack('>IIBBBBB', width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b'IHDR', header)]
    if photo.icc:
        chunks.append((b'iCCP', b'ICC Profile\0\0' + zlib.compress(photo.icc)))
    if photo.dpi:
        chunks.append((b'pHYs', struct.pack('>IIB', *(round(dpi / 0.0254) for dpi in photo.dpi), 1)))
    if photo.exif:
        chunks.append((b'eXIf', photo.exif))
    data = zlib.compress(filtered, 6)
    chunks += [(b'IDAT', data[i:i + 2**30]) for i in range(0, len(data), 2**30)]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(content, zlib.crc32(name)))
        for name, content in [*chunks, (b'IEND', b'')])


def _encode_tiff(pixels, photo):
    """TIFF 6.0: one strip, deflated after horizontal differencing. Pillow writes no 16-bit colour, but directories."""
    from PIL import Image
    from PIL.TiffImagePlugin import ImageFileDirectory_v2
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    samples = pixels.astype(pixels.dtype.newbyteorder('<')).reshape(height, width, channels)
    samples[:, 1:] -= pixels.reshape(samples.shape)[:, :-1]
    data = zlib.compress(np.ascontiguousarray(samples), 6)
    tags = {
        256: width, 257: height, 258: (pixels.itemsize * 8, ) * channels, 259: 8, 262: 1 if channels < 3 else 2, 273: 0,
        277: channels, 278: height, 279: len(data), 284: 1, 317: 2
    }
    if channels in (2, 4):
        tags[338] = 2  # alpha, not premultiplied
    if photo.dpi:
        tags.update({282: photo.dpi[0], 283: photo.dpi[1], 296: 2})
    directory = ImageFileDirectory_v2()
    if photo.exif:
        with _pillow(), contextlib.suppress(Exception):  # broken EXIF data; the pixels are sound
            exif = Image.Exif()
            exif.load(photo.exif)
            with_exif = ImageFileDirectory_v2()
            for tag, value in exif.items():
                if tag in (EXIF_IFD, GPS_IFD):
                    with_exif[tag] = {k: v for k, v in exif.get_ifd(tag).items() if k != INTEROPERABILITY}
                elif tag not in LAYOUT_TAGS:
                    with_exif[tag] = value
            with_exif.tobytes()
            directory = with_exif
    for tag, value in tags.items():
        directory[tag] = value
    if photo.icc:
        directory.tagtype[34675] = 7
        directory[34675] = photo.icc
    file = io.BytesIO()
    directory.save(file)
    file.write(data)
    return file.getvalue()


def temporary_prefix(path):
    """Beginning of the names under which :func:`write_bytes` writes a file before it is complete."""
    return f'.{sha256(os.fsencode(Path(path).name)).hexdigest()[:16]}.'


def write_bytes(path, data):
    """Write a file that is there completely or, as before, not at all.

    Raises:
        ImageError: If it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f'{temporary_prefix(path)}{secrets.token_hex(4)}.part')
    try:
        try:
            with open(temporary, 'xb') as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ImageError(path, f'cannot be written ({error.strerror or error})') from error
