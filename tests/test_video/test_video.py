import json
import numpy as np
import os
import pytest
import signal
import subprocess
import sys
import time
import torch
from fractions import Fraction

from lowlight_cyclegan.archs import EMAResNetGenerator
from lowlight_cyclegan.enhance import modes
from lowlight_cyclegan.video import video
from lowlight_cyclegan.enhance.enhancer import Enhancer

av = pytest.importorskip('av', minversion='18')
LUMA = np.array([0.2126, 0.7152, 0.0722])


def toy_enhancer(head='gain', seed=0):
    torch.manual_seed(seed)
    network = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, aspp_width=8, upsample='resize', head=head)
    if head == 'gain':
        torch.nn.init.normal_(network.exposure.linear.weight, std=0.3)  # a tone curve that looks at its picture
        torch.nn.init.normal_(network.fine[4].weight, std=0.02)
    return Enhancer(network, device='cpu', precision='fp32')


def write_clip(path, seconds=2, rate=12, size=(64, 48), cut=True, sound='aac', codec='libx264', gaps=None, rotation=0,
               flicker=0.03, noise=3, pix_fmt='yuv420p', trc=None, colours=None, seed=0):
    """Dark moving picture with noise and flicker, another scene in its second half, and a tone."""
    rng = np.random.default_rng(seed)
    width, height = size
    frames = round(seconds * rate)
    options = {} if str(path).endswith('.mkv') else {'video_track_timescale': '12800'}
    scenes = [np.kron(rng.random((6, 8, 3)), np.ones((height // 6 + 1, width // 8 + 1, 1))) * top for top in (50, 25)]
    with av.open(str(path), 'w', options=options) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 12800)
        stream.options = {'crf': '12', 'preset': 'ultrafast'} if codec == 'libx264' else {}
        stream.metadata['language'] = 'deu'
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        if colours is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = colours
        if trc is not None:
            stream.codec_context.color_trc = trc
        if rotation:
            stream.set_display_rotation(rotation)
        audio = out.add_stream(sound, rate=16000) if sound else None
        out.metadata['title'] = 'a dark clip'
        pts = 0
        for i in range(frames):
            scene = np.roll(scenes[cut and i >= frames // 2], i % 8, axis=1)[:height, :width]
            picture = scene * (1 + flicker * rng.standard_normal()) + noise * rng.standard_normal((height, width, 3))
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format='rgb24')
            frame.pts, frame.time_base = pts, Fraction(1, 12800)
            pts += 12800 // rate * (gaps[i % len(gaps)] if gaps else 1)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio:
            tone = np.sin(np.arange(round(seconds * 16000)) * 0.2).astype(np.float32)
            for start in range(0, len(tone), 1024):
                frame = av.AudioFrame.from_ndarray(tone[None, start:start + 1024], format='fltp', layout='mono')
                frame.pts, frame.sample_rate, frame.time_base = start, 16000, Fraction(1, 16000)
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return str(path)


def packets(path, kind):
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [(p.pts * stream.time_base, p.dts * stream.time_base, p.duration, bytes(p))
                for p in container.demux(stream) if p.size]


def frames(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format='rgb24')) for frame in container.decode(video=0)]


def times(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)], stream.time_base


def same(one, other):
    return len(one) == len(other) and all(t == u and np.array_equal(a, b) for (t, a), (u, b) in zip(one, other))


def jitter(path, cut=None):
    """Mean absolute change of the mean luminance from frame to frame, relative to its mean; not across the cut."""
    light = np.array([(picture @ LUMA).mean() for _, picture in frames(path)])
    scenes = np.split(light, [cut]) if cut else [light]
    return float(np.mean([np.abs(np.diff(scene)).mean() / scene.mean() for scene in scenes]))


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.mov'])
def test_keeps_sound_timestamps_and_descriptions(tmp_path, suffix):
    source = write_clip(tmp_path / f'dark{suffix}', seconds=1, gaps=[1, 1, 3, 2], rotation=90)
    output = str(tmp_path / f'bright{suffix}')
    assert video.enhance_video(source, output, toy_enhancer(), segment=5) == 12
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


@pytest.mark.parametrize('head', ['gain', 'tanh'])
@pytest.mark.parametrize('flicker', [0.05, 0.0])
def test_output_is_no_more_restless_than_the_input(tmp_path, head, flicker):
    source, output = write_clip(tmp_path / 'dark.mp4', sound=None, flicker=flicker), str(tmp_path / 'bright.mkv')
    video.enhance_video(source, output, toy_enhancer(head), codec='ffv1')
    assert jitter(output, 12) <= jitter(source, 12)


def test_killed_run_continues_to_the_same_pictures(tmp_path, forked):
    source = write_clip(tmp_path / 'dark.mp4')
    video.enhance_video(source, str(tmp_path / 'whole.mp4'), toy_enhancer(), segment=7)
    output = str(tmp_path / 'resumed.mp4')
    for alive in (3, 9, 8):  # frames before the next kill -9: in the first, the second and the third segment

        def killed(alive=alive):
            enhancer, count = toy_enhancer(), [0]
            enhance = enhancer.enhance

            def enhance_or_die(*args):
                count[0] += 1
                if count[0] > alive:
                    os.kill(os.getpid(), signal.SIGKILL)
                return enhance(*args)

            enhancer.enhance = enhance_or_die
            video.enhance_video(source, output, enhancer, segment=7)

        code, _ = forked(killed)
        assert code == -signal.SIGKILL
        assert not os.path.exists(output)
    with open(output + '.parts/manifest.json') as f:
        assert [entry['frames'] for entry in json.load(f)['segments']] == [7, 7]
    with pytest.raises(video.VideoError, match='differs in strength: --overwrite starts anew'):
        video.enhance_video(source, output, toy_enhancer(), strength=0.5, segment=7)
    with open(output + '.parts/00001.nut', 'r+b') as f:  # a disk that forgot: made again
        f.truncate(100)
    video.enhance_video(source, output, toy_enhancer(), segment=7)
    assert same(frames(output), frames(tmp_path / 'whole.mp4'))
    assert times(output) == times(source)
    assert packets(output, 'audio') == packets(source, 'audio')
    assert not os.path.exists(output + '.parts')


def test_segments_do_not_show(tmp_path):
    """The smoothing goes on across them: lossless output is that of a single segment."""
    source = write_clip(tmp_path / 'dark.mkv', seconds=1, sound=None)
    for name, segment in (('one.mkv', 100), ('many.mkv', 4)):
        video.enhance_video(source, str(tmp_path / name), toy_enhancer(), codec='ffv1', segment=segment)
    assert same(frames(tmp_path / 'one.mkv'), frames(tmp_path / 'many.mkv'))


def test_smoother_follows_slowly_within_a_scene_and_at_once_at_a_cut():
    smoother = video.TemporalSmoother(seconds=1.0)
    dark, other = torch.full((1, 3, 24, 32), 0.1), torch.rand(1, 3, 24, 32)
    assert smoother.begin(dark, 0.0)
    assert smoother.smooth('a', torch.tensor([1.0])).item() == pytest.approx(1)
    assert not smoother.begin(dark * 1.1, 0.5)
    weight = 1 - np.exp(-0.5)
    assert smoother.smooth('a', torch.tensor([2.0])).item() == pytest.approx(2**weight)
    state = json.loads(json.dumps(smoother.state_dict()))
    assert not smoother.begin(dark, 2.5)
    expected = smoother.smooth('a', torch.tensor([4.0]))
    resumed = video.TemporalSmoother(seconds=1.0)
    resumed.load_state_dict(state)
    resumed.begin(dark, 2.5)
    assert torch.equal(resumed.smooth('a', torch.tensor([4.0])), expected)
    assert smoother.begin(other, 2.6)
    assert smoother.smooth('a', torch.tensor([7.0])).item() == pytest.approx(7)


def test_output_follows_the_input_and_adds_no_change_of_its_own():
    smoother, x = video.TemporalSmoother(seconds=1e9), torch.full((1, 3, 24, 32), 0.1)
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
    smoother = video.TemporalSmoother()
    with smoother.attached(enhancer.network):
        first = smoother.enhance(enhancer, x, 0.0, mode=mode)
        second = smoother.enhance(enhancer, x * 1.1, 0.04, mode=mode)
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-5)  # nothing to smooth yet
    assert torch.equal(enhancer.enhance(x, mode=mode), expected)
    alone = enhancer.enhance(x * 1.1, mode=mode)
    assert second.mean() > alone.mean() * 1.02  # the curve has not adapted to the brighter frame yet


