"""Test images on disk: a folder of low images, and one of their references where there are some."""
from __future__ import annotations

import os
from dataclasses import dataclass
from os import path as osp

from lowlight_cyclegan.data.data_util import IMAGE_EXTENSIONS
from lowlight_cyclegan.messages import warn
from lowlight_cyclegan.prepare.layouts import pair_names

__all__ = ['Pair', 'find_pairs']


@dataclass(frozen=True)
class Pair:
    """A test image: its name, and the files of the low image and of its reference, if it has one."""
    name: str
    low: str
    high: str | None = None


def find_pairs(text: str) -> tuple[str, list[Pair]]:
    """Images of a dataset: ``NAME=LOW:HIGH``, or ``NAME=FOLDER``.

    The folder is one with the sub-folders ``low`` and ``high``, as ``data`` lays them out, or one of images without
    references. Images are paired by name without extension, else by number, see
    :func:`~lowlight_cyclegan.prepare.layouts.pair_names`.

    Returns:
        Name and images.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        ValueError: The text has another form, or the names do not pair.
    """
    name, _, value = text.partition('=')
    folders = [osp.expanduser(folder) for folder in value.split(':')]
    if not name or len(folders) > 2 or not all(folders):
        raise ValueError(f'--data {text}: write it as NAME=LOW_FOLDER:HIGH_FOLDER, or NAME=FOLDER without references')
    if osp.basename(name) != name:
        raise ValueError(f'--data {text}: the name goes into file names, {name!r} does not')
    if len(folders) == 1:
        below = [osp.join(folders[0], part) for part in ('low', 'high')]
        folders = below if all(map(osp.isdir, below)) else folders
    files = [_images(text, folder) for folder in folders]
    if len(files) == 1:
        return name, [Pair(stem, path) for stem, path in sorted(files[0].items(), key=lambda item: _natural(item[0]))]
    low, high = files
    try:
        pairs = pair_names(low, high, name)
    except ValueError as error:
        raise ValueError(f'--data {text}: {error}') from None
    return name, [Pair(shared, low[a], high[b]) for shared, a, b in sorted(pairs, key=lambda pair: _natural(pair[0]))]


def _images(text: str, folder: str) -> dict[str, str]:
    """Name without extension -> path."""
    if not osp.isdir(folder):
        raise FileNotFoundError(f'--data {text}: no such folder: {folder}')
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith('.')]
    names = [entry.name for entry in entries if entry.name.lower().endswith(IMAGE_EXTENSIONS) and not entry.is_dir()]
    files = {osp.splitext(name)[0]: osp.join(folder, name) for name in names}
    if not names:
        raise FileNotFoundError(f'--data {text}: no images in {folder}')
    if len(files) < len(names):
        raise ValueError(f'--data {text}: {folder} holds images whose names differ by the extension alone')
    others = sorted(entry.name for entry in entries if entry.name not in names)
    if others:
        warn(f'{folder}: {len(others)} sub-folders and other files are left out, such as {others[0]}')
    return files


def _natural(name: str) -> tuple[int, str]:
    return (len(name), name) if name.isdigit() else (1 << 20, name)
