import numpy as np
import os
import pytest
from clips import av, toy_enhancer, write_clip

from lowlight_cyclegan.video.pipeline import enhance_video


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
