import pytest
import torch

from lowlight_cyclegan.archs.srgb import to_linear
from lowlight_cyclegan.data.camera import KINDS, Camera


@pytest.fixture
def photos():
    torch.manual_seed(0)
    coarse = torch.rand(16, 3, 4, 6)
    return torch.nn.functional.interpolate(coarse, (48, 72), mode='bilinear') * 0.9 + 0.05


def only(kind, **kwargs):
    return Camera(kinds={kind: 1}, **kwargs)


@pytest.mark.parametrize('kind', KINDS)
def test_pictures_are_8_bit_and_stops_are_told(photos, kind):
    dark, stops = only(kind)(photos)
    assert dark.shape == photos.shape and stops.shape == (16, 1, 48, 72)
    assert torch.equal((dark * 255).round() / 255, dark) and 0 <= dark.min() and dark.max() <= 1
    assert stops.min() >= 0 and (kind == 'none') == (stops.max() == 0).item()


def test_without_noise_none_leaves_the_photograph(photos):
    assert (only('none', noise=0)(photos)[0] - photos).abs().max() <= 0.5 / 255 + 1e-6


def test_even_darkening_is_a_factor_in_linear_light(photos):
    torch.manual_seed(1)
    dark, stops = only('even', stops=3, noise=0)(photos)
    assert (stops.amax((1, 2, 3)) == stops.amin((1, 2, 3))).all() and stops.max() <= 3
    # The median over the batch leaves out pictures of lower contrast, and the white balance's few per cent.
    ratio = torch.log2(to_linear(photos).mean((1, 2, 3)) / to_linear(dark).mean((1, 2, 3)))
    assert (ratio - stops.flatten(1).mean(1)).median().abs() < 0.15


def test_a_ramp_runs_straight_across(photos):
    torch.manual_seed(2)
    _, stops = only('ramp', stops=0)(photos)
    second = stops[:, :, :, 2:] - 2 * stops[:, :, :, 1:-1] + stops[:, :, :, :-2]
    assert second.abs().max() < 1e-5 and (stops.amax((1, 2, 3)) >= 1).all() and stops.max() <= 5


def test_backlight_darkens_what_is_dark(photos):
    torch.manual_seed(3)
    _, stops = only('backlight', stops=0)(photos)
    luminance = photos.mean(1, keepdim=True)
    for picture, taken in zip(luminance, stops):
        dark = picture < picture.median()
        assert taken[dark].mean() > taken[~dark].mean()


def test_noise_grows_with_light_taken(photos):
    torch.manual_seed(4)
    grey = torch.full((64, 3, 32, 32), 0.5)
    dark, stops = only('even')(grey)
    light = to_linear(dark)
    noise = (light.std((2, 3)) / light.mean((2, 3)).clamp_min(1e-4)).mean(1)
    assert noise[stops.flatten(1)[:, 0] > 4].mean() > 2 * noise[stops.flatten(1)[:, 0] < 1.5].mean()


def test_noise_has_a_factor():
    grey = torch.full((64, 3, 32, 32), 0.5)
    deviations = []
    for noise in (0, 0.2, 1):
        torch.manual_seed(6)
        deviations.append(to_linear(only('even', stops=1, noise=noise)(grey)[0]).std((2, 3)).mean())
    assert deviations[0] == 0 and deviations[2] > 3 * deviations[1] > 0


def test_some_highlights_were_brighter_than_white(photos):
    """Brighter than a factor in linear light alone would leave them, and the shadows hardly so."""
    torch.manual_seed(7)
    photos = torch.cat([photos] * 4)
    photos[:, :, :8] = 1
    dark, stops = only('even', noise=0)(photos)
    excess = torch.log2(to_linear(dark[:, :, :8]).mean((1, 2, 3))) + stops.flatten(1).mean(1)
    brighter = (excess > 0.5) & (stops.flatten(1).mean(1) < 6)
    assert 0.05 < brighter.float().mean() < 0.4


def test_the_seed_decides(photos):
    torch.manual_seed(5)
    first = Camera()(photos)
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(first, Camera()(photos)))


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match='kinds: fog is not known'):
        Camera(kinds={'fog': 1})