def spoil(path, kind):
    data = path.read_bytes()
    if kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'noise':
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    else:
        path.write_bytes(data[:len(data) * 2 // 3])


@pytest.mark.parametrize('name, kind, message', [
    ('dark.mp4', 'truncated', 'is no video that FFmpeg can read, or damaged'),
    ('dark.mkv', 'truncated', 'is truncated: 2.* s of 3.* s are there'),
    ('dark.mp4', 'noise', 'is no video'),
    ('dark.mkv', 'empty', 'is empty'),
])
def test_broken_files_get_one_line(tmp_path, name, kind, message):
    write_clip(tmp_path / name, seconds=3)
    spoil(tmp_path / name, kind)
    with pytest.raises(video.VideoError, match=message) as error:
        video.enhance_video(str(tmp_path / name), str(tmp_path / 'out.mp4'), toy_enhancer())
    assert '\n' not in str(error.value)
    assert os.listdir(tmp_path) == [name]


def test_what_is_refused(tmp_path):
    enhancer = toy_enhancer()
    source, output = write_clip(tmp_path / 'dark.mp4', seconds=0.5), str(tmp_path / 'out.mp4')
    hdr = write_clip(tmp_path / 'hdr.mkv', seconds=0.25, sound=None, trc=16)
    with av.open(str(tmp_path / 'sound.mp4'), 'w') as out, av.open(source) as container:
        target = out.add_stream_from_template(container.streams.audio[0])
        for packet in container.demux(audio=0):
            if packet.dts is not None:
                packet.stream = target
                out.mux(packet)
    (tmp_path / 'link.mp4').symlink_to(source)
    for path, target, message in (
        (source, source, 'is the input'),
        (source, str(tmp_path / 'link.mp4'), 'is the input'),
        (source, hdr, 'exists already'),
        (source, str(tmp_path / 'out.avi'), 'suffix must be one of'),
        (source, str(tmp_path / 'out.webm'), 'does not take the sound'),
        (str(tmp_path / 'none.mp4'), output, 'no such file'),
        (str(tmp_path), output, 'is a folder'),
        (hdr, output, r'is HDR \(PQ\)'),
        (str(tmp_path / 'sound.mp4'), output, 'has no video stream'),
    ):
        with pytest.raises(video.VideoError, match=message):
            video.enhance_video(path, target, enhancer)
    for wrong, message in ((dict(strength=2), 'strength is from 0 to 1'), (dict(crf=52), 'crf of h264 is from 0 to 51'),
                           (dict(codec='ffv1', crf=5), 'lossless'), (dict(smoothing=-1), 'smoothing is a number')):
        with pytest.raises(video.VideoError, match=message):
            video.enhance_video(source, output, enhancer, **wrong)
    assert sorted(os.listdir(tmp_path)) == ['dark.mp4', 'hdr.mkv', 'link.mp4', 'sound.mp4']


class Mirror:
    """Enhances nothing."""
    network, device, mode, precision, last_mode = torch.nn.Identity(), torch.device('cpu'), 'auto', 'fp32', 'direct'
    self_ensemble, denoise = False, 0.0

    def fingerprint(self):
        return ''

    def enhance(self, x, strength, mode):
        return x


@pytest.mark.parametrize('codec', ['h264', 'ffv1'])
@pytest.mark.parametrize('colours', [(2, 0), (1, 1), (5, 2), (9, 1)])  # (matrix, range), ITU-T H.273
def test_colours_survive(tmp_path, colours, codec):
    source = write_clip(tmp_path / 'dark.mp4', seconds=0.25, sound=None, colours=colours, pix_fmt='yuv444p', noise=0)
    output = str(tmp_path / 'out.mkv')
    video.enhance_video(source, output, Mirror(), codec=codec, crf=4 if codec == 'h264' else None)
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
    video.enhance_video(source, str(tmp_path / 'out.mkv'), Mirror(), say=lines.append)
    assert packets(tmp_path / 'out.mkv', 'subtitle') == packets(source, 'subtitle')
    assert packets(tmp_path / 'out.mkv', 'audio') == packets(source, 'audio')
    assert not lines
    output = str(tmp_path / 'out.mp4')
    video.enhance_video(source, output, Mirror(), say=lines.append)
    assert lines == [f'{output}: without stream 2 (subtitle), which .mp4 does not take']


def test_odd_sizes_and_deep_samples(tmp_path):
    source = write_clip(tmp_path / 'dark.mkv', seconds=0.25, size=(65, 49), sound=None, pix_fmt='yuv444p10le')
    lines, output = [], str(tmp_path / 'out.mp4')
    video.enhance_video(source, output, toy_enhancer(), say=lines.append)
    assert lines == [f'{source}: 10 bits to a sample; the output has 8']
    assert frames(output)[0][1].shape == (49, 65, 3)


@pytest.mark.parametrize('codec, suffix', [('hevc', '.mp4'), ('vp9', '.webm'), ('ffv1', '.mkv')])
def test_codecs(tmp_path, codec, suffix):
    source = write_clip(tmp_path / 'dark.mkv', seconds=0.5, sound=None)
    output = str(tmp_path / f'out{suffix}')
    video.enhance_video(source, output, toy_enhancer(), codec=codec, segment=4)
    assert len(frames(output)) == 6
    with av.open(output) as container:
        assert codec in container.streams.video[0].codec_context.codec.canonical_name


COMMAND = """
import argparse
import lowlight_cyclegan
lowlight_cyclegan.register()
from lowlight_cyclegan.enhance import modes
from lowlight_cyclegan.video import video
parser = argparse.ArgumentParser()
video.add_arguments(parser)
video.run(parser.parse_args())
"""


@pytest.mark.full
def test_ten_seconds_killed_and_resumed(tmp_path, capsys):
    source = write_clip(tmp_path / 'dark.mp4', seconds=10, rate=25, size=(160, 120))

    def start(output, **kwargs):
        command = [sys.executable, '-c', COMMAND, source, '-o', str(output), '--model', 'lite']
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
