"""Photographs darkened by a model of a camera: images whose reference is known.

The model: sRGB is decoded to light, the exposure is lowered by stops, photons are counted up to a full well of 6000
electrons with their shot noise and a reading noise of 3 electrons, and the result is encoded to 8 bits again.
"""
from __future__ import annotations

import cv2
import numpy as np
import shutil
from collections.abc import Callable, Iterator, Sequence
from os import path as osp

from lowlight_cyclegan.data.data_util import decode_image
from .archive import images_in
from .manifest import NewDataset, check_complete

__all__ = ['SHAPES', 'conditions', 'darken', 'expose']

FULL_WELL, READ_NOISE = 6000, 3  # electrons
JPEG_QUALITY = 75


def _to_light(x: np.ndarray) -> np.ndarray:
    # IEC 61966-2-1
    return np.where(x <= .04045, x / 12.92, ((x + .055) / 1.055)**2.4)


def _to_srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= .0031308, 12.92 * x, 1.055 * np.maximum(x, .0031308)**(1 / 2.4) - .055)


def expose(photo: np.ndarray, stops: float | np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """What the camera makes of a scene that has less light.

    Args:
        photo: (h, w, 3) uint8, RGB: the scene.
        stops: Less of exposure, one number or (h, w, 1).
        rng: Of the noise; None takes a picture without.

    Returns:
        (h, w, 3) uint8, RGB.
    """
    electrons = _to_light(photo / 255) * 2.**-stops * FULL_WELL
    if rng is not None:
        electrons = rng.poisson(electrons) + rng.normal(0, READ_NOISE, photo.shape)
    return np.round(_to_srgb(np.clip(electrons / FULL_WELL, 0, 1)) * 255).astype(np.uint8)


# ------------------------------------------------------- shapes of partial darkness: stops, (h, w, 1), of a photograph


def _ramp(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From 0 stops at one end of the picture to 4 at the other, in a direction drawn at random."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1:1:photo.shape[0] * 1j, -1:1:photo.shape[1] * 1j]
    along = x * np.cos(angle) + y * np.sin(angle)
    return 4 * ((along - along.min()) / (along.max() - along.min()))[..., None]


def _backlight(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About 3 stops off what is darker than half of the picture, by regions whose edges are the picture's.

    The edges by a guided filter: He et al., "Guided Image Filtering", TPAMI 2013.
    """

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (33, 33))

    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    regions = cv2.blur(gray, (31, 31))
    dark = (regions < np.median(regions)).astype(np.float32)
    mean_gray, mean_dark = mean(gray), mean(dark)
    slope = (mean(gray * dark) - mean_gray * mean_dark) / (mean(gray * gray) - mean_gray * mean_gray + 1e-3)
    share = mean(slope) * gray + mean(mean_dark - slope * mean_gray)
    return .3 + 3 * np.clip(share, 0, 1)[..., None]


def _vignette(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darker with the square of the distance from a place drawn at random, 4 stops in the farthest corner."""
    y, x = np.mgrid[-1:1:photo.shape[0] * 1j, -1:1:photo.shape[1] * 1j]
    place = rng.uniform(-.6, .6, 2)
    distance = (x - place[0])**2 + (y - place[1])**2
    return 4 * (distance / distance.max())[..., None]


def _shadow(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """3 stops on one side of a line with a narrow edge, drawn at random through the middle part of the picture."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1:1:photo.shape[0] * 1j, -1:1:photo.shape[1] * 1j]
    beyond = x * np.cos(angle) + y * np.sin(angle) - rng.uniform(-.4, .4)
    return 3 * np.clip(beyond / .06 + .5, 0, 1)[..., None]


SHAPES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    'ramp': _ramp, 'backlight': _backlight, 'vignette': _vignette, 'shadow': _shadow}


# --------------------------------------------------------------------------------------------------- conditions


def conditions(read: Callable[[int], np.ndarray], count: int, stops: Sequence[float], shapes: Sequence[str],
               noise: bool | None, jpeg: bool, seed: int) -> Iterator[tuple[str, int, np.ndarray]]:
    """Darkened photographs, condition by condition, from one generator of random numbers.

    First each of the stops for all photographs; then, as the condition ``partial``, ramp and backlight in turn from the
    second photograph on, where both are wanted; then each other shape for all photographs.

    Args:
        read: Gives photograph number 0, 1, ...: (h, w, 3) uint8, RGB.
        count: How many there are.
        stops: Of even darkness.
        shapes: Of partial darkness, of `SHAPES`.
        noise: The camera's: True, False, or None for everywhere but at 0 stops.
        jpeg: Save the dark picture as JPEG once, which turns noise into blotches.
        seed: Of the generator.

    Yields:
        Name of the condition, number of the photograph, dark picture, (h, w, 3) uint8, RGB.
    """
    rng = np.random.default_rng(seed)

    def camera(photo: np.ndarray, amount: float | np.ndarray) -> np.ndarray:
        noisy = noise if noise is not None else not np.isscalar(amount) or amount != 0
        dark = expose(photo, amount, rng if noisy else None)
        if jpeg:
            content = cv2.imencode('.jpg', dark[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
            dark = cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]
        return dark

    def in_part(number: int, shape: str) -> np.ndarray:
        photo = read(number)
        return camera(photo, SHAPES[shape](photo, rng))

    for amount in stops:
        for number in range(count):
            yield f'ev-{amount:g}' if amount else 'ev0', number, camera(read(number), amount)
    in_turn = ('ramp', 'backlight')
    if set(in_turn) <= set(shapes):
        for number in range(1, count):
            yield 'partial', number, in_part(number, in_turn[(number - 1) % 2])
        shapes = [name for name in shapes if name not in in_turn]
    for name in shapes:
        for number in range(count):
            yield name, number, in_part(number, name)


def darken(folder: str, target: str, stops: Sequence[float] = (0, 2, 4), shapes: Sequence[str] = (),
           noise: bool | None = None, jpeg: bool = False, seed: int = 0) -> None:
    """Make ``<condition>/low`` and ``<condition>/high`` of a folder of photographs, with a manifest.

    Args:
        folder: Photographs.
        target: Folder of the dataset. One that is there already is checked.
        stops: See :func:`conditions`, as what follows.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        ValueError: A photograph cannot be read, two have one name, or the target is something else.
    """
    settings = {'stops': list(stops), 'shapes': list(shapes), 'noise': noise, 'jpeg': jpeg, 'seed': seed}
    if osp.lexists(target):
        check_complete(target, settings)
        print(f'complete {target}')
        return
    photographs = images_in(folder)
    stems, files = list(photographs), list(photographs.values())
    names = [osp.basename(file) for file in files]

    def read(number: int) -> tuple[bytes, np.ndarray]:
        """File and picture, BGR."""
        try:
            with open(files[number], 'rb') as f:
                content = f.read()
            return content, decode_image(content)
        except (OSError, ValueError) as error:
            raise ValueError(f'{files[number]}: cannot be read: {error}') from None

    dataset = NewDataset(target)
    shutil.rmtree(dataset.staging, ignore_errors=True)
    images = []
    for condition, number, dark in conditions(lambda number: np.ascontiguousarray(read(number)[1][..., ::-1]),
                                              len(names), stops, shapes, noise, jpeg, seed):
        low = np.ascontiguousarray(dark[..., ::-1])
        images += [dataset.add(f'{condition}/low/{stems[number]}.png', cv2.imencode('.png', low)[1].tobytes(), low,
                               names[number], 'test'),
                   dataset.add(f'{condition}/high/{names[number]}', *read(number), names[number], 'test')]
    dataset.finish(images, ['the low images are synthetic: darkened by a model of a camera'], settings=settings)
    made = dict.fromkeys(entry['path'].split('/')[0] for entry in images)
    print(f'ready    {target}: {len(names)} photographs in {", ".join(made)}')
