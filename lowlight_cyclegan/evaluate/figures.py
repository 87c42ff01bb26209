"""Figures: images side by side, whole or with enlarged crops."""
from __future__ import annotations

import cv2
import numpy as np
import os
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from os import path as osp

from .pairs import Pair

__all__ = ['comparison_figure', 'contact_sheet', 'draw_all', 'pick_crop']

ROWS = 3
CELL = 2.0  # inches
SHEET_ROWS, SHEET_CELL = 20, 320  # of a page; pixels


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
            figure = comparison_figure(_spread(pairs, ROWS), labels, own)
            figure.savefig(osp.join(output, f'comparison_{name}.png'), dpi=200)


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


def contact_sheet(pairs: list[Pair], labels: list[str], records: list[dict]) -> np.ndarray:
    """Small copies: a row for each image, columns input, methods and, where there is one, reference.

    Returns:
        (h, w, 3) uint8, BGR.
    """
    pictures = {(record['method'], record['image']): record['picture'] for record in records}
    labels = [label for label in labels if label.lower() != 'input']
    rows: list[np.ndarray] = []
    for pair in pairs:
        files = [pair.low, *(pictures[label, pair.name] for label in labels), *([pair.high] if pair.high else [])]
        cells = [cv2.imread(file) for file in files]
        height = round(SHEET_CELL * cells[0].shape[0] / cells[0].shape[1])
        cells = [cv2.resize(img, (SHEET_CELL, height), interpolation=cv2.INTER_AREA) for img in cells]
        if not rows:
            for img, title in zip(cells, ['input', *labels, 'reference']):
                for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
                    cv2.putText(img, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width, cv2.LINE_AA)
        rows.append(np.hstack(cells))
    return np.vstack(rows)


def comparison_figure(pairs: list[Pair], labels: list[str], records: list[dict]) -> Figure:
    """Rows of images, columns input, methods and reference; below each image its crop, enlarged, and its PSNR."""
    pictures = {(record['method'], record['image']): record for record in records}
    labels = [label for label in labels if label.lower() != 'input']
    titles = ['input', *labels, 'reference']
    first = cv2.imread(pairs[0].high)
    aspect = first.shape[0] / first.shape[1]
    figure = Figure(figsize=(CELL * len(titles), (2 * CELL * aspect + 0.12) * len(pairs) + 0.3), layout='constrained')
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    axes = figure.subplots(2 * len(pairs), len(titles), squeeze=False)
    for row, pair in enumerate(pairs):
        reference = cv2.imread(pair.high)
        files = [pair.low, *(pictures[label, pair.name]['picture'] for label in labels), pair.high]
        x, y, w, h = pick_crop(reference)
        for column, file in enumerate(files):
            img = cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB)
            whole, part = axes[2 * row, column], axes[2 * row + 1, column]
            whole.imshow(img)
            # an input of another size than the crop's image keeps the same part
            sx, sy = img.shape[1] / reference.shape[1], img.shape[0] / reference.shape[0]
            whole.add_patch(Rectangle((x * sx, y * sy), w * sx, h * sy, fill=False, color='red', linewidth=1))
            part.imshow(img[round(y * sy):round((y + h) * sy), round(x * sx):round((x + w) * sx)],
                        interpolation='nearest')
            if row == 0:
                whole.set_title(titles[column], fontsize=9)
            if titles[column] in labels:
                part.set_xlabel(f"{pictures[titles[column], pair.name]['psnr']:.2f} dB", fontsize=7, labelpad=1)
            for ax in (whole, part):
                ax.set_xticks([])
                ax.set_yticks([])
    return figure
