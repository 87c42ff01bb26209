"""Scenes of two exposures: the dark one with the fusion of both as its reference."""
from __future__ import annotations

import cv2
import numpy as np
from os import path as osp

from lowlight_cyclegan.data.data_util import decode_image, map_threaded
from .archive import images_in
from .layouts import pair_names
from .manifest import NewDataset, check_complete

__all__ = ['fuse', 'fused']


def fused(under: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Exposure fusion of two exposures of a scene, (h, w, 3) uint8, BGR.

    Reference: Mertens et al., "Exposure Fusion: A Simple and Practical Alternative to High Dynamic Range Photography",
    Computer Graphics Forum 2009.
    """
    fusion = cv2.createMergeMertens().process([under, over])
    return (np.clip(fusion, 0, 1) * 255).round().astype(np.uint8)


def fuse(under: str, over: str, target: str) -> None:
    """Make ``low`` (the under-exposed pictures as they are) and ``high`` (the fusions), with a manifest.

    Args:
        under: Folder of the under-exposed pictures.
        over: Of the over-exposed ones, see :func:`~lowlight_cyclegan.prepare.layouts.pair_names`.
        target: Folder of the dataset. One that is there already is checked.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        ValueError: Names do not pair, pictures cannot be read or differ in size, or the target is something else.
    """
    if osp.lexists(target):
        check_complete(target, {'fusion': 'Mertens'})
        print(f'complete {target}')
        return
    low, high = images_in(under), images_in(over)
    try:
        pairs = pair_names(low, high, osp.basename(target))
    except ValueError as error:
        raise ValueError(f'{under} and {over}: {error}') from None
    dataset = NewDataset(target)

    def make(pair: tuple[str, str, str]) -> list[dict]:
        files, contents, images = (low[pair[1]], high[pair[2]]), [], []
        for file in files:
            try:
                with open(file, 'rb') as f:
                    contents.append(f.read())
                images.append(decode_image(contents[-1]))
            except (OSError, ValueError) as error:
                raise ValueError(f'{file}: cannot be read: {error}') from None
        if images[0].shape != images[1].shape:
            raise ValueError(f'{files[0]} and {files[1]}: differ in size')
        fusion = fused(*images)
        extension = osp.splitext(files[0])[1].lower()
        return [dataset.add(f'low/{pair[0]}{extension}', contents[0], images[0], files[0], 'test'),
                dataset.add(f'high/{pair[0]}.png', cv2.imencode('.png', fusion)[1].tobytes(), fusion, files[1], 'test')]

    images = [entry for entries in map_threaded(make, sorted(pairs)) for entry in entries]
    dataset.finish(images, ['the references are exposure fusions of two pictures'], settings={'fusion': 'Mertens'})
    print(f'ready    {target}: {len(pairs)} scenes')
