import colorsys
import math
import numpy as np
import pytest
from basicsr.metrics import calculate_psnr, calculate_ssim
from skimage.metrics import structural_similarity

from lowlight_cyclegan.evaluate.measure import measure_pair
from lowlight_cyclegan.evaluate.metrics import METRICS, applicable, gt_mean, select_metrics
from lowlight_cyclegan.evaluate.protocol import Protocol

PLAIN = Protocol(lpips='none')


def measured(output, target, protocol=PLAIN, *names):
    return measure_pair(output, target, protocol, {name: METRICS[name] for name in names})


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 256, (30, 40, 3), dtype=np.uint8) // divisor for divisor in (1, 2))
    return x, (y // 2 + x // 2).astype(np.uint8)


def test_figures_are_those_of_basicsr(images):
    x, y = images
    assert measured(x, y, PLAIN, 'psnr')['psnr'] == calculate_psnr(x, y, 0)
    assert measured(x, y, PLAIN, 'ssim')['ssim'] == calculate_ssim(x, y, 0)


def test_psnr_has_a_cap(images):
    x, y = images
    capped = Protocol(psnr_cap=40)
    assert measured(x, x, PLAIN, 'psnr')['psnr'] == math.inf and measured(x, x, capped, 'psnr')['psnr'] == 40
    assert measured(x, y, capped, 'psnr') == measured(x, y, PLAIN, 'psnr')
    assert 'at most 40 dB' in capped.describe() and 'at most' not in PLAIN.describe()


def test_uniform_window_is_that_of_scikit_image(images):
    x, y = images
    uniform = Protocol(ssim='uniform')
    assert measured(x, y, uniform, 'ssim')['ssim'] == pytest.approx(structural_similarity(x, y, channel_axis=2))


def test_gt_mean_takes_the_exposure_out():
    img = np.random.default_rng(0).integers(40, 90, (8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(gt_mean(img * 0.3, img), img, rtol=1e-5)
    assert gt_mean(np.zeros_like(img), img).max() == 0
    assert gt_mean(img, np.full_like(img, 255)).max() == 255


def flat(r, g, b):
    return np.full((16, 16, 3), (b, g, r), np.uint8)


def test_colour_error_of_two_patches():
    """sRGB red against green, 86.6 by published calculators of CIEDE2000."""
    assert measured(flat(255, 0, 0), flat(0, 255, 0), PLAIN, 'delta_e')['delta_e'] == pytest.approx(86.6, abs=0.1)
    assert measured(flat(9, 99, 199), flat(9, 99, 199), PLAIN, 'delta_e')['delta_e'] == 0


def test_chroma_follows_saturation():
    strong, pale = (flat(*(round(255 * v) for v in colorsys.hsv_to_rgb(0.6, s, 0.7))) for s in (0.8, 0.3))
    gray = flat(90, 90, 90)
    assert measured(pale, strong, PLAIN, 'chroma')['chroma'] < 0.5
    assert measured(strong, strong, PLAIN, 'chroma')['chroma'] == 1
    assert measured(gray, strong, PLAIN, 'chroma')['chroma'] < 0.01
    noise = np.random.default_rng(0).integers(-20, 21, (64, 64, 3))
    noisy = np.clip(np.full((64, 64, 3), strong[0, 0]) + noise, 0, 255).astype(np.uint8)
    wide = np.tile(strong, (4, 4, 1))
    assert measured(noisy, wide, PLAIN, 'chroma')['chroma'] == pytest.approx(1, abs=0.05)  # noise is no colour


def test_brightness_and_clipping():
    half = flat(100, 100, 100)
    half[:8, :, 0] = 255
    values = measured(half, flat(40, 40, 40), PLAIN, 'brightness', 'clipped')
    assert values['brightness'] == pytest.approx((half.mean() - 40) / 255) and values['clipped'] == 50


def test_what_needs_a_reference():
    paired, single = applicable(METRICS, True), applicable(METRICS, False)
    assert {'psnr', 'lpips'} <= paired.keys() - single.keys()
    assert {'brightness', 'clipped'} <= single.keys() - paired.keys()
    assert {'chroma', 'niqe'} <= paired.keys() & single.keys() and paired.keys() | single.keys() == METRICS.keys()


def test_metrics_of_pyiqa(images, refusal):
    pytest.importorskip('pyiqa')
    x, y = images
    metrics = select_metrics(Protocol(extra=('psnr', 'ssimc')))
    assert list(metrics)[-2:] == ['pyiqa_psnr', 'ssimc'] and metrics['ssimc'].data == 'paired'
    value = measure_pair(x, y, PLAIN, {'p': metrics['pyiqa_psnr']})['p']
    assert value == pytest.approx(calculate_psnr(x, y, 0), abs=1e-3)
    assert 'nosuch' in refusal(select_metrics, Protocol(extra=('nosuch', )))
