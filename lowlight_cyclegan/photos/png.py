"""PNG (ISO/IEC 15948): the chunks that say how pixels are shown, and files of 16 bits."""
from __future__ import annotations

import numpy as np
import struct
import zlib
from collections.abc import Iterable, Iterator

from .color import PRIMARIES, profile, profile_of_codes
from .formats import Photo

__all__ = ['colour_chunks', 'critical_chunks', 'encode_16_bit', 'kept_chunks', 'profile_of_chunks']

COLOUR = (b'cHRM', b'cICP', b'gAMA', b'sRGB')
SRGB_GAMMA = 45455  # of gAMA, beside which nothing but sRGB is meant


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of each, the frame of 12 bytes included."""
    start = 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start:start + 4], 'big')
        yield data[start + 4:start + 8], start, end
        start = end


def critical_chunks(data: bytes) -> bytes:
    """A PNG less all chunks that do not decide about its pixels: libpng remarks on others upon standard error."""
    return data[:8] + b''.join(
        data[start:end] for name, start, end in _chunks(data) if name in (b'IHDR', b'tRNS', b'IDAT', b'IEND'))


def colour_chunks(data: bytes) -> dict[bytes, bytes]:
    """Content of the chunks gAMA, cHRM, cICP and sRGB."""
    found = {}
    for name, start, end in _chunks(data):
        if name == b'IDAT':
            break
        if name in COLOUR:
            found[name] = data[start + 8:end - 4]
    return found


def profile_of_chunks(chunks: dict[bytes, bytes], icc: bytes, gray: bool) -> bytes:
    """ICC profile of what a PNG says, in the order of precedence of its third edition: cICP, iCCP, sRGB, gAMA and cHRM;
    empty for sRGB."""
    if len(chunks.get(b'cICP', b'')) == 4:
        return profile_of_codes(chunks[b'cICP'][0], chunks[b'cICP'][1], gray)
    if icc or b'sRGB' in chunks:
        return icc
    xy, gamma = PRIMARIES[1], None
    try:
        if b'gAMA' in chunks:
            number, = struct.unpack('>I', chunks[b'gAMA'])
            gamma = None if abs(number - SRGB_GAMMA) < 100 else 100_000 / number
        if b'cHRM' in chunks:
            numbers = struct.unpack('>8I', chunks[b'cHRM'])
            xy = tuple(value / 100_000 for value in numbers[2:] + numbers[:2])
        return profile(xy, gamma, gray)
    except (struct.error, ArithmeticError, ValueError):  # broken chunks; the pixels are sound
        return b''


def encode_16_bit(photo: Photo) -> bytes:
    """A PNG of 16 bits, which Pillow writes for gray alone; rows are filtered by differences upwards."""
    height, width = photo.pixels.shape[:2]
    channels = 1 if photo.pixels.ndim == 2 else photo.pixels.shape[2]
    rows = photo.pixels.astype('>u2').view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack('>IIBBBBB', width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b'IHDR', header), *kept_chunks(photo)]
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


def kept_chunks(photo: Photo) -> Iterable[tuple[bytes, bytes]]:
    """Those of the photo's colour chunks that go with its profile."""
    return [chunk for chunk in photo.chunks if chunk[0] != b'sRGB' or not photo.icc]
