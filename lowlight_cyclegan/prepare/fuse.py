"""Scenes of two exposures: the dark one with the fusion of both as its reference."""
from __future__ import annotations

import cv2
import numpy as np
from os import path as osp

from lowlight_cyclegan.data.data_util import IMAGE_EXTENSIONS, decode_image, map_threaded
from .archive import open_source
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
        under: Folder or zip archive of the under-exposed pictures.
        over: Of the over-exposed ones, see :func:`~lowlight_cyclegan.prepare.layouts.pair_names`.
        target: Folder of the dataset. One that is there already is checked.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: Names do not pair, pictures cannot be read or differ in size, or the target is something else.
    """
    if osp.lexists(target):
        check_complete(target, {'fusion': 'Mertens'})
        print(f'complete {target}')
        return
    sources = [open_source(path) for path in (under, over)]
    low, high = ({osp.splitext(osp.basename(file))[0]: file for file in source.files
                  if file.lower().endswith(IMAGE_EXTENSIONS)} for source in sources)
    name = osp.basename(target)
    try:
        pairs = pair_names(low, high, name)
    except ValueError as error:
        raise ValueError(f'{under} and {over}: {error}') from None
    if not pairs:
        raise ValueError(f'{under} and {over}: no images')
    dataset = NewDataset(target)

    def make(pair: tuple[str, str, str]) -> list[dict]:
        shared, dark, bright = pair[0], low[pair[1]], high[pair[2]]
        contents = [source.read(file) for source, file in zip(sources, (dark, bright))]
        images = []
        for source, file, content in zip(sources, (dark, bright), contents):
            try:
                images.append(decode_image(content))
            except ValueError as error:
                raise ValueError(f'{source.path}: {file} cannot be read: {error}') from None
        if images[0].shape != images[1].shape:
            raise ValueError(f'{dark} and {bright}: differ in size')
        fusion = fused(*images)
        return [dataset.add(f'low/{shared}{osp.splitext(dark)[1].lower()}', contents[0], images[0], dark, 'test'),
                dataset.add(f'high/{shared}.png', cv2.imencode('.png', fusion)[1].tobytes(), fusion, bright, 'test')]

    images = [entry for entries in map_threaded(make, sorted(pairs)) for entry in entries]
    dataset.finish(images, ['the references are exposure fusions of two pictures'], settings={'fusion': 'Mertens'})
    print(f'ready    {target}: {len(pairs)} scenes')
