import numpy as np
import os
import pytest
from clips import Mirror, av, frames, light, remux, times, toy_enhancer, write_clip, write_pictures
from PIL import Image

from lowlight_cyclegan.video.pipeline import enhance_video


def spoil(path, kind):
    data = path.read_bytes()
    if kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'codec':
        path.write_bytes(data.replace(b'avc1', b'zzz1').replace(b'avcC', b'zzzC'))
    elif kind == 'noise':
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    else:
        path.write_bytes(data[:len(data) * 2 // 3])


@pytest.mark.parametrize('name, kind, message', [
    ('dark.mp4', 'truncated', 'is no video that FFmpeg can read, or damaged'),
    ('dark.mkv', 'truncated', 'is truncated: 2.* s of 3.* s are there'),
    ('dark.mp4', 'noise', 'is no video'),
    ('dark.mp4', 'codec', 'its video is of a codec that FFmpeg does not know'),
    ('dark.mkv', 'empty', 'is empty'),
])
def test_broken_files_get_one_line(tmp_path, name, kind, message):
    write_clip(tmp_path / name, seconds=3)
    spoil(tmp_path / name, kind)
    with pytest.raises(ValueError, match=message) as error:
        enhance_video(str(tmp_path / name), str(tmp_path / 'out.mp4'), toy_enhancer())
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
        with pytest.raises(ValueError, match=message):
            enhance_video(path, target, enhancer)
    for wrong, message in ((dict(strength=2), 'strength is from 0 to 1'), (dict(crf=52), 'crf of h264 is from 0 to 51'),
                           (dict(codec='ffv1', crf=5), 'lossless'), (dict(smoothing=-1), 'smoothing is a number')):
        with pytest.raises(ValueError, match=message):
            enhance_video(source, output, enhancer, **wrong)
    assert sorted(os.listdir(tmp_path)) == ['dark.mp4', 'hdr.mkv', 'link.mp4', 'sound.mp4']


def garbage_at(index):
    """A change of :func:`clips.remux`."""
    garbage = np.random.default_rng(0).bytes(400)
    return lambda packet, i: garbage if packet.stream.type == 'video' and i == index else packet


@pytest.mark.parametrize('codec, pix_fmt', [('libx264', 'yuv420p'), ('mjpeg', 'yuvj420p'), ('mpeg4', 'yuv420p')])
def test_goes_on_past_a_damaged_frame_if_told_so(tmp_path, codec, pix_fmt):
    clip = write_clip(tmp_path / 'clip.mp4', seconds=1, codec=codec, pix_fmt=pix_fmt)
    source, output = remux(clip, tmp_path / 'damaged.mkv', garbage_at(5)), str(tmp_path / 'out.mkv')
    with pytest.raises(ValueError, match='is damaged at 0.[3-5] s .*; --skip-damaged goes on'):
        enhance_video(source, output, Mirror())
    lines = []
    assert enhance_video(source, output, Mirror(), skip_damaged=True, say=lines.append) == 11
    assert len(frames(output)) == 11
    assert len(lines) == 1 and 'without 1 of the 12 packets of its video, which cannot be decoded' in lines[0]


@pytest.mark.parametrize('codec, pix_fmt', [
    ('libx264', 'yuv420p'), ('libx265', 'yuv420p'), ('mpeg4', 'yuv420p'), ('libvpx', 'yuv420p'),
    ('libvpx-vp9', 'yuv420p'), ('ffv1', 'yuv420p'), ('prores', 'yuv422p10le')])
@pytest.mark.parametrize('index', [9, 11])
def test_damage_at_the_end_is_found_too(tmp_path, codec, pix_fmt, index):
    """Where a decoder with several threads holds frames back, and says nothing of those that it cannot decode."""
    options = {'x265-params': 'log-level=none'} if codec == 'libx265' else {}
    pictures = [np.full((48, 64, 3), 20 + 3 * i, np.uint8) for i in range(12)]
    suffix = 'mp4' if codec in ('libx264', 'libx265', 'mpeg4') else 'mkv'  # which keeps no decoding timestamps
    clip = write_pictures(tmp_path / f'clip.{suffix}', pictures, codec=codec, pix_fmt=pix_fmt, options=options)
    enhancer = Mirror()
    assert enhance_video(clip, str(tmp_path / 'whole.mkv'), enhancer) == 12
    source, output = remux(clip, tmp_path / 'damaged.mkv', garbage_at(index)), str(tmp_path / 'out.mkv')
    lines = []
    with pytest.raises(ValueError, match='is damaged at .*; --skip-damaged goes on'):
        enhance_video(source, output, enhancer, say=lines.append)
    assert not any(' packets ' in line for line in lines) and not os.path.exists(output)
    assert enhance_video(source, output, enhancer, skip_damaged=True, say=lines.append) >= index
    assert 'which cannot be decoded' in lines[-1]


def test_packets_without_frames_are_no_damage(tmp_path, monkeypatch):
    """The hidden frames of VP8 are packets of their own; a last one that the decoder passes over gets a line."""
    pictures = [np.roll(np.kron(np.random.default_rng(0).integers(0, 99, (8, 10, 3)), np.ones((6, 6, 1))), i, axis=1)
                .astype(np.uint8) for i in range(30)]
    options = {'auto-alt-ref': '1', 'lag-in-frames': '16', 'arnr-maxframes': '5', 'deadline': 'good'}
    clip = write_pictures(tmp_path / 'clip.webm', pictures, codec='libvpx', options=options)
    lines = []
    assert enhance_video(clip, str(tmp_path / 'out.mkv'), Mirror(), say=lines.append) == 30 and not lines

    clip = write_pictures(tmp_path / 'clip.mkv', pictures[:12], codec='mpeg2video', options={})
    source = remux(clip, tmp_path / 'cut.mkv', lambda packet, i: b'\0' if i == 11 else packet)
    assert enhance_video(source, str(tmp_path / 'cut_out.mkv'), Mirror(), say=lines.append) == 11
    assert lines == [f'{source}: its last packets give no frame; perhaps they are damaged']


def test_damage_is_found_before_the_first_frame_is_enhanced(tmp_path):
    source = remux(write_clip(tmp_path / 'clip.mp4', seconds=1), tmp_path / 'damaged.mkv', garbage_at(9))
    enhancer = Mirror()
    enhancer.enhance_with_report = None
    with pytest.raises(ValueError, match='is damaged at 0.[78] s'):
        enhance_video(source, str(tmp_path / 'out.mkv'), enhancer)
    assert sorted(os.listdir(tmp_path)) == ['clip.mp4', 'damaged.mkv']


def test_truncated_video_to_its_end_if_told_so(tmp_path):
    write_clip(tmp_path / 'dark.mkv', seconds=3)
    spoil(tmp_path / 'dark.mkv', 'truncated')
    lines, output = [], str(tmp_path / 'out.mkv')
    count = enhance_video(str(tmp_path / 'dark.mkv'), output, Mirror(), skip_damaged=True, say=lines.append)
    assert 20 < count < 36 and len(frames(output)) == count
    assert len(lines) == 1 and 'is truncated' in lines[0]


@pytest.mark.parametrize('codec, name', [('libx264', 'h264'), ('libx265', 'hevc')])
def test_raw_streams_without_timestamps(tmp_path, codec, name):
    options = {'x265-params': 'log-level=none'} if name == 'hevc' else {}
    pictures = [np.full((48, 64, 3), 20 + i, np.uint8) for i in range(12)]
    source = write_pictures(tmp_path / f'raw.{name}', pictures, rate=25, codec=codec, options=options, format=name)
    output = str(tmp_path / 'out.mp4')
    assert enhance_video(source, output, Mirror()) == 12
    assert [float(time) for time in times(output)[0]] == pytest.approx([i / 25 for i in range(12)])


def test_names_with_a_colon_are_no_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write_clip(tmp_path / 'plain.mp4', seconds=0.5)
    os.rename(source, '2024-05-01T12:30:45.mp4')
    assert enhance_video('2024-05-01T12:30:45.mp4', 'out:1.mp4', Mirror()) == 6
    assert sorted(os.listdir()) == ['2024-05-01T12:30:45.mp4', 'out:1.mp4']


def test_interlaced_video_is_deinterlaced(tmp_path):
    pictures = []
    for i in range(8):  # a bar that has moved from field to field
        picture = np.full((48, 64, 3), 30, np.uint8)
        for field in (0, 1):
            picture[field::2, 8 + 4 * (2 * i + field):][:, :6] = 30
            picture[field::2, 4 * i + 2 * field:4 * i + 2 * field + 8] = 120
        pictures.append(picture)
    source = write_pictures(tmp_path / 'in.mkv', pictures, options={'x264-params': 'tff=1', 'crf': '4'})
    with av.open(source) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    lines, output = [], str(tmp_path / 'out.mkv')
    assert enhance_video(source, output, Mirror(), codec='ffv1', say=lines.append) == 8
    assert lines == [f'{source}: is interlaced; the output is deinterlaced, with as many frames']
    assert times(output)[0] == times(source)[0]

    def combing(path):
        middle = np.array([picture for _, picture in frames(path)][2:-2]).astype(float)
        return np.abs(middle[:, 1:-1] - (middle[:, :-2] + middle[:, 2:]) / 2).mean()

    assert combing(output) < 0.35 * combing(source)


@pytest.mark.parametrize('suffix', ['webp', 'gif', 'png'])
def test_animated_pictures_are_videos(tmp_path, suffix):
    pictures = [Image.fromarray(np.full((33, 47, 3), 10 * i + 5, np.uint8)) for i in range(5)]
    source, output = str(tmp_path / f'a.{suffix}'), str(tmp_path / 'a.mkv')
    options = {'lossless': True} if suffix == 'webp' else {}
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=[100, 50, 100, 120, 70], **options)
    assert enhance_video(source, output, Mirror()) == 5
    assert [round(float(time), 3) for time in times(output)[0]] == [0, 0.1, 0.15, 0.25, 0.37]
    np.testing.assert_allclose(light(output), [5, 15, 25, 35, 45], atol=1.5)


def test_single_pictures_are_left_to_enhance(tmp_path):
    for suffix in ('webp', 'jpg', 'png'):
        path = str(tmp_path / f'a.{suffix}')
        Image.new('RGB', (48, 40)).save(path)
        with pytest.raises(ValueError, match='is a picture, not a video: lowlight-cyclegan enhance takes it'):
            enhance_video(path, str(tmp_path / 'a.mkv'), Mirror())
