import json
import numpy as np
import pytest
import torch
from clips import toy_enhancer

from lowlight_cyclegan.enhance import modes
from lowlight_cyclegan.video.smoother import TemporalSmoother


def test_smoother_follows_slowly_within_a_scene_and_at_once_at_a_cut():
    smoother = TemporalSmoother(seconds=1.0)
    dark, other = torch.full((1, 3, 24, 32), 0.1), torch.rand(1, 3, 24, 32)
    assert smoother.begin(dark, 0.0)
    assert smoother.smooth('a', torch.tensor([1.0])).item() == pytest.approx(1)
    assert not smoother.begin(dark * 1.1, 0.5)
    weight = 1 - np.exp(-0.5)
    assert smoother.smooth('a', torch.tensor([2.0])).item() == pytest.approx(2**weight)
    state = json.loads(json.dumps(smoother.state_dict()))
    assert not smoother.begin(dark, 2.5)
    expected = smoother.smooth('a', torch.tensor([4.0]))
    resumed = TemporalSmoother(seconds=1.0)
    resumed.load_state_dict(state)
    resumed.begin(dark, 2.5)
    assert torch.equal(resumed.smooth('a', torch.tensor([4.0])), expected)
    assert smoother.begin(other, 2.6)
    assert smoother.smooth('a', torch.tensor([7.0])).item() == pytest.approx(7)


def test_output_follows_the_input_and_adds_no_change_of_its_own():
    smoother, x = TemporalSmoother(seconds=1e9), torch.full((1, 3, 24, 32), 0.1)
    shown = []
    for i, (gain, own) in enumerate([(1, 0.4), (1, 0.5), (1.1, 0.5), (1.1, 0.3), (1.0, 0.3)]):
        smoother.begin(x * gain, i / 25)
        shown.append(smoother.limit(x * gain, torch.full_like(x, own)).mean().item())
    # kept with a steady input, up with a brighter one, not against the input's direction, down with a darker one
    assert shown[0] == pytest.approx(shown[1]) == pytest.approx(0.4)
    assert shown[2] == pytest.approx(0.44) and shown[3] == pytest.approx(0.44)
    assert shown[4] == pytest.approx(0.4)


@pytest.mark.parametrize('mode', ['direct', 'exact', 'guided'])
def test_smoother_leaves_the_network_as_it_was(monkeypatch, mode):
    monkeypatch.setattr(modes.enhance_with_fallback, '__defaults__', (24, 600, print, None))  # small strips
    enhancer, x = toy_enhancer(), torch.rand(1, 3, 40, 48) * 0.2
    expected = enhancer.enhance(x, mode=mode)
    smoother = TemporalSmoother()
    first = smoother.enhance(enhancer, x, 0.0, mode=mode).image
    second = smoother.enhance(enhancer, x * 1.1, 0.04, mode=mode).image
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-5)  # nothing to smooth yet
    assert torch.equal(enhancer.enhance(x, mode=mode), expected)
    alone = enhancer.enhance(x * 1.1, mode=mode)
    assert second.mean() > alone.mean() * 1.02  # the curve has not adapted to the brighter frame yet
