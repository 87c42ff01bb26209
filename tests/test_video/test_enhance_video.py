import numpy as np
import os
import pytest
import signal
import subprocess
import sys
import time
from clips import (
    Mirror, av, frames, jitter, light, packets, same, times, toy_enhancer, write_clip, write_pictures)
from fractions import Fraction

from lowlight_cyclegan.video.pipeline import enhance_video


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.mov'])
def test_keeps_sound_timestamps_and_descriptions(tmp_path, suffix):
    source = write_clip(tmp_path / f'dark{suffix}', seconds=1, gaps=[1, 1, 3, 2], rotation=90)
    output = str(tmp_path / f'bright{suffix}')
    assert enhance_video(source, output, toy_enhancer(), segment=5) == 12
    assert times(output) == times(source)
    assert packets(output, 'audio') == packets(source, 'audio')
    if suffix != '.mkv':  # it stores no durations
        assert [p[2] for p in packets(output, 'video')] == [p[2] for p in packets(source, 'video')]
    with av.open(source) as one, av.open(output) as other:
        assert abs(one.duration - other.duration) <= 1000  # microseconds
        assert other.metadata['title'] == 'a dark clip'
        assert other.streams.video[0].metadata.get('language') == one.streams.video[0].metadata.get('language')
        assert other.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert next(other.decode(video=0)).rotation == next(one.decode(video=0)).rotation != 0
    before, after = (np.mean([picture.mean() for _, picture in frames(path)]) for path in (source, output))
    assert after > 3 * before
    assert sorted(os.listdir(tmp_path)) == [f'bright{suffix}', f'dark{suffix}']


@pytest.mark.parametrize('head', ['gain', 'tanh', 'exposure'])
@pytest.mark.parametrize('flicker', [0.05, 0.0])
def test_output_is_no_more_restless_than_the_input(tmp_path, head, flicker):
    source, output = write_clip(tmp_path / 'dark.mp4', sound=None, flicker=flicker), str(tmp_path / 'bright.mkv')
    enhance_video(source, output, toy_enhancer(head), codec='ffv1')
    assert jitter(output, 12) <= jitter(source, 12)


def scene(top, seed=0, noise=2.0, count=1):
    """Pictures (48, 64, 3) of one view with noise, values up to ``top``."""
    rng = np.random.default_rng(seed)
    view = np.kron(rng.random((6, 8, 3)), np.ones((8, 8, 1))) * top
    return [view + noise * rng.standard_normal(view.shape) for _ in range(count)]


def pixels(pictures):
    return [picture.clip(0, 255).round().astype(np.uint8) for picture in pictures]


@pytest.mark.parametrize('head', ['gain', 'tanh', 'exposure'])
def test_black_fades_and_daylight_stay_what_they_are(tmp_path, head):
    black, dark = [np.zeros((48, 64, 3))] * 6, scene(60, count=30)
    rise = [picture * (i + 1) / 12 for i, picture in enumerate(scene(60, 0, count=12))]
    day, white = scene(255, 1, count=6), [np.full((48, 64, 3), 255.0)] * 6
    parts = [black, rise, dark, day, dark[:6], black, white, dark[:6], rise[::-1], black]
    source = write_pictures(tmp_path / 'in.mkv', pixels(sum(parts, [])))
    alone = write_pictures(tmp_path / 'alone.mkv', pixels(dark))
    for path in (source, alone):
        enhance_video(path, path.replace('.mkv', '_out.mkv'), toy_enhancer(head), codec='ffv1')
    before, after = light(source), light(tmp_path / 'in_out.mkv')
    bounds = np.cumsum([len(part) for part in parts])[:-1]
    old, new = np.split(before, bounds), np.split(after, bounds)
    steady = light(tmp_path / 'alone_out.mkv').mean()
    assert steady > old[2].mean() + 20
    for i in (0, 5, 9):
        assert new[i].max() < 2
    assert np.abs(new[6] - old[6]).max() < 3 and np.abs(new[3] - old[3]).max() < (20 if head == 'exposure' else 12)
    for fade in (new[1], new[8][::-1]):
        assert np.diff(fade).min() > -2 and fade[0] < 0.2 * steady and fade.max() < steady + 4
    for i in (2, 4, 7):
        assert np.abs(new[i] - steady).max() < 5


