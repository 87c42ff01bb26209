"""Figures: images side by side, whole or with enlarged crops."""
from __future__ import annotations

import cv2
import numpy as np
import os
from os import path as osp

from .pairs import Pair

__all__ = ['contact_sheet', 'draw_all', 'pick_crop']

ROWS = 3  # of a comparison
SHEET_ROWS, CELL = 20, 320  # of a page; pixels
RED = (0, 0, 255)


def draw_all(output: str, datasets: dict[str, list[Pair]], labels: list[str], records: list[dict]) -> None:
    """Draw each dataset: ``sheet_<data>.jpg`` with all its images and, where there are references,
    ``comparison_<data>.png`` of three that lie evenly in the list.

    Args:
        output: Folder.
        datasets: Name -> images.
        labels: Methods.
        records: Of all images, see ``comparison.measure_all``.
    """
    os.makedirs(output, exist_ok=True)
    for name, pairs in datasets.items():
        own = [record for record in records if record['data'] == name]
        for page, start in enumerate(range(0, len(pairs), SHEET_ROWS)):
            sheet = contact_sheet(pairs[start:start + SHEET_ROWS], labels, own)
            cv2.imwrite(osp.join(output, f'sheet_{name}{f"_{page + 1}" if page else ""}.jpg'), sheet)
        if pairs[0].high is not None:
            figure = contact_sheet(_spread(pairs, ROWS), labels, own, 400, crops=True)
            cv2.imwrite(osp.join(output, f'comparison_{name}.png'), figure)


def _spread(items: list, count: int) -> list:
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def pick_crop(reference: np.ndarray, share: int = 5) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the part, a fifth of each side, in which the reference has most detail."""
    h, w = (max(side // share, 1) for side in reference.shape[:2])
    gray = cv2.cvtColor(reference, cv2.COLOR_BGR2GRAY).astype(np.float32)
    detail = np.minimum(np.abs(cv2.Laplacian(gray, cv2.CV_32F)), 64)  # a few hard edges do not decide
    total = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
    y, x = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(x), int(y), w, h


def contact_sheet(pairs: list[Pair], labels: list[str], records: list[dict], cell: int = CELL,
                  crops: bool = False) -> np.ndarray:
    """Small copies: a row for each image, columns input, methods and, where there is one, reference.

    Args:
        pairs: The images.
        labels: Methods.
        records: Of the images; ``picture`` is what a method made, and ``psnr`` is written below it.
        cell: Width of a copy, in pixels.
        crops: Below each row, the same part of all, enlarged, and marked above; for images with references.

    Returns:
        (h, w, 3) uint8, BGR.
    """
    found = {(record['method'], record['image']): record for record in records}
    labels = [label for label in labels if label.lower() != 'input']
    rows: list[np.ndarray] = []
    for number, pair in enumerate(pairs):
        own = [found[label, pair.name] for label in labels]
        files = [pair.low, *(record['picture'] for record in own), *([pair.high] if pair.high else [])]
        images = [cv2.imread(file) for file in files]
        whole = [_resized(img, cell, cv2.INTER_AREA) for img in images]
        if not number:
            for img, title in zip(whole, ['input', *labels, 'reference']):
                _label(img, title)
        if crops:
            x, y, w, h = pick_crop(images[-1])
            scale = cell / images[-1].shape[1]
            for img in whole:
                cv2.rectangle(img, *((round(a * scale), round(b * scale)) for a, b in ((x, y), (x + w, y + h))), RED)
        rows.append(np.hstack(whole))
        if crops:
            parts = [_resized(img[y:y + h, x:x + w], cell, cv2.INTER_NEAREST) for img in images]
            for img, record in zip(parts[1:], own):
                _label(img, f"{record['psnr']:.2f} dB")
            rows.append(np.hstack(parts))
    return np.vstack(rows)


def _resized(img: np.ndarray, width: int, interpolation: int) -> np.ndarray:
    return cv2.resize(img, (width, round(width * img.shape[0] / img.shape[1])), interpolation=interpolation)


def _label(img: np.ndarray, text: str) -> None:
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(img, text, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width, cv2.LINE_AA)
