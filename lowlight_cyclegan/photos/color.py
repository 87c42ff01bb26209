"""Colours: the network sees sRGB, and the file keeps its own encoding.

An ICC profile of curves and a matrix (ICC.1:2022, 8.3.3) is followed with 16 bits. What numbers say of a PNG (gAMA,
cHRM, cICP) or of a HEIF (nclx; ITU-T H.273) is written as such a profile, so that every format can keep it.
"""
from __future__ import annotations

import functools
import numpy as np
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .formats import Photo

__all__ = ['HDR', 'PRIMARIES', 'Encoding', 'encoding_of', 'for_network', 'from_network', 'profile', 'profile_of_codes',
           'transfer_of']

HDR = {16: 'PQ', 18: 'HLG'}  # transfer characteristics, ITU-T H.273
LEVELS = 65536
ROWS = 512  # that are converted at a time
LUMA = np.float32([0.2126, 0.7152, 0.0722])  # ITU-R BT.709

# CIE xy of red, green, blue and white, by colour primaries of ITU-T H.273
PRIMARIES = {
    1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290),
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, 0.3127, 0.3290),
    6: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, 0.3127, 0.3290),
    7: (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, 0.3127, 0.3290),
    9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, 0.3127, 0.3290),
    11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.314, 0.351),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.3290),
}
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}  # other transfer characteristics of SDR are shown as sRGB is
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # parametric curve of type 3, IEC 61966-2-1


