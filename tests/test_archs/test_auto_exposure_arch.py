import torch

from lowlight_cyclegan.archs import AutoExposure


def test_exposure_starts_as_its_formula_and_ignores_the_inputs_exposure():
    torch.manual_seed(0)
    exposure = AutoExposure(mean=0.4, power=0.5)
    x = torch.rand(2, 3, 40, 60)
    u = (x + 0.5 / 255).sqrt()
    torch.testing.assert_close(exposure(x), 0.4 * u / u.mean((1, 2, 3), keepdim=True))
    bright, dark = exposure(0.9 * x), exposure(0.3 * x)
    torch.testing.assert_close(dark, bright, rtol=0, atol=0.03)  # apart from the half grey level


def test_prediction_sees_the_thumbnail_alone():
    torch.manual_seed(0)
    exposure = AutoExposure(mean=0.4, power=0.5)
    torch.nn.init.normal_(exposure.linear.weight)
    x = torch.rand(1, 3, 64, 96)
    thumbnail = exposure.thumbnail(x.repeat_interleave(3, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(thumbnail, x)
    mean, power, balance = exposure.predict(thumbnail)
    assert mean.shape == power.shape == (1, 1, 1, 1) and balance.shape == (1, 3, 1, 1)
    torch.testing.assert_close(balance.log().sum(), torch.tensor(0.0), rtol=0, atol=1e-6)
    u = exposure.brighten(x, power)
    torch.testing.assert_close(exposure(x), mean * balance * u / u.mean())


def test_exposure_is_predicted_within_its_limit():
    torch.manual_seed(0)
    exposure = AutoExposure(mean=0.4, power=0.5, limit=0.3)
    torch.nn.init.normal_(exposure.linear.weight, std=100)
    mean = exposure(torch.rand(8, 3, 40, 60)).mean((1, 2, 3)) / 0.4
    assert mean.std() > 0.01
    assert mean.max() < 1.6 and mean.min() > 0.6  # exp(0.3), and the white balance's share
