import pytest
from clips import av

from lowlight_cyclegan.commands import main
from lowlight_cyclegan.enhance.enhancer import Enhancer
from lowlight_cyclegan.video import pipeline


@pytest.fixture
def calls(monkeypatch):
    """Arguments of the library's call, which does nothing."""
    found = []
    monkeypatch.setattr(Enhancer, 'from_pretrained', lambda *args, **kwargs: None)
    monkeypatch.setattr(pipeline, 'enhance_video', lambda *args, **kwargs: found.append(args) or 3)
    return found


@pytest.mark.parametrize('name, expected', [
    ('a.mp4', 'a_enhanced.mp4'), ('b.MKV', 'b_enhanced.MKV'), ('c.h264', 'c_enhanced.mkv'),
    ('d.webp', 'd_enhanced.mkv'), ('2024-05-01T12:30:45.mp4', '2024-05-01T12:30:45_enhanced.mp4')])
def test_default_output(tmp_path, calls, capsys, name, expected):
    (tmp_path / name).write_bytes(b'x')
    main(['video', str(tmp_path / name)])
    assert calls[0][1] == str(tmp_path / expected)
    assert capsys.readouterr().out == f'{tmp_path / expected}: 3 frames\n'


def test_errors_are_one_line(tmp_path, calls, refusal, monkeypatch):
    source = tmp_path / 'a.mp4'
    source.write_bytes(b'x')
    assert refusal(main, ['video', str(tmp_path / 'none.mp4')]) == f'{tmp_path / "none.mp4"}: no such file'
    for error, line in ((ValueError('a.mp4: is wrong'), 'a.mp4: is wrong'),
                        (av.InvalidDataError(1, 'bad data\nmore', 'x'), 'the same command continues'),
                        (OSError(28, 'No space left on device'), 'No space left on device; the same command')):

        def fails(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr(pipeline, 'enhance_video', fails)
        assert line in refusal(main, ['video', str(source)])