@dataclass(frozen=True, eq=False)
class Encoding:
    """How values of pixels become light.

    Attributes:
        curves: (1, 65536) or (3, 65536) float32, linear light in [0, 1] at equally spaced values.
        matrix: (3, 3) from linear light to linear sRGB; None for gray.
    """
    curves: np.ndarray
    matrix: np.ndarray | None

    @functools.cached_property
    def inverse(self) -> np.ndarray:
        """(1, 65537) or (3, 65537) float32: values at the squares of equally spaced numbers, so that shadows are
        finely divided."""
        light, values = np.linspace(0, 1, LEVELS + 1)**2, np.linspace(0, 1, LEVELS)
        return np.stack([np.interp(light, np.maximum.accumulate(curve), values) for curve in self.curves]).astype('f4')

    def decode(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 or uint16 (h, w) or (h, w, 3) -> linear light, of sRGB's primaries, float32; beyond [0, 1] where sRGB
        does not reach."""
        light = _look_up(self.curves[:, ::257] if pixels.dtype == np.uint8 else self.curves, pixels)
        return _transform(light, self.matrix)

    def encode(self, light: np.ndarray, dtype: type | np.dtype) -> np.ndarray:
        """The inverse of :meth:`decode`; what cannot be encoded is clipped."""
        light = _transform(light, None if self.matrix is None else np.linalg.inv(self.matrix))
        index = (np.sqrt(light.clip(0, 1)) * LEVELS + 0.5).astype(np.intp)
        return _look_up((self.inverse * np.iinfo(dtype).max + 0.5).astype(dtype), index)


def _transform(light: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    if matrix is None:
        return light
    import cv2
    return cv2.transform(light, matrix)


def _look_up(tables: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(1 or 3, n) at (h, w) or (h, w, 3)."""
    if len(tables) == 1:
        if index.dtype == np.uint8:
            import cv2
            return cv2.LUT(np.ascontiguousarray(index), tables[0])
        return tables[0].take(index, mode='clip')  # which spares a check, not that it were needed
    return np.stack([_look_up(table[None], index[..., i]) for i, table in enumerate(tables)], axis=-1)


def _parametric(kind: int, values: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    """parametricCurveType of ICC.1:2022, table 68: (a x + b)^g + e from x = d on, c x + f below."""
    a, b, c, d, e, f = 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    match kind:
        case 0:
            g, = values
        case 1:
            g, a, b = values
            d = -b / a
        case 2:
            g, a, b, e = values
            d, f = -b / a, e
        case 3:
            g, a, b, c, d = values
        case _:
            g, a, b, c, d, e, f = values
    with np.errstate(all='ignore'):
        return np.where(x >= d, np.maximum(a * x + b, 0)**g + e, c * x + f)


SRGB = Encoding(_parametric(3, SRGB_CURVE, np.linspace(0, 1, LEVELS)).astype('f4')[None], np.eye(3))
SRGB_GRAY = Encoding(SRGB.curves, None)


def for_network(photo: Photo) -> np.ndarray:
    """The photo's colours in sRGB without alpha: its own pixels if they are that, else uint16."""
    encoding, pixels = encoding_of(photo.icc), _colours(photo.pixels)
    if encoding is None:
        return photo.pixels
    result = np.empty(pixels.shape, np.uint16)
    for rows in _strips(pixels):
        result[rows] = _srgb_like(encoding).encode(encoding.decode(pixels[rows]), result.dtype)
    return result


def from_network(photo: Photo, enhanced: np.ndarray) -> np.ndarray:
    """What the network made of :func:`for_network` in the photo's encoding, depth and with its alpha.

    Colours that sRGB cannot hold are brightened as the nearest that it holds.
    """
    encoding = encoding_of(photo.icc)
    if encoding is None:
        return enhanced
    result = photo.pixels.copy()
    pixels, target, srgb = _colours(photo.pixels), _colours(result), _srgb_like(encoding)
    for rows in _strips(pixels):
        before, after = encoding.decode(pixels[rows]), srgb.decode(enhanced[rows])
        if encoding.matrix is not None:
            held = before.clip(0, 1)
            gain = (after @ LUMA + 1e-4) / (held @ LUMA + 1e-4)
            after += (before - held) * gain[..., None]
        target[rows] = encoding.encode(after, result.dtype)
    return result


def _colours(pixels: np.ndarray) -> np.ndarray:
    """Without alpha: (h, w) or (h, w, 3), a view."""
    if pixels.ndim == 2:
        return pixels
    return pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]


def _strips(pixels: np.ndarray) -> Iterator[slice]:
    return (slice(i, i + ROWS) for i in range(0, len(pixels), ROWS))


def _srgb_like(encoding: Encoding) -> Encoding:
    return SRGB if encoding.matrix is not None else SRGB_GRAY


@functools.lru_cache(maxsize=8)
def encoding_of(icc: bytes) -> Encoding | None:
    """What an ICC profile says; None for sRGB, also where there is no profile.

    Raises:
        ValueError: If it is no profile of curves and a matrix.
    """
    if not icc:
        return None
    try:
        tags = dict(_tags(icc))
        if icc[16:20] == b'GRAY':
            curves, matrix = _curve(tags[b'kTRC'])[None], None
        else:
            curves = np.stack([_curve(tags[name]) for name in (b'rTRC', b'gTRC', b'bTRC')])
            columns = np.stack([_xyz(tags[name]) for name in (b'rXYZ', b'gXYZ', b'bXYZ')], axis=1)
            matrix = np.linalg.inv(_to_d50(PRIMARIES[1])) @ columns
            np.linalg.inv(matrix)
    except (KeyError, IndexError, ArithmeticError, struct.error, np.linalg.LinAlgError) as error:
        raise ValueError('it has no curves and matrix') from error
    shown = SRGB_GRAY.encode(curves, np.uint16) / (LEVELS - 1.0)
    same = np.abs(shown - np.linspace(0, 1, LEVELS)).max() < 0.006  # less than two levels of 8 bits
    if same and (matrix is None or np.abs(matrix - np.eye(3)).max() < 0.006):
        return None
    return Encoding(curves if np.ptp(curves, axis=0).any() else curves[:1], matrix)


def transfer_of(icc: bytes) -> int:
    """Transfer characteristics of ITU-T H.273 that an ICC profile names (ICC.1:2022, 9.2.17), or its description where
    it is older than that; 2: none."""
    try:
        tags = dict(_tags(icc))
        if b'cicp' in tags:
            return tags[b'cicp'][9]
        words = tags.get(b'desc', b'').replace(b'\0', b'').upper()
        return next((code for code, name in HDR.items() if re.search(rb'\b%s\b' % name.encode(), words)), 2)
    except (IndexError, struct.error):
        return 2


def _tags(icc: bytes) -> Iterator[tuple[bytes, bytes]]:
    count, = struct.unpack_from('>I', icc, 128)
    for i in range(min(count, 100)):
        name, offset, size = struct.unpack_from('>4sII', icc, 132 + 12 * i)
        yield name, icc[offset:offset + size]


def _xyz(tag: bytes) -> np.ndarray:
    return np.array(struct.unpack_from('>3i', tag, 8)) / 65536


def _curve(tag: bytes) -> np.ndarray:
    """(65536,) float32 of a tag curveType or parametricCurveType."""
    x = np.linspace(0, 1, LEVELS)
    if tag[:4] == b'para':
        kind, = struct.unpack_from('>H', tag, 8)
        count = (1, 3, 4, 5, 7)[kind]
        y = _parametric(kind, tuple(value / 65536 for value in struct.unpack_from(f'>{count}i', tag, 12)), x)
    elif tag[:4] == b'curv':
        count, = struct.unpack_from('>I', tag, 8)
        if count < 2:
            y = x**(struct.unpack_from('>H', tag, 12)[0] / 256 if count else 1)
        else:
            y = np.interp(x, np.linspace(0, 1, count), np.array(struct.unpack_from(f'>{count}H', tag, 12)) / 65535)
    else:
        raise KeyError(tag[:4])
    if not np.isfinite(y).all() or y.max() < 0.1:
        raise KeyError('no curve')
    return y.clip(0, 1).astype(np.float32)


def _to_d50(xy: tuple[float, ...]) -> np.ndarray:
    """(3, 3) from linear RGB of these primaries and white to CIE XYZ, adapted to D50."""
    x, y = np.array(xy[0::2]), np.array(xy[1::2])
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    white = xyz[:, 3]
    matrix = xyz[:, :3] * np.linalg.solve(xyz[:, :3], white)
    adapt = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ D50 / (BRADFORD @ white)) @ BRADFORD
    return adapt @ matrix


