"""The fuzz (``fuzz.py``): a sample always, 500 cases of each kind with ``--full``; and that it finds what is planted.

FUZZ_SEED and FUZZ_CASES choose others.
"""
import os
import pytest
import subprocess
import sys
import time
from pathlib import Path

import fuzz
import patience
from lowlight_cyclegan import preflight
from lowlight_cyclegan import commands
from lowlight_cyclegan.models import LowLightCycleGANModel  # noqa: F401  (registers)
from lowlight_cyclegan.photos import pipeline
from lowlight_cyclegan.prepare.archive import ZipSource

SEED = int(os.environ.get('FUZZ_SEED', 0))
CASES = int(os.environ.get('FUZZ_CASES', 500))
SAMPLE = 8


@pytest.fixture(scope='module', autouse=True)
def libraries():
    fuzz.load_libraries()


def skip_without(kind):
    if kind == 'videos':
        pytest.importorskip('av', minversion='18')


@pytest.mark.parametrize('cases', [range(SAMPLE), pytest.param(range(SAMPLE, CASES), marks=pytest.mark.full)],
                         ids=['sample', 'full'])
@pytest.mark.parametrize('kind', fuzz.KINDS)
def test_nothing_but_results_and_refusals(kind, cases, tmp_path, capsys):
    skip_without(kind)
    faults, line = fuzz.fuzz(kind, cases, SEED, tmp_path / kind)
    with capsys.disabled():
        print(f'\n{line}')
    assert not faults, '\n'.join(map(str, faults))


def test_a_case_depends_on_its_number_and_the_seed_alone(tmp_path):
    outputs = []
    for i, (cases, seed) in enumerate([([3], 1), ([3, 2], 1), ([3], 2)]):
        shown = []
        fuzz.fuzz('archives', cases, seed, tmp_path / str(i), show=lambda text, to=shown: to.append(text),
                  every=True)
        outputs.append(shown[0])
    assert outputs[0] == outputs[1] != outputs[2]


def raise_for(error):

    def fault(*args, **kwargs):
        raise error

    return fault


def write_half(path, data):
    with open(path, 'wb') as f:
        f.write(data[:len(data) // 2])


def plant_half_a_file(patch):
    patch.setattr(pipeline, 'write_bytes', write_half)


def plant_leftovers(patch):
    from lowlight_cyclegan.video.segments import Segments
    patch.setattr(Segments, 'remove', lambda self: None)


def plant_a_traceback(patch):
    patch.setattr(preflight, 'check', raise_for(KeyError('planted')))


def plant_silence(patch):
    patch.setattr(commands, 'fail', raise_for(SystemExit(1)))


def plant_a_hang(patch):
    patch.setattr(ZipSource, 'read', lambda self, name: time.sleep(600))


@pytest.mark.parametrize('kind, plant, words', [
    ('photos', plant_half_a_file, 'half a file: '),
    ('videos', plant_leftovers, 'leaves out.'),
    ('options', plant_a_traceback, 'traceback'),
    ('checkpoints', plant_silence, 'fails without a line'),
    ('archives', plant_a_hang, 'hangs: no end within '),
])
def test_finds_planted_faults(kind, plant, words, tmp_path, monkeypatch):
    skip_without(kind)
    plant(monkeypatch)
    for case in range(12):
        faults, _ = fuzz.fuzz(kind, [case], 0, tmp_path / f'{case}', timeout=8 if kind == 'archives' else fuzz.TIMEOUT)
        if faults:
            break
    fault, = faults
    assert fault.what.startswith(words), str(fault)
    assert f'{kind} --seed 0 --case {fault.case}: ' in str(fault) and fault.folder.is_dir() and fault.command


def forked(function):
    pid = os.fork()
    if not pid:
        os.setsid()
        try:
            function()
        finally:
            os._exit(7)
    return pid


def compute(seconds):
    while time.process_time() < seconds:
        pass


@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='no /proc')
def test_only_computing_and_waiting_count(monkeypatch):
    """A process that is ready and gets no processor has not used its time."""
    assert patience.wait(forked(lambda: None), 5) == 7
    assert patience.wait(forked(lambda: time.sleep(60)), 0.5) is None
    begin = time.process_time()
    assert patience.wait(forked(lambda: compute(begin + 60)), 0.5) is None
    monkeypatch.setattr(patience, '_session', lambda leader: (0.0, True))  # ready, and never let in
    assert patience.wait(forked(lambda: time.sleep(1)), 0.2) == 7


def test_what_a_case_started_ends_with_it(tmp_path):
    """Children in its session, which hold on to nothing of ours."""
    left = tmp_path / 'left'

    def leave_a_child():
        child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
        left.write_text(str(child.pid))

    assert patience.wait(forked(leave_a_child), 30) == 7
    deadline = time.monotonic() + 30
    while Path(f'/proc/{left.read_text()}').exists() and 'Z' not in Path(f'/proc/{left.read_text()}/stat').read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
