import cv2
import numpy as np
import pytest
import torch

from lowlight_cyclegan.archs import ExposureGain, ExposureGainFusion, GammaCurve


@pytest.fixture(scope='module')
def photo():
    """(1, 3, 120, 160), a dark photograph in [0, 1]."""
    image = pytest.importorskip('skimage.data').coffee()[100:340:2, 100:420:2]
    return torch.from_numpy((image * 0.3).round().transpose(2, 0, 1).astype(np.float32) / 255).unsqueeze(0)


@pytest.mark.parametrize('method', [GammaCurve, ExposureGain, ExposureGainFusion])
def test_brightens_any_size_within_range(photo, method):
    net = method()
    assert next(net.parameters(), None) is None
    for x in (photo, photo[..., :33, :47], torch.cat([photo, 0.5 * photo])):
        y = net(2 * x - 1)
        assert y.shape == x.shape and y.dtype == x.dtype and -1 <= y.min() and y.max() <= 1
        assert (y + 1).mean() / 2 > 1.1 * x.mean()


def test_images_of_a_batch_do_not_touch(photo):
    for method in (GammaCurve, ExposureGain, ExposureGainFusion):
        net = method()
        alone = torch.cat([net(2 * photo - 1), net(photo - 1)])
        torch.testing.assert_close(net(torch.cat([2 * photo - 1, photo - 1])), alone)


def test_gamma(photo):
    torch.testing.assert_close((GammaCurve(0.4)(2 * photo - 1) + 1) / 2, photo**0.4, rtol=0, atol=1e-5)


def decoded(x):
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055)**2.4)


def test_gain_reaches_its_mean_by_one_factor(photo):
    y = (ExposureGain()(2 * photo - 1) + 1) / 2
    assert y.mean().item() == pytest.approx(0.45, abs=1e-4)
    inside = (y < 0.999) & (photo > 0.02)  # neither clipped nor rounded away
    factor = (decoded(y) / decoded(photo))[inside]
    assert factor.min().item() == pytest.approx(factor.max().item(), rel=1e-3) and factor.min() > 1
    assert (ExposureGain(0.3)(2 * photo - 1) + 1).mean().item() / 2 == pytest.approx(0.3, abs=1e-4)


def test_gain_leaves_bright_and_black_alone(photo):
    bright = 0.5 + photo / 2
    torch.testing.assert_close(ExposureGain()(2 * bright - 1), 2 * bright - 1)
    assert ExposureGain()(torch.full((1, 3, 40, 40), -1.)).max() == -1


def test_fusion_is_opencvs(photo):
    gained = (ExposureGain()(2 * photo - 1) + 1) / 2
    dark, bright = ((255 * x[0]).round().byte().permute(1, 2, 0).numpy()[..., ::-1].copy() for x in (photo, gained))
    expected = np.clip(cv2.createMergeMertens().process([dark, bright]), 0, 1)[..., ::-1]
    fused = (ExposureGainFusion()(2 * photo - 1)[0].permute(1, 2, 0).numpy() + 1) / 2
    np.testing.assert_allclose(fused, expected, atol=1e-6)
