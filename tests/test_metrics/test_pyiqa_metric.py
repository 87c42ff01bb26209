import numpy as np
import pytest
import sys
import urllib.error
from basicsr.metrics import calculate_metric, calculate_psnr, calculate_ssim

from lowlight_cyclegan.metrics import build_pyiqa, calculate_pyiqa
from lowlight_cyclegan.metrics import pyiqa_metric as module


@pytest.fixture(scope='module')
def pyiqa():
    return pytest.importorskip('pyiqa', reason='the extra pyiqa is not installed')


@pytest.fixture(scope='module')
def pictures():
    import cv2
    rng = np.random.default_rng(0)
    first = cv2.GaussianBlur(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8), (0, 0), 1)
    second = np.clip(first + rng.normal(0, 10, first.shape), 0, 255).astype(np.uint8)
    return first, second


def test_psnr_and_ssim_against_basicsr(pyiqa, pictures):
    assert calculate_pyiqa(*pictures, 0) == pytest.approx(calculate_psnr(*pictures, 0), abs=1e-3)
    assert calculate_pyiqa(*pictures, 5) == pytest.approx(calculate_psnr(*pictures, 5), abs=1e-3)
    chw = [p.transpose(2, 0, 1) for p in pictures]
    assert calculate_pyiqa(*chw, 0, input_order='CHW') == pytest.approx(calculate_psnr(*pictures, 0), abs=1e-3)
    luma = {'test_y_channel': True, 'color_space': 'ycbcr'}
    assert calculate_pyiqa(*pictures, 0, metric='psnr', **luma) == pytest.approx(
        calculate_psnr(*pictures, 0, test_y_channel=True), abs=1e-3)
    assert calculate_pyiqa(*pictures, 0, metric='ssimc') == pytest.approx(calculate_ssim(*pictures, 0), abs=1e-5)


def test_colours_arrive_as_rgb(pyiqa, pictures):
    """Luma weighs green and blue differently, so a swapped order changes psnry."""
    first = np.zeros((32, 32, 3), np.uint8)
    blue, red = first.copy(), first.copy()
    blue[..., 0] = 100
    red[..., 2] = 100
    assert calculate_pyiqa(blue, first, metric='psnry') > calculate_pyiqa(red, first, metric='psnry') + 5


def test_without_reference_and_through_basicsr(pyiqa, pictures):
    img = pictures[0]
    gray = np.dstack([img[..., 0]] * 3)
    counts = np.bincount(img[..., 0].ravel(), minlength=256) / img[..., 0].size
    entropy = -(counts[counts > 0] * np.log2(counts[counts > 0])).sum()
    assert calculate_pyiqa(gray, metric='entropy') == pytest.approx(entropy, abs=0.05)
    opt = {'type': 'calculate_pyiqa', 'metric': 'entropy', 'crop_border': 0}
    value = calculate_metric({'img': img, 'img2': pictures[1]}, opt)
    assert type(value) is float and value == calculate_pyiqa(img, metric='entropy')


def test_built_once_for_each_set_of_options(pyiqa):
    assert build_pyiqa('psnr') is build_pyiqa('psnr')
    assert build_pyiqa('psnr') is not build_pyiqa('psnr', test_y_channel=True)


@pytest.mark.parametrize('metric, message', [
    ('psnrr', r"no metric 'psnrr' for single images in pyiqa; nearest: psnr"),
    ('nique', r'nearest: .*niqe'),
    ('fid', r"no metric 'fid' for single images"),
])
def test_unknown_names(pyiqa, pictures, metric, message):
    with pytest.raises(ValueError, match=message) as error:
        calculate_pyiqa(*pictures, 0, metric=metric)
    assert '\n' not in str(error.value)


def test_missing_reference(pyiqa, pictures):
    with pytest.raises(ValueError, match="'ssim' needs a reference image"):
        calculate_pyiqa(pictures[0], metric='ssim')


def test_missing_weights(pyiqa, pictures, monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError('unreachable')

    monkeypatch.setattr(pyiqa, 'create_metric', refuse)
    monkeypatch.setattr(module, '_networks', {})
    with pytest.raises(ValueError, match="weights of 'brisque' could not be fetched .*unreachable"):
        calculate_pyiqa(*pictures, 0, metric='brisque')


def test_missing_package(pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyiqa', None)
    monkeypatch.setattr(module, '_networks', {})
    with pytest.raises(ValueError, match=r'pip install "lowlight_cyclegan\[pyiqa\]" .*non-commercial') as error:
        calculate_pyiqa(*pictures, 0)
    assert '\n' not in str(error.value)
