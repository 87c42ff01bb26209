import numpy as np
import pytest
from clips import av

from lowlight_cyclegan.video.timeline import Timeline, read_timeline

STEP = 0.04


def shares(light, cuts=()):
    times = [STEP * i for i in range(len(light))]
    return Timeline(times, [level / 255 for level in light], [i in cuts for i in range(len(light))]).fades()


@pytest.mark.parametrize('noise', [0.0, 0.02])
def test_fades_from_and_to_black(noise):
    rise = np.linspace(0, 40, 26)
    light = np.concatenate([[0] * 5, rise, [40] * 20, rise[::-1], [0] * 3])
    light *= 1 + noise * np.random.default_rng(0).standard_normal(len(light))
    found = np.array(shares(light))
    lit = light > 1.5
    np.testing.assert_allclose(found[lit], np.minimum(light / 40, 1)[lit], atol=3 * noise + 1e-9)


@pytest.mark.parametrize('light', [
    [0] * 5 + [40] * 30,  # a cut from black
    [40] * 30 + [0] * 5,
    [20] * 10 + list(range(20, 80)),  # a scene that brightens
    [3] * 50,  # a dark scene
    [0, 0, 30, 31, 32, 33, 34] + [35] * 20,
    [40, 2] * 10,  # strobe light
])
def test_what_is_no_fade(light):
    assert min(shares(light)) > 0.8


def test_fade_ends_where_another_scene_begins():
    light = [0, 0] + list(range(2, 22, 2)) + [80] * 20
    assert shares(light, cuts=[12]) == pytest.approx([1, 1] + [i / 20 for i in range(2, 22, 2)] + [1] * 20)


def test_fade_at_the_very_start():
    assert shares(list(range(2, 42, 2)) + [40] * 20)[:3] == pytest.approx([0.05, 0.1, 0.15])


@pytest.mark.parametrize('pix_fmt', ['yuv420p', 'yuvj420p', 'rgb24', 'yuv422p10le', 'gray'])
def test_light_and_cuts_of_frames(pix_fmt):
    rng = np.random.default_rng(0)
    scenes = [np.kron(rng.integers(0, 90, (6, 8, 1)), np.ones((8, 8, 3))).astype(np.uint8) for _ in range(2)]
    pictures = [scenes[0] * 0, scenes[0], scenes[0], scenes[1], scenes[1]]
    frames = []
    for i, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format='rgb24').reformat(format=pix_fmt)
        frame.pts, frame.time_base = 7 + i, 1
        frames.append(frame)
    timeline = read_timeline(frames)
    assert timeline.cuts == [False, False, False, True, False] and timeline.base == 7
    assert timeline.times == [7.0, 8.0, 9.0, 10.0, 11.0]
    np.testing.assert_allclose(timeline.light, [p.mean() / 255 for p in pictures], atol=0.012)
