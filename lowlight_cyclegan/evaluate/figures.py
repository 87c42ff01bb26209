"""Figures: images side by side, whole or with enlarged crops, images as points, metrics as bars."""
from __future__ import annotations

import cv2
import numpy as np
import os
from collections.abc import Sequence
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from os import path as osp

from .metrics import Metric
from .pairs import Pair
from .statistics import mean_and_error

__all__ = ['comparison_figure', 'contact_sheet', 'draw_all', 'metric_figure', 'pick_crop', 'scatter_figure']

ROWS = 3
CELL = 2.0  # inches
SHEET_ROWS, SHEET_CELL = 20, 320  # of a page; pixels

Crop = tuple[int, int, int, int]


def draw_all(output: str, datasets: dict[str, list[Pair]], labels: list[str], metrics: dict[str, Metric],
             records: list[dict], baseline: str, images: Sequence[str] | None = None, crop: Crop | None = None) -> None:
    """Draw each dataset: ``sheet_<data>.jpg`` with all its images, ``metrics_<data>.png``, and, where there are
    references, ``comparison_<data>.png`` and, with two methods or more, ``scatter_<data>.png``.

    Args:
        output: Folder.
        datasets: Name -> images.
        labels: Methods.
        metrics: Which are drawn.
        records: Of all images, see ``comparison.measure_all``.
        baseline: Horizontal axis of the scatter plot.
        images: Names for the comparison; None takes three that lie evenly in the list.
        crop: x, y, width and height of what is enlarged; None picks it.
    """
    os.makedirs(output, exist_ok=True)
    for name, pairs in datasets.items():
        own = [record for record in records if record['data'] == name]
        for page, start in enumerate(range(0, len(pairs), SHEET_ROWS)):
            sheet = contact_sheet(pairs[start:start + SHEET_ROWS], labels, own)
            cv2.imwrite(osp.join(output, f'sheet_{name}{f"_{page + 1}" if page else ""}.jpg'), sheet)
        chosen = [pair for pair in pairs if pair.name in images] if images else _spread(pairs, ROWS)
        if chosen and pairs[0].high is not None:
            figure = comparison_figure(chosen, labels, own, crop)
            figure.savefig(osp.join(output, f'comparison_{name}.png'), dpi=200)
        shown = {key: metric for key, metric in metrics.items() if own and key in own[0]}
        metric_figure(name, labels, shown, own).savefig(osp.join(output, f'metrics_{name}.png'), dpi=150)
        if len(labels) > 1:
            scatter_figure(name, labels, shown, own, baseline).savefig(osp.join(output, f'scatter_{name}.png'), dpi=150)


def _spread(items: list, count: int) -> list:
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def pick_crop(reference: np.ndarray, share: int = 5) -> Crop:
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


def comparison_figure(pairs: list[Pair], labels: list[str], records: list[dict], crop: Crop | None = None) -> Figure:
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
        x, y, w, h = crop or pick_crop(reference)
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


def _title(metric: Metric) -> str:
    return f'{metric.heading} ({metric.better} is better)' if metric.better else metric.heading


def scatter_figure(name: str, labels: list[str], metrics: dict[str, Metric], records: list[dict],
                   baseline: str) -> Figure:
    """Each image a point: the baseline's figure across, a method's upwards; one plot for each metric."""
    figure = Figure(figsize=(3.2 * len(metrics), 3.4), layout='constrained')
    for ax, (key, metric) in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics.items()):
        values = {label: {r['image']: r[key] for r in records if r['method'] == label} for label in labels}
        for label in labels:
            if label != baseline:
                images = list(values[baseline])
                ax.scatter([values[baseline][i] for i in images], [values[label][i] for i in images], s=12, label=label)
        ax.axline((0, 0), slope=1, color='gray', linewidth=0.8)
        ax.set_xlabel(f'{metric.heading}, {baseline}')
        ax.set_ylabel(_title(metric))
        # the diagonal's point at the origin must not widen the view
        finite = np.array([v for m in values.values() for v in m.values() if np.isfinite(v)])
        if len(finite):
            margin = 0.05 * max(np.ptp(finite), 1e-3)
            limits = (finite.min() - margin, finite.max() + margin)
            ax.set(xlim=limits, ylim=limits)
    ax.legend(fontsize=7)
    figure.suptitle(name)
    return figure


def metric_figure(name: str, labels: list[str], metrics: dict[str, Metric], records: list[dict]) -> Figure:
    """A bar for each method with its standard error; one plot for each metric."""
    figure = Figure(figsize=(3.2 * len(metrics), 0.3 * len(labels) + 1.4), layout='constrained')
    for ax, (key, metric) in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics.items()):
        stats = [mean_and_error([r[key] for r in records if r['method'] == label]) for label in labels]
        ax.barh(labels, [s[0] for s in stats], xerr=[np.nan_to_num(s[1]) for s in stats], color='C0', ecolor='black',
                capsize=2)
        ax.set_xlabel(_title(metric))
    ax.invert_yaxis()
    figure.suptitle(name)
    return figure
