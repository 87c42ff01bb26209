import json
import os
import pytest
import signal
import subprocess
import sys
from clips import frames, packets, same, times, toy_enhancer, write_clip

from lowlight_cyclegan.video.pipeline import enhance_video


# A process of its own, for FFmpeg's threads do not come along with a fork: what it would wait for.
KILLED = """
import os, signal, sys
from clips import toy_enhancer
from lowlight_cyclegan.video.pipeline import enhance_video

source, output, alive = sys.argv[1:]
enhancer, count = toy_enhancer(), [0]
enhance = enhancer.enhance_with_report

def enhance_or_die(*args):
    count[0] += 1
    if count[0] > int(alive):
        os.kill(os.getpid(), signal.SIGKILL)
    return enhance(*args)

enhancer.enhance_with_report = enhance_or_die
enhance_video(source, output, enhancer, segment=7)
"""


def test_killed_run_continues_to_the_same_pictures(tmp_path):
    source = write_clip(tmp_path / 'dark.mp4')
    enhance_video(source, str(tmp_path / 'whole.mp4'), toy_enhancer(), segment=7)
    output = str(tmp_path / 'resumed.mp4')
    for alive in (3, 9, 8):  # frames before the next kill -9: in the first, the second and the third segment
        code = subprocess.run([sys.executable, '-c', KILLED, str(source), output, str(alive)],
                              env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}).returncode
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


def begun_by_an_older_version(output):
    """Folder as version 0.1 left it."""
    os.mkdir(output + '.parts')
    with open(output + '.parts/manifest.json', 'w') as f:
        json.dump({'settings': {'input': 'a', 'strength': 1.0}, 'mode': 'direct', 'base': 0, 'complete': False,
                   'segments': [{'frames': 7, 'hash': 'b', 'duration': 1, 'smoother': {}}]}, f)
    with open(output + '.parts/00000.nut', 'wb') as f:
        f.write(b'old')


def test_segments_of_an_older_version_begin_anew_with_a_line(tmp_path):
    source, output, lines = write_clip(tmp_path / 'dark.mp4', seconds=0.5), str(tmp_path / 'out.mp4'), []
    begun_by_an_older_version(output)
    assert enhance_video(source, output, toy_enhancer(), say=lines.append) == 6
    assert lines == [f'{output}.parts: was begun by another version of this program; it begins anew']
    assert sorted(os.listdir(tmp_path)) == ['dark.mp4', 'out.mp4']


@pytest.mark.parametrize('content', ['{', '[]', '{"a": 1}', 'null'])
def test_folders_of_others_are_left_alone(tmp_path, content):
    source, output = write_clip(tmp_path / 'dark.mp4', seconds=0.5), str(tmp_path / 'out.mp4')
    os.mkdir(output + '.parts')
    (tmp_path / 'out.mp4.parts' / 'manifest.json').write_text(content)
    with pytest.raises(ValueError, match='is in the way, and no folder of an interrupted run'):
        enhance_video(source, output, toy_enhancer(), overwrite=True)
    assert (tmp_path / 'out.mp4.parts' / 'manifest.json').read_text() == content
