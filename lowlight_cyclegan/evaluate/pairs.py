"""Test images on disk: a folder of low images, and one of their references where there are some."""
from __future__ import annotations

from dataclasses import dataclass
from os import path as osp

from lowlight_cyclegan.prepare.archive import images_in
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
    try:
        low, high = [*map(images_in, folders), {}][:2]
        pairs = pair_names(low, high, name) if high else [(stem, stem, '') for stem in low]
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f'--data {text}: {error}') from None
    pairs.sort(key=lambda pair: _natural(pair[0]))
    return name, [Pair(shared, low[a], high.get(b)) for shared, a, b in pairs]


def _natural(name: str) -> tuple[int, str]:
    return (len(name), name) if name.isdigit() else (1 << 20, name)
