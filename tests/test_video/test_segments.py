import json
import os
import pytest
import signal
from clips import frames, packets, same, times, toy_enhancer, write_clip

from lowlight_cyclegan.video.pipeline import enhance_video


def test_killed_run_continues_to_the_same_pictures(tmp_path, forked):
    source = write_clip(tmp_path / 'dark.mp4')
    enhance_video(source, str(tmp_path / 'whole.mp4'), toy_enhancer(), segment=7)
    output = str(tmp_path / 'resumed.mp4')
    for alive in (3, 9, 8):  # frames before the next kill -9: in the first, the second and the third segment

        def killed(alive=alive):
            enhancer, count = toy_enhancer(), [0]
            enhance = enhancer.enhance_with_report

            def enhance_or_die(*args):
                count[0] += 1
                if count[0] > alive:
                    os.kill(os.getpid(), signal.SIGKILL)
                return enhance(*args)

            enhancer.enhance_with_report = enhance_or_die
            enhance_video(source, output, enhancer, segment=7)

        code, _ = forked(killed)
        assert code == -signal.SIGKILL
        assert not os.path.exists(output)
    with open(output + '.parts/manifest.json') as f:
        assert [entry['frames'] for entry in json.load(f)['segments']] == [7, 7]
    with pytest.raises(ValueError, match='differs in strength: --overwrite starts anew'):
        enhance_video(source, output, toy_enhancer(), strength=0.5, segment=7)
    with open(output + '.parts/00001.nut', 'r+b') as f:  # a disk that forgot: made again
        f.truncate(100)
    enhance_video(source, output, toy_enhancer(), segment=7)
    assert same(frames(output), frames(tmp_path / 'whole.mp4'))
    assert times(output) == times(source)
    assert packets(output, 'audio') == packets(source, 'audio')
    assert not os.path.exists(output + '.parts')


def test_segments_do_not_show(tmp_path):
    """The smoothing goes on across them: lossless output is that of a single segment."""
    source = write_clip(tmp_path / 'dark.mkv', seconds=1, sound=None)
    for name, segment in (('one.mkv', 100), ('many.mkv', 4)):
        enhance_video(source, str(tmp_path / name), toy_enhancer(), codec='ffv1', segment=segment)
    assert same(frames(tmp_path / 'one.mkv'), frames(tmp_path / 'many.mkv'))
