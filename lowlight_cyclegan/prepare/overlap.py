"""Which test images a training set holds already."""
from __future__ import annotations

import json

from lowlight_cyclegan.files import atomic_write
from .fingerprint import find_matches
from .manifest import load_fingerprints

__all__ = ['report_overlap']


def report_overlap(train: str, test: str, output: str | None = None) -> list[dict]:
    """Print the images of ``test`` that ``train`` holds too, and write them to a JSON file.

    Args:
        train: See :func:`~lowlight_cyclegan.prepare.manifest.load_fingerprints`.
        test: The same.
        output: JSON file. Default: None.

    Returns:
        list[dict]: ``test``, ``train``, ``kind`` and ``correlation`` of each.

    Raises:
        ValueError: A path holds no images, or one that cannot be read.
    """
    train_images, test_images = load_fingerprints(train, 'train'), load_fingerprints(test, 'test')
    rows = [{'test': test_images[i]['path'], 'train': train_images[j]['path'], 'kind': kind,
             'correlation': round(score, 4)}
            for i, (kind, j, score) in sorted(find_matches(train_images, test_images).items())]
    for row in rows:
        print(f"{row['kind']:<10} {row['correlation']:.3f}  {row['test']}  {row['train']}")
    identical = sum(row['kind'] == 'identical' for row in rows)
    print(f'{len(test_images)} test images against {len(train_images)} training images: {identical} identical, '
          f'{len(rows) - identical} more of the same view, {len(test_images) - len(rows)} clean')
    if output:
        atomic_write(output, json.dumps(rows, indent=1).encode())
    return rows
