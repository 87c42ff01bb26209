import math
import numpy as np
import pytest
import torch
import warnings

from lowlight_cyclegan.metrics import calculate_niqe_fast, calculate_niqe_tolerant, fast_metrics
from lowlight_cyclegan.metrics.fast_metrics import calculate_psnr_fast, calculate_ssim_fast
from basicsr.metrics import calculate_metric, calculate_niqe, calculate_psnr, calculate_ssim

PAIRS = [(calculate_psnr, calculate_psnr_fast), (calculate_ssim, calculate_ssim_fast)]


@pytest.fixture(scope='module')
def photos():
    """Three pictures of 240x300, the first one dark and noisy, the second with clipped highlights."""
    data = pytest.importorskip('skimage.data')
    crop = (slice(30, 270), slice(60, 360))
    images = [data.astronaut()[crop], data.coffee()[crop], data.chelsea()[crop]]
    rng = np.random.default_rng(0)
    dark = (images[0] / 255)**2.2 * 40 + rng.normal(0, 2, images[0].shape)
    bright = images[1] * 2.5
    return [np.ascontiguousarray(i.clip(0, 255).astype(np.uint8)) for i in (*images, dark, bright)]


@pytest.mark.parametrize('options', [
    {'crop_border': 0}, {'crop_border': 5}, {'crop_border': 0, 'test_y_channel': True},
    {'crop_border': 3, 'input_order': 'CHW'}
], ids=str)
@pytest.mark.parametrize(('slow', 'fast'), PAIRS, ids=['psnr', 'ssim'])
def test_equals_basicsr_on_photos(photos, slow, fast, options):
    for img, img2 in zip(photos, photos[1:] + photos[:1]):
        if options.get('input_order') == 'CHW':
            img, img2 = img.transpose(2, 0, 1), img2.transpose(2, 0, 1)
        assert fast(img, img2, **options) == pytest.approx(slow(img, img2, **options), rel=1e-4)
        assert type(fast(img, img2, **options)) is float


@pytest.mark.parametrize(('slow', 'fast'), PAIRS, ids=['psnr', 'ssim'])
def test_pictures_that_differ_little_or_not(photos, slow, fast):
    almost = photos[0].copy()
    almost[100, 100] ^= 1
    assert fast(photos[0], almost, 0) == pytest.approx(slow(photos[0], almost, 0), rel=1e-4)
    assert fast(photos[0], photos[0], 0) == pytest.approx(slow(photos[0], photos[0], 0), rel=1e-6)
    flat = np.full_like(photos[0], 3)
    assert fast(flat, flat + 1, 0) == pytest.approx(slow(flat, flat + 1, 0), rel=1e-4)
    with pytest.raises(AssertionError, match='shapes are different'):
        fast(photos[0], photos[0][:50], 0)


@pytest.mark.parametrize('options', [
    {}, {'convert_to': 'gray'}, {'crop_border': 7}, {'input_order': 'CHW'}, {'input_order': 'HW'}], ids=str)
def test_niqe_equals_basicsr_on_photos(photos, options):
    options = {'crop_border': 0, **options}
    for img in photos if options == {'crop_border': 0} else photos[:1]:
        if options.get('input_order') == 'CHW':
            img = img.transpose(2, 0, 1)
        elif options.get('input_order') == 'HW':
            img = np.ascontiguousarray(img[..., 1])
        assert calculate_niqe_fast(img, **options) == pytest.approx(calculate_niqe(img, **options), rel=1e-4)


def test_equals_basicsr_on_lol(lol_root):
    import cv2
    for name in ('1', '748'):
        low, high = (cv2.imread(str(lol_root / 'eval15' / part / f'{name}.png')) for part in ('low', 'high'))
        for slow, fast in PAIRS:
            assert fast(low, high, 0) == pytest.approx(slow(low, high, 0), rel=1e-4)
        assert calculate_niqe_fast(high, 0) == pytest.approx(calculate_niqe(high, 0), rel=1e-4)


def test_batches_equal_single_images(photos):
    batch = torch.stack([torch.from_numpy(i[..., ::-1].copy()).permute(2, 0, 1) for i in photos])  # BGR -> RGB
    other = batch.flip(0)
    for name in ('psnr', 'ssim'):
        for test_y_channel in (False, True):
            values = getattr(fast_metrics, name)(batch, other, 2, test_y_channel)
            single = [getattr(fast_metrics, f'calculate_{name}_fast')(a, b, 2, test_y_channel=test_y_channel)
                      for a, b in zip(photos, photos[::-1])]
            assert values.dtype == torch.float64 and values.tolist() == pytest.approx(single, rel=1e-5)
    batch[1] = 0  # undefined, and no harm to the others
    values = fast_metrics.niqe(batch).tolist()
    assert math.isnan(values.pop(1))
    assert values == pytest.approx([calculate_niqe_fast(i, 0) for i in (photos[0], *photos[2:])], rel=1e-6)


def test_undefined_niqe_is_nan(photos):
    photo = photos[0]
    half = photo.copy()
    half[:, 96:] = 0  # one column of blocks is left
    dots = np.zeros_like(photo)
    dots[::50, ::50] = 1
    images = [np.zeros_like(photo), np.full_like(photo, 255), dots, photo[:95], photo[:, :40], photo[:1, :1],
              photo[:100, :100], half[:190], half]
    with warnings.catch_warnings():
        warnings.simplefilter('error', RuntimeWarning)
        values = [calculate_niqe_fast(img, 0) for img in images]
    assert values == pytest.approx([calculate_niqe_tolerant(img, 0) for img in images], rel=1e-4, nan_ok=True)
    assert math.isnan(values[0]) and math.isnan(calculate_niqe_fast(photo[:100], 3))


def test_they_are_metrics_of_basicsr(photos):
    data = {'img': photos[0], 'img2': photos[1]}
    for name in ('psnr', 'ssim', 'niqe'):
        slow, fast = (calculate_metric(data, {'type': f'calculate_{name}{end}', 'crop_border': 0})
                      for end in ('', '_fast'))
        assert fast == pytest.approx(slow, rel=1e-4)


def test_aggd_finds_the_shape_that_basicsr_finds():
    """Over shapes and asymmetries, with a fit that has left its range among them."""
    from basicsr.metrics.niqe import estimate_aggd_param
    rng = np.random.default_rng(1)
    samples = np.stack([np.sign(x := rng.normal(size=900)) * np.abs(x)**power * np.where(x < 0, skew, 1)
                        for power in (0.05, 0.3, 1, 2, 5) for skew in (0.2, 1, 3)]).astype(np.float32)
    alpha, left, right, _ = fast_metrics._aggd(torch.from_numpy(samples))
    expected = np.array([estimate_aggd_param(s) for s in samples])
    assert np.abs(alpha.numpy() - expected[:, 0]).max() < 0.0011  # one step of the search
    assert len(set(expected[:, 0])) > 8
    close = np.abs(alpha.numpy() - expected[:, 0]) < 1e-9
    assert close.sum() >= 13
    np.testing.assert_allclose(torch.stack([left, right], 1).numpy()[close], expected[close, 1:], rtol=1e-5)
