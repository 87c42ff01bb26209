import json
import numpy as np
import pytest
import torch
from clips import toy_enhancer
from typing import NamedTuple

from lowlight_cyclegan.video.smoother import TemporalSmoother, keeps_white


class Prediction(NamedTuple):
    stops: torch.Tensor
    grid: torch.Tensor


def prediction(value):
    return Prediction(torch.tensor([[value, -value]]), torch.full((1, 3, 4, 4), value))


def test_predictions_follow_slowly_within_a_scene_and_at_once_at_a_cut():
    smoother = TemporalSmoother(seconds=1.0)
    dark, other = torch.full((1, 3, 24, 32), 0.1), torch.rand(1, 3, 24, 32)
    assert smoother.begin(dark, 0.0)
    assert smoother.adapt(None, prediction(1.0)).grid.mean() == 1
    assert not smoother.begin(dark, 0.5)
    weight = 1 - np.exp(-0.5)
    applied = smoother.adapt(None, prediction(-2.0))
    assert isinstance(applied, Prediction)
    assert applied.stops[0].tolist() == pytest.approx([1 - 3 * weight, 3 * weight - 1])
    torch.testing.assert_close(applied.grid, torch.full((1, 3, 4, 4), 1 - 3 * weight))  # nothing moved
    state = json.loads(json.dumps(smoother.state_dict()))
    resumed = TemporalSmoother(seconds=1.0)
    resumed.load_state_dict(state)
    for one in (smoother, resumed):
        assert not one.begin(dark, 2.5)
    for value, again in zip(smoother.adapt(None, prediction(4.0)), resumed.adapt(None, prediction(4.0))):
        assert torch.equal(value, again)
    assert smoother.begin(other, 2.6)
    assert smoother.adapt(None, prediction(7.0)).stops[0].tolist() == [7, -7]
    assert smoother.adapt(None, None) is None


def test_light_that_goes_on_does_not_show_the_scene_too_bright():
    """With the exposure that a picture of its own would get, a scene is at 0.45 before and after."""
    smoother, shown = TemporalSmoother(), []
    light = [0.05] * 12 + list(np.linspace(0.05, 0.3, 24)) + [0.3] * 24
    for i, level in enumerate(light):
        smoother.begin(torch.full((1, 3, 24, 32), level), i / 24)
        stops = smoother.adapt(None, (torch.full((1, 1), np.log2(0.45 / level)), ))[0].item()
        shown.append(level * 2**stops)
    assert max(shown) < 1.3 * 0.45 and min(shown) > 0.4 and abs(shown[-1] - 0.45) < 0.03
    smoother, shown = TemporalSmoother(), []
    for i, level in enumerate(0.05 * (1 + 0.05 * np.random.default_rng(0).standard_normal(48))):
        smoother.begin(torch.full((1, 3, 24, 32), level), i / 24)
        shown.append(smoother.adapt(None, (torch.full((1, 1), np.log2(0.45 / level)), ))[0].item())
    assert np.std(np.diff(shown)) < 0.15 * np.log2(1.05) * np.sqrt(2)  # flicker is not followed


def test_maps_follow_what_moves():
    smoother = TemporalSmoother(seconds=10.0)
    x = torch.full((1, 3, 24, 32), 0.2)
    x[..., :8] = 0.4
    for time, shift in ((0.0, 0), (0.04, 2)):
        assert not smoother.begin(x.roll(shift, 3), time) or not time
        applied = smoother.adapt(None, prediction(float(shift)))
    assert applied.stops[0, 0] < 0.02 < 0.8 < applied.grid.mean()


def test_output_follows_the_input_and_adds_no_change_of_its_own():
    smoother, x = TemporalSmoother(seconds=1e9), torch.full((1, 3, 24, 32), 0.1)
    shown = []
    for i, (gain, own) in enumerate([(1, 0.4), (1, 0.5), (1.1, 0.5), (1.1, 0.3), (1.0, 0.3)]):
        smoother.begin(x * gain, i / 25)
        shown.append(smoother.limit(x * gain, torch.full_like(x, own)).mean().item())
    # kept with a steady input, up with a brighter one, not against the input's direction, down with a darker one
    assert shown[0] == pytest.approx(shown[1]) == pytest.approx(0.4)
    assert shown[2] == pytest.approx(0.44, abs=0.012) and shown[3] == pytest.approx(0.44, abs=0.012)
    assert shown[4] == pytest.approx(0.4, abs=0.012)


@pytest.mark.parametrize('mode', ['direct', 'guided'])
def test_smoother_leaves_the_network_as_it_was(mode):
    enhancer, x = toy_enhancer(), torch.rand(1, 3, 40, 48) * 0.2
    warm = x * torch.tensor([1.1, 1.0, 0.9]).view(3, 1, 1)
    expected, alone = enhancer.enhance(x, mode=mode), enhancer.enhance(warm, mode=mode)
    smoother = TemporalSmoother()
    first = smoother.enhance(enhancer, x, 0.0, mode=mode).image
    second = smoother.enhance(enhancer, warm, 0.04, mode=mode).image
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-5)  # nothing to smooth yet
    assert torch.equal(enhancer.enhance(x, mode=mode), expected)
    assert (second - alone).abs().mean() > 5e-4  # the white balance has not adapted yet


def test_what_keeps_white_is_told_from_what_does_not():
    assert not keeps_white(toy_enhancer('gain')) and keeps_white(toy_enhancer('exposure'))


def test_daylight_and_black_are_left_alone_where_the_network_gives_every_picture_one_brightness():
    enhancer = toy_enhancer('gain')
    for level, kept in ((0.001, True), (0.05, False), (0.55, True), (1.0, True)):
        x = torch.full((1, 3, 40, 48), level) + torch.rand(1, 3, 40, 48) * level / 100
        change = TemporalSmoother(keeps_white=False).enhance(enhancer, x.clamp(0, 1), 0.0).image - x
        assert (change.abs().mean() < 0.01) == kept


def test_fade_is_enhanced_as_its_scene_and_darkened_again():
    enhancer, x = toy_enhancer('gain'), torch.rand(1, 3, 40, 48) * 0.2
    smoother = TemporalSmoother()
    whole = smoother.enhance(enhancer, x, 0.0).image
    faded = smoother.enhance(enhancer, x * 0.25, 0.04, share=0.25).image
    torch.testing.assert_close(faded, whole * 0.25, rtol=0, atol=1e-4)