@pytest.mark.parametrize('codec', ['h264', 'ffv1'])
@pytest.mark.parametrize('colours', [(2, 0), (1, 1), (5, 2), (9, 1)])  # (matrix, range), ITU-T H.273
def test_colours_survive(tmp_path, colours, codec):
    source = write_clip(tmp_path / 'dark.mp4', seconds=0.25, sound=None, colours=colours, pix_fmt='yuv444p', noise=0)
    output = str(tmp_path / 'out.mkv')
    enhance_video(source, output, Mirror(), codec=codec, crf=4 if codec == 'h264' else None)
    decoded = []
    for path in (source, output):
        with av.open(path) as container:
            pictures = list(container.decode(video=0))
        assert int(pictures[0].colorspace) == colours[0]
        assert (int(pictures[0].color_range) == 2) == (colours[1] == 2)
        decoded.append(np.stack([picture.to_ndarray(format='yuv444p').astype(int) for picture in pictures]))
    assert np.abs(decoded[0] - decoded[1]).mean() < (1 if codec == 'ffv1' else 1.5)


def test_subtitles_go_where_the_container_takes_them(tmp_path):
    (tmp_path / 'lines.srt').write_text('1\n00:00:00,000 --> 00:00:00,400\nIt is dark.\n')
    clip, source = write_clip(tmp_path / 'clip.mkv', seconds=0.5), str(tmp_path / 'dark.mkv')
    with av.open(clip) as one, av.open(str(tmp_path / 'lines.srt')) as other, av.open(source, 'w') as out:
        targets = [(c, s, out.add_stream_from_template(s)) for c in (one, other) for s in c.streams]
        for container, stream, target in targets:
            container.seek(0)
            for packet in container.demux(stream):
                if packet.dts is not None:
                    packet.stream = target
                    out.mux(packet)
    lines = []
    enhance_video(source, str(tmp_path / 'out.mkv'), Mirror(), say=lines.append)
    assert packets(tmp_path / 'out.mkv', 'subtitle') == packets(source, 'subtitle')
    assert packets(tmp_path / 'out.mkv', 'audio') == packets(source, 'audio')
    assert not lines
    output = str(tmp_path / 'out.mp4')
    enhance_video(source, output, Mirror(), say=lines.append)
    assert lines == [f'{output}: without stream 2 (subtitle), which .mp4 does not take']


def test_odd_sizes_and_deep_samples(tmp_path):
    source = write_clip(tmp_path / 'dark.mkv', seconds=0.25, size=(65, 49), sound=None, pix_fmt='yuv444p10le')
    lines, output = [], str(tmp_path / 'out.mp4')
    enhance_video(source, output, toy_enhancer(), say=lines.append)
    assert lines == [f'{source}: 10 bits to a sample; the output has 8']
    assert frames(output)[0][1].shape == (49, 65, 3)


@pytest.mark.parametrize('codec, suffix', [('hevc', '.mp4'), ('vp9', '.webm'), ('ffv1', '.mkv')])
def test_codecs(tmp_path, codec, suffix):
    source = write_clip(tmp_path / 'dark.mkv', seconds=0.5, sound=None)
    output = str(tmp_path / f'out{suffix}')
    enhance_video(source, output, toy_enhancer(), codec=codec, segment=4)
    assert len(frames(output)) == 6
    with av.open(output) as container:
        assert codec in container.streams.video[0].codec_context.codec.canonical_name


@pytest.mark.full
def test_ten_seconds_killed_and_resumed(tmp_path, capsys):
    source = write_clip(tmp_path / 'dark.mp4', seconds=10, rate=25, size=(160, 120))

    def start(output, **kwargs):
        command = [sys.executable, '-m', 'lowlight_cyclegan', 'video', source, '-o', str(output), '--model', 'lite']
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)

    whole, resumed = tmp_path / 'whole.mp4', tmp_path / 'resumed.mp4'
    process = start(whole)
    assert process.communicate()[0].splitlines()[-1] == f'{whole}: 250 frames' and process.returncode == 0
    kills = 0
    for wait in (0, 2):
        process = start(resumed)
        while not (tmp_path / 'resumed.mp4.parts' / 'part.nut').exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills == 2
    process = start(resumed)
    process.communicate()
    assert process.returncode == 0
    assert same(frames(resumed), frames(whole))
    assert times(whole) == times(source)
    assert packets(whole, 'audio') == packets(source, 'audio')
    with av.open(source) as one, av.open(str(whole)) as other:
        assert abs(one.duration - other.duration) <= 1000
    before, after = jitter(source, 125), jitter(whole, 125)
    with capsys.disabled():
        print(f' jitter {before:.4f} -> {after:.4f}, ratio {after / before:.2f}', end='')
    assert after <= before
