import cv2
import json
import numpy as np
import pytest

from lowlight_cyclegan import commands as cli
from lowlight_cyclegan.evaluate.pairs import find_pairs
from lowlight_cyclegan.prepare.darken import SHAPES, conditions, expose
from lowlight_cyclegan.prepare.manifest import load_fingerprints

PHOTO = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def light(picture):
    x = picture / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055)**2.4)


def test_stops_are_factors_in_linear_light():
    np.testing.assert_array_equal(expose(PHOTO, 0, None), PHOTO)
    dark = expose(PHOTO, 1.5, None)
    step = 0.5 * (light(np.minimum(dark.astype(int) + 1, 255)) - light(np.maximum(dark.astype(int) - 1, 0)))
    assert (np.abs(light(dark) - light(PHOTO) / 2**1.5) <= step).all()  # within the rounding to 8 bits


def test_noise_is_that_of_photons_and_reading():
    gray = np.full((200, 200, 3), 188, np.uint8)
    noisy = light(expose(gray, 3, np.random.default_rng(0))) * 6000
    mean = light(gray)[0, 0, 0] / 8 * 6000
    assert noisy.mean() == pytest.approx(mean, rel=0.01)
    assert noisy.std() == pytest.approx(np.sqrt(mean + 9 + 30), rel=0.05)  # photons, reading, 8 bits: 19 a level


@pytest.mark.parametrize(('shape', 'least', 'most'), [('ramp', 0, 4), ('backlight', .3, 3.3), ('vignette', 0, 4),
                                                      ('shadow', 0, 3)])
def test_shapes_have_their_stops(shape, least, most):
    photo = cv2.resize(PHOTO, (160, 120), interpolation=cv2.INTER_NEAREST)
    photo[:, :80] //= 5  # what is against the light
    stops = SHAPES[shape](photo, np.random.default_rng(1))
    assert stops.shape == (120, 160, 1) and stops.min() >= least and stops.max() <= most + 1e-6
    assert np.ptp(stops) > 0.7 * (most - least)
    if shape == 'backlight':
        assert stops[:, :60].mean() > stops[:, 100:].mean() + 2


def test_order_of_the_conditions():

    def named(**kwargs):
        options = dict(stops=(0, 2), shapes=('shadow', 'ramp', 'backlight'), noise=None, jpeg=False, seed=0)
        return [item[:2] for item in conditions(lambda number: PHOTO, 3, **{**options, **kwargs})]

    assert named() == [('ev0', 0), ('ev0', 1), ('ev0', 2), ('ev-2', 0), ('ev-2', 1), ('ev-2', 2), ('partial', 1),
                       ('partial', 2), ('shadow', 0), ('shadow', 1), ('shadow', 2)]
    assert named(stops=(), shapes=['ramp']) == [('ramp', 0), ('ramp', 1), ('ramp', 2)]


def test_noise_by_default_where_there_is_less_light():

    def first(stops, noise, jpeg=False):
        return next(iter(conditions(lambda number: PHOTO, 1, [stops], (), noise, jpeg, 0)))[2]

    assert np.array_equal(first(0, None), PHOTO) and not np.array_equal(first(0, True), PHOTO)
    assert np.array_equal(first(2, False), expose(PHOTO, 2, None))
    assert not np.array_equal(first(2, None), first(2, False))
    assert not np.array_equal(first(2, None, jpeg=True), first(2, None))


def test_command_is_repeatable_and_evaluate_reads_it(tmp_path, write_images, capsys, refusal):
    photos = write_images(tmp_path / 'photos', 3)

    def darken(output, *args):
        cli.main(['data', 'darken', str(photos), '--output', str(tmp_path / output), '--stops', '0', '2', *args])
        return tmp_path / output / 'photos_dark'

    a, b, c = darken('a', '--shadow'), darken('b', '--shadow'), darken('c', '--shadow', '--seed', '1')
    name, pairs = find_pairs(f'dark={a}/ev-2')
    assert [pair.name for pair in pairs] == ['0', '1', '2'] and len(load_fingerprints(str(a), 'test')) == 18
    for path in a.rglob('*.png'):
        assert path.read_bytes() == (b / path.relative_to(a)).read_bytes()
    assert (a / 'shadow/low/1.png').read_bytes() != (c / 'shadow/low/1.png').read_bytes()
    assert (a / 'shadow/high/1.png').read_bytes() == (photos / '1.png').read_bytes()
    settings = json.loads((c / 'manifest.json').read_text())['settings']
    assert settings == {'stops': [0, 2], 'shapes': ['shadow'], 'noise': None, 'jpeg': False, 'seed': 1}
    capsys.readouterr()
    darken('a', '--shadow')
    assert capsys.readouterr().out == f'complete {a}\n'
    assert 'made with other settings' in refusal(darken, 'a')
    (photos / '1.jpg').write_bytes(b'')
    assert 'names differ by the extension alone' in refusal(darken, 'd')
    (photos / '1.png').unlink()
    assert '1.jpg: cannot be read' in refusal(darken, 'd') and not (tmp_path / 'd' / 'photos_dark').exists()
