"""The journal on file systems without locks, and of older versions."""
import errno
import fcntl
import json
import numpy as np
import os
import pytest
import stat
import torch

from lowlight_cyclegan.files import temporary_prefix
from lowlight_cyclegan.photos.formats import ImageError, Photo
from lowlight_cyclegan.photos.journal import Journal, Settings
from lowlight_cyclegan.photos.pipeline import Pipeline
from lowlight_cyclegan.photos.plan import plan
from lowlight_cyclegan.photos.read import read_image
from lowlight_cyclegan.photos.report import ANEW, Report
from lowlight_cyclegan.photos.write import write_image
from lowlight_cyclegan.enhance.enhancer import Result


class Inverter:
    device, max_strength = torch.device('cpu'), 1.0

    def enhance_with_report(self, image, strength=1.0, mode=None):
        return Result(np.iinfo(image.dtype).max - image, 'direct', '')


def write_photos(folder, count=3):
    folder.mkdir()
    for i in range(count):
        write_image(folder / f'{i}.png', Photo(np.full((8, 8, 3), 10 + i, np.uint8)))
    return folder


def run(folder, output, settings):
    jobs = plan([str(folder)], str(output))
    journal = Journal(output)
    try:
        return [entry['reason'] or entry['result'] for entry in
                Pipeline(Inverter(), settings, {output: journal}).run(jobs)]
    finally:
        journal.close()


@pytest.mark.parametrize('code', [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_share_without_locks(tmp_path, monkeypatch, caplog, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, 'flock', refuse)
    folder, output = write_photos(tmp_path / 'in'), tmp_path / 'out'
    assert run(folder, output, Settings('none')) == ['ok'] * 3
    assert [record.getMessage() for record in caplog.records] == [
        f'{output}: cannot be locked ({os.strerror(code)}); let no other run write there']
    assert run(folder, output, Settings('none')) == ['finished before'] * 3


def test_a_share_whose_folders_cannot_be_flushed(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, 'Invalid argument')
        real(descriptor)

    monkeypatch.setattr(os, 'fsync', fsync)
    assert run(write_photos(tmp_path / 'in'), tmp_path / 'out', Settings('none')) == ['ok'] * 3


def test_what_another_run_may_be_writing_is_left_alone(tmp_path, monkeypatch):
    from lowlight_cyclegan import commands as cli
    from lowlight_cyclegan.enhance import enhancer
    folder, output = write_photos(tmp_path / 'in'), tmp_path / 'out'
    output.mkdir()
    part = output / f'{temporary_prefix(output / "0.png")}12345678.part'
    part.write_bytes(b'half')

    class Loaded(Inverter):
        precision = 'fp32'

        @classmethod
        def from_pretrained(cls, name, options=None, **kwargs):
            return cls()

        def fingerprint(self):
            return 'none'

    monkeypatch.setattr(enhancer, 'Enhancer', Loaded)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, 'flock', lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, 'No locks available')))
        cli.main(['enhance', str(folder), '-o', str(output)])
        assert part.exists()
    cli.main(['enhance', str(folder), '-o', str(output)])
    assert not part.exists()


def test_a_lock_that_another_holds_still_counts(tmp_path):
    journal = Journal(tmp_path / 'out')
    with pytest.raises(ImageError, match='another run is writing there'):
        Journal(tmp_path / 'out')
    journal.close()


# Written by commit 9d078fe: the names in the lines, and the digest of the settings
OLD_DIGEST = '18f46e22834c2522'


def test_a_journal_of_an_older_version_continues(tmp_path):
    folder, output = write_photos(tmp_path / 'in'), tmp_path / 'out'
    assert Settings('none').digest() == OLD_DIGEST
    run(folder, output, Settings('none'))
    lines = [json.loads(line) for line in (output / 'enhance_journal.jsonl').read_text().splitlines()]
    assert {tuple(sorted(line)) for line in lines} == {('input', 'output', 'settings', 'sha256')}
    assert {line['settings'] for line in lines} == {OLD_DIGEST}


def test_photos_that_are_made_anew_are_counted(tmp_path):
    folder, output = write_photos(tmp_path / 'in'), tmp_path / 'out'
    run(folder, output, Settings('of an older version'))
    (output / '2.png').unlink()
    assert run(folder, output, Settings('none')) == [ANEW, ANEW, 'ok']
    assert read_image(output / '0.png').pixels[0, 0, 0] == 245
    jobs = plan([str(folder)], str(output))
    report = Report(jobs)
    report.add({job: dict(input=str(job.source), output=str(job.target), result='ok', reason=reason)
                for job, reason in zip(jobs, (ANEW, ANEW, None))})
    from lowlight_cyclegan.photos.report import sentence
    assert sentence(report.summary()) == f'3 enhanced (2 {ANEW}), 0 finished before, 0 failed'
