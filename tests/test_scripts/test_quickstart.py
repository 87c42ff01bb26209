import cv2
import importlib.util
import itertools
import numpy as np
import pytest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / 'scripts' / 'quickstart.py'


@pytest.fixture(scope='module')
def quickstart():
    pytest.importorskip('skimage')
    spec = importlib.util.spec_from_file_location('quickstart', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def data(quickstart, tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    quickstart.make_data(folder)
    return folder


def read(folder):
    return {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())}


def test_photographs_are_disjoint(quickstart):
    # left and right of a stereo pair are one photograph
    train, val = ({name.split('.')[0].removesuffix('_left').removesuffix('_right') for name in names}
                  for names in (quickstart.TRAIN_PHOTOS, quickstart.VAL_PHOTOS))
    assert len(train) >= 2 and len(val) >= 2 and not train & val


def test_tiles_cover_the_image_once(quickstart):
    h, w = 5 * quickstart.TILES, 7 * quickstart.TILES
    img = np.arange(h * w).reshape(h, w, 1)
    black, white = quickstart.tiles(img)
    pixels = np.concatenate([tile.ravel() for tile in black + white])
    assert len(np.unique(pixels)) == len(pixels) == h * w
    assert len(black) == len(white)


def test_validation_pairs_have_the_same_names_and_shapes(quickstart, data):
    low, normal = (read(data / 'val' / domain) for domain in ('low', 'normal'))
    assert low.keys() == normal.keys() and len(low) == len(quickstart.VAL_PHOTOS) * quickstart.VAL_EXPOSURES
    for name, img in low.items():
        assert img.dtype == np.uint8 and img.shape == normal[name].shape and min(img.shape[:2]) >= 96
        assert img.mean() < 0.6 * normal[name].mean()


def test_training_tiles_are_as_large_as_the_crops(data):
    options = (SCRIPT.parents[1] / 'options' / 'quickstart.yml').read_text()
    size = int(options.split('gt_size:')[1].split()[0])
    for domain in ('low', 'normal'):
        assert all(min(img.shape[:2]) >= size for img in read(data / 'train' / domain).values())


def test_data_depends_on_the_seed_alone(quickstart, data, tmp_path):
    quickstart.make_data(tmp_path / 'again')
    quickstart.make_data(tmp_path / 'other', seed=1)
    for part, domain in itertools.product(('train', 'val'), ('low', 'normal')):
        first, again, other = (read(root / part / domain) for root in (data, tmp_path / 'again', tmp_path / 'other'))
        assert all(np.array_equal(first[name], again[name]) for name in first)
        same = all(np.array_equal(first[name], other[name]) for name in first)
        assert same == (domain == 'normal')


def test_compared_are_the_rule_the_default_and_the_untrained(quickstart):
    dark = np.full((40, 60, 3), 20, np.uint8)
    for enhancer in quickstart.compared().values():
        (bright,) = quickstart.enhance(enhancer, [dark])
        assert bright.shape == dark.shape and bright.dtype == np.uint8 and bright.mean() > 40