def profile_of_codes(primaries: int, transfer: int, gray: bool = False) -> bytes:
    """ICC profile of colour primaries and transfer characteristics of ITU-T H.273; empty for sRGB and unknown ones."""
    return profile(PRIMARIES.get(primaries, PRIMARIES[1]), GAMMAS.get(transfer), gray)


def profile(xy: tuple[float, ...], gamma: float | None, gray: bool = False) -> bytes:
    """ICC profile of primaries and white (CIE xy of red, green, blue and white) and a power or, without one, sRGB's
    curve; empty if that is sRGB."""
    curve = (3, SRGB_CURVE) if gamma is None else (0, (gamma, ))
    curve_tag = b'para' + struct.pack(f'>IHH{len(curve[1])}i', 0, curve[0], 0, *(round(v * 65536) for v in curve[1]))

    def text(words: str) -> bytes:
        data = words.encode('utf-16-be')
        return b'mluc' + struct.pack('>III2s2sII', 0, 1, 12, b'en', b'US', len(data), 28) + data

    def xyz(values: np.ndarray) -> bytes:
        return b'XYZ ' + struct.pack('>I3i', 0, *(round(float(v) * 65536) for v in values))

    tags = {b'desc': text('from primaries and transfer curve'), b'cprt': text('no copyright'), b'wtpt': xyz(D50)}
    if gray:
        tags[b'kTRC'] = curve_tag
    else:
        columns = _to_d50(xy)
        for i, colour in enumerate((b'r', b'g', b'b')):
            tags[colour + b'XYZ'], tags[colour + b'TRC'] = xyz(columns[:, i]), curve_tag
    start, table, body = 132 + 12 * len(tags), struct.pack('>I', len(tags)), b''
    for name, data in tags.items():
        table += struct.pack('>4sII', name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack('>I4sI4s4s4s12s4s28xIII', start + len(body), b'', 0x04200000, b'mntr',
                         b'GRAY' if gray else b'RGB ', b'XYZ ', bytes(12), b'acsp', 0xF6D6, 0x10000, 0xD32D)
    icc = header + bytes(128 - len(header)) + table + body
    return b'' if encoding_of(icc) is None else icc
