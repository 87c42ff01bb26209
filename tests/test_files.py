import hashlib
import os
import pytest
import subprocess
import sys
from pathlib import Path

from lowlight_cyclegan import files

ROOT = Path(__file__).resolve().parents[1]


def test_file_is_replaced_and_nothing_is_left(tmp_path):
    path = tmp_path / ('n' * 250)  # a longer name would not fit
    files.atomic_write(path, b'old')
    files.atomic_write(str(path), memoryview(b'new'), durable=False)
    assert path.read_bytes() == b'new' and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize('call', ['fsync', 'replace'])
def test_failure_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / 'file'
    path.write_bytes(b'old')

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match='No space'):
        files.atomic_write(path, b'new')
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['file']


def test_temporary_names_begin_with_the_prefix(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, 'replace', lambda source, target: seen.append(os.path.basename(source)))
    files.atomic_write(tmp_path / 'a.png', b'')
    assert seen[0].startswith(files.temporary_prefix('a.png')) and seen[0].endswith('.part')
    assert files.temporary_prefix('a.png') != files.temporary_prefix('b.png')


def test_hash(tmp_path):
    (tmp_path / 'file').write_bytes(bytes(range(256)) * 5000)
    assert files.file_sha256(tmp_path / 'file') == hashlib.sha256(bytes(range(256)) * 5000).hexdigest()


def test_memory_is_plausible():
    assert 10**7 < files.available_memory() < 10**14


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / 'a.state').write_bytes(b'')
    (tmp_path / '.note.part').write_bytes(b'')
    code = ('import os, signal, sys; from lowlight_cyclegan import files\n'
            'os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n'
            "files.atomic_write(sys.argv[1], b'half')")
    subprocess.run([sys.executable, '-c', code, str(tmp_path / '4.state')], env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert len(os.listdir(tmp_path)) == 3
    files.remove_temporary(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ['.note.part', 'a.state']
