"""What an image looks like in a few bytes, so that copies of it are found whatever their file, size or exposure."""
from __future__ import annotations

import base64
import cv2
import hashlib
import numpy as np
from numpy.typing import ArrayLike

__all__ = ['aligned_correlation', 'correlation', 'fingerprint', 'find_matches', 'pixel_hash']

THUMBNAIL = 16
MAX_HAMMING = 14  # of 64 bits; unrelated images differ in 32 on average
MIN_CORRELATION = 0.9  # on LOL, views of one scene lie above 0.96, of different scenes below 0.8


def _log_gray(img: np.ndarray, size: int) -> np.ndarray:
    """(h, w, 3) uint8 BGR -> (size, size) float32: logarithm of the reduced gray image, in which exposure is a shift
    and gamma a factor."""
    # enlarging by area would repeat pixels in uneven blocks
    shrinks = min(img.shape[:2]) >= size
    gray = cv2.cvtColor(img, cv2.COLOR_BGR2GRAY).astype(np.float32)
    return np.log1p(cv2.resize(gray, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def _unit(x: ArrayLike) -> np.ndarray:
    """Rows with mean 0 and length 1 (0 where a row is constant): their dot products are correlations."""
    x = np.asarray(x, np.float64)
    x = x - x.mean(-1, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two arrays of one size; 0 where one of them is constant."""
    return float(_unit(np.ravel(a)) @ _unit(np.ravel(b)))


def aligned_correlation(low: np.ndarray, high: np.ndarray) -> float:
    """Correlation of the reduced log-gray images of a pair, near 1 where they show the same, in the same place.

    Args:
        low: (h, w, 3) uint8, BGR.
        high: The same.
    """
    return correlation(_log_gray(low, 32), _log_gray(high, 32))


def pixel_hash(img: np.ndarray) -> str:
    """SHA-256 of the decoded pixels: equal for the same picture in two lossless formats."""
    return hashlib.sha256(repr(img.shape).encode() + np.ascontiguousarray(img).tobytes()).hexdigest()


def fingerprint(img: np.ndarray) -> dict[str, str]:
    """Three views of an image, from exact to rough.

    Args:
        img: (h, w, 3) uint8, BGR.

    Returns:
        dict[str, str]: ``pixels``, SHA-256 of the decoded pixels; ``phash``, 64 bits in hexadecimal, the signs against
        their median of the lowest 8x8 DCT coefficients of the reduced log-gray image; ``thumbnail``, that image at
        16x16, 8 bits a pixel in base64, by which a match of hashes is verified.
    """
    coefficients = cv2.dct(_log_gray(img, 32))[:8, :8].ravel()[1:]  # without the mean
    bits = np.append(coefficients > np.median(coefficients), False)
    thumbnail = _log_gray(img, THUMBNAIL)
    span = max(float(np.ptp(thumbnail)), 1e-6)
    levels = np.round((thumbnail - thumbnail.min()) / span * 255).astype(np.uint8)
    return {
        'pixels': pixel_hash(img),
        'phash': np.packbits(bits).tobytes().hex(),
        'thumbnail': base64.b64encode(levels.tobytes()).decode(),
    }


def find_matches(train: list[dict], test: list[dict]) -> dict[int, tuple[str, int, float]]:
    """Images of ``test`` that are in ``train``: pixel by pixel, or as the same view.

    A view is the same where at most 14 of 64 hash bits differ and the thumbnails correlate by at least 0.9. As exposure
    and gamma are taken out, another photograph of the same scene from the same place counts too.

    Args:
        train: Fingerprints.
        test: Fingerprints.

    Returns:
        dict[int, tuple[str, int, float]]: Index in test -> ('identical' or 'same view', index in train of the nearest,
        correlation).
    """
    if not train or not test:
        return {}
    exact: dict[str, int] = {}
    for j, entry in enumerate(train):
        exact.setdefault(entry['pixels'], j)
    train_bits, test_bits = (_bits(entries) for entries in (train, test))
    train_thumbnails, test_thumbnails = (_thumbnails(entries) for entries in (train, test))
    matches = {}
    for i, entry in enumerate(test):
        if entry['pixels'] in exact:
            matches[i] = ('identical', exact[entry['pixels']], 1.0)
            continue
        near = np.flatnonzero((train_bits != test_bits[i]).sum(1) <= MAX_HAMMING)
        if len(near):
            scores = train_thumbnails[near] @ test_thumbnails[i]
            best = int(scores.argmax())
            if scores[best] >= MIN_CORRELATION:
                matches[i] = ('same view', int(near[best]), float(scores[best]))
    return matches


def _bits(entries: list[dict]) -> np.ndarray:
    return np.array([np.unpackbits(np.frombuffer(bytes.fromhex(e['phash']), np.uint8)) for e in entries])


def _thumbnails(entries: list[dict]) -> np.ndarray:
    return _unit([np.frombuffer(base64.b64decode(e['thumbnail']), np.uint8) for e in entries])
