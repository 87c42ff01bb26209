import logging
import math
import numpy as np
import pytest
import warnings
from basicsr.metrics import calculate_metric, calculate_niqe

from lowlight_cyclegan.metrics import calculate_niqe_tolerant
from lowlight_cyclegan.metrics import niqe_tolerant as module


@pytest.fixture(scope='module')
def photo():
    return pytest.importorskip('skimage.data').astronaut()[:256, 64:320, ::-1].copy()


@pytest.fixture
def log(caplog):
    logger = logging.getLogger('basicsr')
    logger.addHandler(caplog.handler)
    module._warn_once.cache_clear()
    yield caplog
    logger.removeHandler(caplog.handler)


def test_equals_basicsr_on_a_photo(photo, log):
    value = calculate_niqe_tolerant(photo, 0)
    assert value == calculate_niqe(photo, 0) and 1 < value < 20
    assert calculate_niqe_tolerant(photo, 7, convert_to='gray') == calculate_niqe(photo, 7, convert_to='gray') != value
    assert calculate_niqe_tolerant(photo.transpose(2, 0, 1), 0, input_order='CHW') == value
    assert calculate_niqe_tolerant(photo[..., 0], 0, input_order='HW') == calculate_niqe(photo[..., 0], 0, 'HW')
    opt = {'type': 'calculate_niqe_tolerant', 'crop_border': 0, 'better': 'lower'}
    assert calculate_metric({'img': photo, 'img2': photo}, opt) == value
    assert not log.records


def degenerate(photo):
    half = photo.copy()
    half[:, 96:] = 0  # one column of blocks is left
    dots = np.zeros_like(photo)
    dots[::50, ::50] = 1
    return {
        'black': np.zeros_like(photo),
        'white': np.full_like(photo, 255),
        'ramp': np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, 3)),
        'one pixel': np.pad(np.full((1, 1, 3), 255, np.uint8), ((100, 155), (100, 155), (0, 0))),
        'dots': dots,
        'small': photo[:95],
        'narrow': photo[:, :40],
        'tiny': photo[:1, :1],
        'one block': photo[:100, :100],
        'one block left': half[:190],
    }


def test_degenerate_pictures_never_raise(photo, log):
    undefined = []
    with warnings.catch_warnings():
        warnings.simplefilter('error', RuntimeWarning)
        for name, img in degenerate(photo).items():
            value = calculate_niqe_tolerant(img, 0)
            assert type(value) is float and not math.isinf(value), name
            if math.isnan(value):
                undefined.append(name)
        assert math.isnan(calculate_niqe_tolerant(photo[:100], 3))  # below 96 after cropping
        assert math.isnan(calculate_niqe_tolerant(photo[:90].transpose(2, 0, 1), 0, input_order='CHW'))
    assert {'black', 'white', 'small', 'narrow', 'tiny', 'one block'} <= set(undefined)
    assert len(log.records) == 1 and log.records[0].levelname == 'WARNING'  # once per process


def test_basicsr_raises_on_them(photo):
    """Why the tolerant metric exists."""
    for name in ('black', 'small'):
        with np.errstate(all='ignore'), warnings.catch_warnings(), pytest.raises(Exception):  # noqa: B017
            warnings.simplefilter('ignore')
            calculate_niqe(degenerate(photo)[name], 0)
