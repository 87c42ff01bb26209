import numpy as np
import pytest
import torch
from clips import LUMA, av
from torch.nn import functional as F

from lowlight_cyclegan.video.frames import enhance_frame, enhance_frame_guided


def frame(size, pixel_format='yuv420p', matrix=1, value_range=1, seed=0):
    """Dark smooth picture with edges, wider than the reduced copy."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 6, 9), np.float32)) * 0.25 + 0.02
    x = F.interpolate(coarse, size, mode='bicubic')[0].clamp(0, 1)
    x[:, size[0] // 3:size[0] // 2, size[1] // 4:size[1] // 2] *= 2
    pixels = (x * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    result = av.VideoFrame.from_ndarray(pixels, format='rgb24').reformat(
        format=pixel_format, dst_colorspace=matrix, dst_color_range=value_range)
    result.colorspace, result.color_range = matrix, value_range
    return result


def rgb(frame, like):
    return frame.reformat(format='rgb24', src_colorspace=int(like.colorspace), src_color_range=int(like.color_range)
                          ).to_ndarray().astype(float)


def brighten(x):
    """What a network may do: a curve, and another white balance at the left."""
    left = torch.linspace(0.9, 1.0, x.shape[3]).view(1, 1, 1, -1)
    return (x.clamp(0, 1)**0.5 * torch.cat([torch.ones_like(left), left, left], 1)).clamp(0, 1)


@pytest.mark.parametrize('pixel_format, size', [('yuv420p', (482, 720)), ('yuv444p', (481, 723))])
@pytest.mark.parametrize('matrix, value_range', [(1, 1), (5, 2), (9, 1)])
def test_guided_frame_is_that_of_the_whole(pixel_format, size, matrix, value_range):
    one = frame(size, pixel_format, matrix, value_range)
    whole, guided = (run(one, pixel_format, brighten) for run in (enhance_frame, enhance_frame_guided))
    assert (guided.width, guided.height, guided.format.name) == (size[1], size[0], pixel_format)
    difference = rgb(guided, one) - rgb(whole, one)
    assert np.sqrt((difference**2).mean()) < 2.5 and abs(difference.mean()) < 0.5
    assert rgb(guided, one).mean() > 1.7 * rgb(one, one).mean()


def test_what_changes_nothing_leaves_the_frame():
    for pixel_format, size in (('yuv420p', (482, 720)), ('yuv444p', (481, 723))):
        one = frame(size, pixel_format)
        kept = enhance_frame_guided(one, pixel_format, lambda x: x)
        assert np.abs(rgb(kept, one) - rgb(one, one)).mean() < 0.6


def test_guided_frame_stays_within_the_range_of_video():
    one = frame((480, 720))
    for value in (0.0, 1.0):
        flat = enhance_frame_guided(one, 'yuv420p', lambda x: torch.full_like(x, value))  # noqa: B023
        assert np.abs(rgb(flat, one) @ LUMA - 255 * value).max() < 1.5
    luma = np.frombuffer(flat.planes[0], np.uint8)
    assert luma.max() <= 235


def test_noise_is_not_amplified_more_than_by_the_curve():
    rng = np.random.default_rng(0)
    pixels = (25 + 3 * rng.standard_normal((480, 720, 1)) + np.zeros(3)).clip(0, 255).astype(np.uint8)
    one = av.VideoFrame.from_ndarray(pixels, format='rgb24').reformat(format='yuv420p', dst_colorspace=1)
    one.colorspace = 1
    noisy = rgb(enhance_frame_guided(one, 'yuv420p', lambda x: x**0.5), one)
    assert noisy.std() < 1.2 * (255 * np.sqrt(pixels / 255)).std()
