"""Test images on disk: a folder of low images and one of their references."""
from __future__ import annotations

import os
from dataclasses import dataclass
from os import path as osp

from lowlight_cyclegan.data.data_util import IMAGE_EXTENSIONS

__all__ = ['Pair', 'find_pairs']


@dataclass(frozen=True)
class Pair:
    """A test image: its name, and the files of the low image and of its reference."""
    name: str
    low: str
    high: str


def find_pairs(text: str) -> tuple[str, list[Pair]]:
    """``NAME=LOW:HIGH`` -> (name, [Pair, ...]), the folders' images paired by name without extension.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        ValueError: The text has another form, or the names do not pair.
    """
    name, _, folders = text.partition('=')
    folders = [osp.expanduser(folder) for folder in folders.split(':')]
    if not name or len(folders) != 2 or not all(folders):
        raise ValueError(f'--data {text}: write it as NAME=LOW_FOLDER:HIGH_FOLDER')
    if osp.basename(name) != name:
        raise ValueError(f'--data {text}: the name goes into file names, {name!r} does not')
    low, high = (_images(text, folder) for folder in folders)
    single = sorted(low.keys() ^ high.keys())
    if single:
        raise ValueError(f'--data {text}: {len(single)} images are in one of the folders alone, such as {single[0]}')
    return name, [Pair(stem, low[stem], high[stem]) for stem in sorted(low, key=_natural)]


def _images(text: str, folder: str) -> dict[str, str]:
    """Name without extension -> path."""
    if not osp.isdir(folder):
        raise FileNotFoundError(f'--data {text}: no such folder: {folder}')
    names = [n for n in os.listdir(folder) if n.lower().endswith(IMAGE_EXTENSIONS) and not n.startswith('.')]
    files = {osp.splitext(name)[0]: osp.join(folder, name) for name in names}
    if not names:
        raise FileNotFoundError(f'--data {text}: no images in {folder}')
    if len(files) < len(names):
        raise ValueError(f'--data {text}: {folder} holds images whose names differ by the extension alone')
    return files


def _natural(name: str) -> tuple[int, str]:
    return (len(name), name) if name.isdigit() else (1 << 20, name)
