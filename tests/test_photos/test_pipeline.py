import json
import numpy as np
import os
import pytest
import signal
import subprocess
import sys
import threading
import time
import torch
from pathlib import Path
from PIL import Image

from lowlight_cyclegan import commands as cli
from lowlight_cyclegan.enhance import enhancer as enhancer_module
from lowlight_cyclegan.files import temporary_prefix
from lowlight_cyclegan.photos.formats import Photo
from lowlight_cyclegan.photos import pipeline
from lowlight_cyclegan.photos.journal import Journal, Settings
from lowlight_cyclegan.photos.plan import find_photos, plan
from lowlight_cyclegan.photos.read import read_image
from lowlight_cyclegan.photos.write import write_image

ROOT = Path(__file__).resolve().parents[2]


class Inverter:
    """An enhancer that needs no weights; what its class attribute names by a photo's first pixel happens to it."""
    precision, device, troubles, delay, max_strength = 'fp32', torch.device('cpu'), {}, 0.0, 1.0

    def __init__(self, name='lite'):
        self.name = name

    def fingerprint(self):
        return self.name

    def enhance_with_report(self, image, strength, mode):
        time.sleep(self.delay)
        trouble = self.troubles.get(int(image.flat[0]))
        if trouble:
            raise trouble
        mode = 'direct' if strength else None
        return enhancer_module.Result(np.iinfo(image.dtype).max - image, mode, 'there is no other')

    @classmethod
    def from_pretrained(cls, name, options=None, device=None, precision='auto', mode='auto', self_ensemble=False,
                        denoise=0):
        return cls(name)


@pytest.fixture(autouse=True)
def inverter(request, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'TORCHELASTIC_RUN_ID'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Inverter, 'troubles', {})
    if 'real' not in request.node.name:
        monkeypatch.setattr(enhancer_module, 'Enhancer', Inverter)


def write_photos(root, *names, start=0):
    """Small photos, each with a gray of its own."""
    for i, name in enumerate(names, start):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((12, 16, 3), i % 256, np.uint8)
        pixels[6:, :, 1] = i // 256 + 10
        Image.fromarray(pixels).save(path)
    return root


def enhance(*arguments):
    """Exit code of the command."""
    try:
        cli.main(['enhance', *map(str, arguments)])
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code
    return 0


def files(root):
    """Content of the outputs by name, without journal and report."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*'))
            if path.is_file() and not path.name.startswith('enhance_')}


def report(root, part=''):
    return json.loads((root / f'enhance_report{part}.json').read_text())


def results(root, part=''):
    return {Path(photo['input']).name: photo['result'] for photo in report(root, part)['photos']}


def test_a_file_goes_beside_itself(tmp_path, capsys):
    write_photos(tmp_path, 'a.png', 'b.JPG')
    assert enhance(tmp_path / 'a.png', tmp_path / 'b.JPG') == 0
    assert sorted(os.listdir(tmp_path)) == ['a.png', 'a_enhanced.png', 'b.JPG', 'b_enhanced.JPG']
    assert np.array_equal(read_image(tmp_path / 'a_enhanced.png').pixels, 255 - read_image(tmp_path / 'a.png').pixels)
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith(f'{tmp_path}/a_enhanced.png: 16x12, direct, 0.0') and err == ''
    assert len(out.splitlines()) == 2


def test_an_output_that_exists_is_refused(tmp_path, capsys):
    write_photos(tmp_path, 'a.png', 'a_enhanced.png')
    before = files(tmp_path)
    assert enhance(tmp_path / 'a.png') == 1
    assert capsys.readouterr().err == f'{tmp_path}/a.png: {tmp_path}/a_enhanced.png exists already; --overwrite ' \
        'replaces it\n'
    assert files(tmp_path) == before
    assert enhance(tmp_path / 'a.png', '--overwrite') == 0
    assert files(tmp_path)['a_enhanced.png'] != before['a_enhanced.png']
    assert files(tmp_path)['a.png'] == before['a.png']


@pytest.mark.parametrize('arguments', [['a.png', '-o', 'a.png'], ['a.png', '--suffix', ''], ['a.png', '-o', '.'],
                                       ['a.png', '-o', 'link.png'], ['a.png', 'a_x.png', '--suffix', '_x']])
def test_an_input_is_never_overwritten(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path, 'a.png', 'a_x.png')
    os.symlink('a.png', 'link.png')
    before = files(tmp_path)
    assert enhance(*arguments, '--overwrite') == 1
    assert 'is one of the inputs' in capsys.readouterr().err
    assert {name: content for name, content in files(tmp_path).items() if name in before} == before


def test_output_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path, 'a.png', 'b.tif', 'in/c.png', 'in/d/e.jpg', 'in/d/notes.txt.png')

    def targets(*arguments, **options):
        return sorted(str(job.target) for job in plan(list(arguments), **options))

    assert targets('a.png', output='new/b.webp') == ['new/b.webp']
    assert targets('a.png', output='new') == ['new/a.png']
    assert targets('a.png', output='new', suffix='_2', format='jpg') == ['new/a_2.jpg']
    assert targets('b.tif', format='tiff') == ['b_enhanced.tif']
    assert targets('x.heic', 'x.NEF', 'x.gif', 'x', 'x.jpeg') == [
        'x_enhanced.jpeg', 'x_enhanced.png', 'x_enhanced_NEF.jpg', 'x_enhanced_gif.png', 'x_enhanced_heic.jpg']
    assert targets('in') == ['in_enhanced/c.png', 'in_enhanced/d/e.jpg', 'in_enhanced/d/notes.txt.png']
    assert targets('in', suffix='_2') == ['in_2/c.png', 'in_2/d/e.jpg', 'in_2/d/notes.txt.png']
    assert targets('in', 'a.png', output='new') == [
        'new/a.png', 'new/in/c.png', 'new/in/d/e.jpg', 'new/in/d/notes.txt.png']
    assert targets('in/d', 'a.png') == ['a_enhanced.png', 'in/d_enhanced/e.jpg', 'in/d_enhanced/notes.txt.png']
    assert {job.root for job in plan(['in/d', 'a.png'])} == {None, Path('in/d_enhanced')}
    os.chdir('in')
    assert targets('.') == [f'{tmp_path}/in_enhanced/{name}' for name in ('c.png', 'd/e.jpg', 'd/notes.txt.png')]


def test_inputs_that_would_become_one_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path, 'in/a.jpg', 'in/a.png', 'in/b.png')
    assert enhance('in', '-o', 'out', '--format', 'webp') == 0
    assert sorted(files(tmp_path / 'out')) == ['a_jpg.webp', 'a_png.webp', 'b.webp']
    write_photos(tmp_path, 'in/a_jpg.png')
    jobs = plan(['in'], 'new', format='webp')
    assert len({job.target for job in jobs if not job.problem}) == 3
    assert [job.problem for job in jobs if job.problem] == ['new/a_jpg.webp is the output of another input']
    assert plan(['in/b.png', './in/b.png', f'{tmp_path}/in/b.png']) == plan(['in/b.png'])


def test_looking_for_photos(tmp_path):
    write_photos(tmp_path / 'in', 'a.png', 'B.JPG', 'x/c.webp', '.hidden/d.png', '.e.png', 'out/f.png', 'old/g.png')
    write_photos(tmp_path / 'elsewhere', 'h.png')
    (tmp_path / 'in' / 'notes.txt').write_text('')
    (tmp_path / 'in' / 'old' / 'enhance_journal.jsonl').write_text('')
    os.symlink('..', tmp_path / 'in' / 'x' / 'up')
    os.symlink('loop.png', tmp_path / 'in' / 'loop.png')
    os.symlink(tmp_path / 'elsewhere', tmp_path / 'in' / 'a_link')
    os.symlink(tmp_path / 'in' / 'x', tmp_path / 'in' / 'a_link_to_x')
    found = [str(path.relative_to(tmp_path / 'in')) for path, _ in find_photos(tmp_path / 'in', tmp_path / 'in/out')]
    assert found == ['B.JPG', 'a.png', 'a_link/h.png', 'loop.png', 'x/c.webp']


def test_folder_continues_and_notices_changes(tmp_path, capsys):
    root, out = write_photos(tmp_path / 'in', 'a.png', 'b/c.png', 'd.png'), tmp_path / 'in' / 'out'
    assert enhance(root, '-o', out) == 0
    assert set(results(out).values()) == {'ok'} and sorted(files(out)) == ['a.png', 'b/c.png', 'd.png']
    before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    assert enhance(root, '-o', out) == 0
    assert set(results(out).values()) == {'skipped'}
    assert before == {name: (out / name).stat().st_mtime_ns for name in files(out)}
    assert capsys.readouterr().out.splitlines()[1].startswith('0 enhanced, 3 finished before, 0 failed; report')

    write_photos(root, 'a.png', start=99)
    (out / 'd.png').unlink()
    assert enhance(root, '-o', out) == 0
    assert results(out) == {'a.png': 'ok', 'c.png': 'skipped', 'd.png': 'ok'}
    for changed in (['--strength', '0.5'], ['--mode', 'direct'], ['--model', 'other'], ['--quality', '50'],
                    ['--self-ensemble'], ['--denoise', '0.5']):
        assert enhance(root, '-o', out, *changed) == 0
        assert set(results(out).values()) == {'ok'}, changed
        assert capsys.readouterr().out.splitlines()[-1].startswith('3 enhanced (3 made anew: '), changed


def test_an_output_that_was_edited_is_kept(tmp_path, capsys):
    root, out = write_photos(tmp_path / 'in', 'a.png', 'b.png'), tmp_path / 'out'
    write_photos(out, 'b.png')
    assert enhance(root, '-o', out) == 1
    assert results(out) == {'a.png': 'ok', 'b.png': 'failed'}
    write_photos(out, 'a.png', start=7)
    before = files(out)
    assert enhance(root, '-o', out) == 1
    assert set(results(out).values()) == {'failed'} and files(out) == before
    assert capsys.readouterr().err.count('is not what an earlier run wrote; --overwrite replaces it') == 3
    assert enhance(root, '-o', out, '--overwrite') == 0
    assert set(results(out).values()) == {'ok'}


def test_what_a_kill_leaves(tmp_path):
    """A line of the journal that was cut off, one whose output was not yet in place, a temporary file."""
    root, out = write_photos(tmp_path / 'in', 'a.png', 'b.png', 'c.png'), tmp_path / 'out'
    assert enhance(root, '-o', out) == 0
    expected, journal = files(out), out / 'enhance_journal.jsonl'
    (out / 'a.png').unlink()
    lines = journal.read_bytes().splitlines(keepends=True)
    lines.sort(key=lambda line: b'c.png' in line)
    journal.write_bytes(b''.join(lines[:-1]) + lines[-1][:50])
    (out / 'c.png').unlink()
    (out / f'{temporary_prefix(out / "c.png")}12345678.part').write_bytes(b'half')
    (out / '.mine.part').write_bytes(b'not ours')
    assert enhance(root, '-o', out) == 0
    assert results(out) == {'a.png': 'ok', 'b.png': 'skipped', 'c.png': 'ok'}
    assert files(out) == {**expected, '.mine.part': b'not ours'}
    assert enhance(root, '-o', out) == 0
    assert set(results(out).values()) == {'skipped'}


def test_trouble_with_one_photo(tmp_path, capsys, monkeypatch):
    names = ['a.png', 'b.png', 'c.png', 'd.png', 'e.png']
    root, out = write_photos(tmp_path / 'in', *names, start=1), tmp_path / 'out'
    (root / 'f.jpg').write_text('no image')
    (root / 'g.jpg').write_bytes(b'')
    monkeypatch.setattr(Inverter, 'troubles', {
        1: ValueError('too strange'), 2: MemoryError(), 3: torch.OutOfMemoryError('CUDA out of memory.\nTried'),
        4: RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")})
    assert enhance(root, '-o', out) == 1
    reasons = {Path(photo['input']).name: photo.get('reason') for photo in report(out)['photos']}
    memory = 'does not fit into memory; --mode guided takes less'
    assert reasons == {'a.png': 'too strange', 'b.png': memory, 'c.png': memory, 'd.png': memory, 'e.png': None,
                       'f.jpg': 'holds no image of a known kind (JPEG, PNG, WebP, AVIF, BMP, TIFF, HEIC, JPEG 2000, '
                       'PPM, camera RAW), or one that is broken or not supported', 'g.jpg': 'is empty'}
    assert report(out)['counts'] == {'failed': 6, 'ok': 1} and sorted(files(out)) == ['e.png']
    assert len(capsys.readouterr().err.splitlines()) == 6


class Watched(Inverter):
    """Says how many photos were in the network at once, and with how many threads each."""

    def __init__(self, device='cpu'):
        self.device, self.now, self.most, self.threads, self.lock = torch.device(device), 0, 0, set(), threading.Lock()

    def enhance_with_report(self, image, strength, mode):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.threads.add(torch.get_num_threads())
        time.sleep(0.05)
        with self.lock:
            self.now -= 1
        return super().enhance_with_report(image, strength, mode)


@pytest.mark.parametrize('count,device,large,most,share', [
    (6, 'cpu', 10**9, 2, 2), (6, 'cpu', 10, 1, 2), (1, 'cpu', 10**9, 1, 4), (6, 'meta', 10**9, 1, 4)])
def test_two_photos_are_enhanced_at_once_on_a_cpu(tmp_path, monkeypatch, count, device, large, most, share):
    root = write_photos(tmp_path / 'in', *(f'{i}.png' for i in range(count)))
    monkeypatch.setattr(pipeline, 'LARGE', large)
    enhancer, before = Watched(device), torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        entries = pipeline.Pipeline(enhancer, Settings('none')).run(plan([str(root)]))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert [entry['result'] for entry in entries] == ['ok'] * count
    assert [Path(entry['input']).name for entry in entries] == [f'{i}.png' for i in range(count)]
    assert enhancer.most == most and enhancer.threads == {share}


def test_two_at_once_end_as_one_does(tmp_path, monkeypatch):
    """One photo's trouble stays its own; a mistake in the network ends the run after what is enhanced is written."""
    root = write_photos(tmp_path / 'in', *(f'{i}.png' for i in range(8)), start=1)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    monkeypatch.setattr(Inverter, 'troubles', {3: ValueError('too strange'), 7: RuntimeError('a mistake')})
    jobs, arrived = plan([str(root)]), {}
    with pytest.raises(RuntimeError, match='a mistake'):
        pipeline.Pipeline(Inverter(), Settings('none'), done=arrived.__setitem__).run(jobs)
    assert [arrived[job]['reason'] or arrived[job]['result'] for job in jobs[:6]] == [
        'ok', 'ok', 'too strange', 'ok', 'ok', 'ok']
    assert sorted(files(tmp_path / 'in_enhanced')) == ['0.png', '1.png', '3.png', '4.png', '5.png']


def test_other_errors_are_not_hidden(tmp_path, monkeypatch):
    root = write_photos(tmp_path / 'in', 'a.png', 'b.png', start=1)
    monkeypatch.setattr(Inverter, 'troubles', {2: RuntimeError('a mistake in the network')})
    with pytest.raises(RuntimeError, match='a mistake in the network'):
        enhance(root)
    assert sorted(files(tmp_path / 'in_enhanced')) == ['a.png']


def test_full_disk(tmp_path, monkeypatch, capsys):
    root, out = write_photos(tmp_path / 'in', 'a.png', 'b.png'), tmp_path / 'out'
    real = os.replace

    def replace(source, target):
        if str(target).endswith('a.png'):
            raise OSError(28, 'No space left on device')
        real(source, target)

    monkeypatch.setattr(os, 'replace', replace)
    assert enhance(root, '-o', out) == 1
    assert capsys.readouterr().err == f'{root}/a.png: {out}/a.png: cannot be written (No space left on device)\n'
    assert sorted(files(out)) == ['b.png']
    monkeypatch.setattr(os, 'replace', real)
    assert enhance(root, '-o', out) == 0
    assert results(out) == {'a.png': 'ok', 'b.png': 'skipped'}


@pytest.mark.parametrize('arguments,line', [
    (['in', '-o', 'in'], 'in: is the folder of the inputs'), (['in', '-o', 'a.png'], '--output a.png: is a file'),
    (['in', 'a.png', '-o', 'x/../a.png'], 'is a file'), (['nothing'], 'nothing: no photos there'),
    (['absent.png'], 'absent.png: cannot be read (No such file or directory)'),
    (['a.png', '-o', 'b.heic'],
     '--output b.heic: .heic is not written; give a folder or a name that ends in .jpg, .png, .webp, .bmp, .tiff'),
    (['a.png', '-o', 'b.webp', '--format', 'png'], '--output b.webp: its suffix says WEBP, --format says png'),
    (['a.png', '-o', 'a.png/b.png'], 'cannot be written'), (['in', '-o', 'a.png/out'], 'cannot be written'),
    (['a.png', '--max-megapixels', '0.0001'], '16x12 is 0.0 megapixels, more than the limit of 0.0001'),
    (['bad\nname[red].png'], 'bad\\nname[red].png: cannot be read'),
])
def test_refusals(tmp_path, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path, 'a.png', 'in/b.png')
    (tmp_path / 'x').mkdir()
    (tmp_path / 'nothing').mkdir()
    before = files(tmp_path)
    assert enhance(*arguments) == 1
    out, err = capsys.readouterr()
    assert line in err and len(err.splitlines()) == 1 and out == ''
    assert files(tmp_path) == before


@pytest.mark.parametrize('arguments', [
    ['--strength', '2.5'], ['--strength', 'nan'], ['--quality', '0'], ['--quality', '9.5'], ['--format', 'gif'],
    ['--mode', 'fast'], ['--suffix', 'a/b'], ['--output', ''], ['--max-megapixels', '0']])
def test_wrong_arguments(capsys, arguments):
    assert enhance('a.png', *arguments) == 2
    assert f'argument {arguments[0]}' in capsys.readouterr().err.replace('-o/--', '--')


def test_strength_beyond_what_a_model_takes(tmp_path, capsys):
    write_photos(tmp_path, 'a.png')
    assert enhance(tmp_path / 'a.png', '--strength', '1.5') == 1
    assert 'strength 1.5: of everyday it is from 0 to 1' in capsys.readouterr().err
    assert list(files(tmp_path)) == ['a.png']


@pytest.mark.parametrize('name,line', [('nowhere', 'no such file'), ('', 'no such file')])
def test_unknown_model_with_the_real_lite(tmp_path, capsys, name, line):
    write_photos(tmp_path, 'a.png')
    assert enhance(tmp_path / 'a.png', '--model', tmp_path / name / 'x.safetensors') == 1
    assert line in capsys.readouterr().err


def test_json(tmp_path, capsys):
    write_photos(tmp_path, 'a.png')
    (tmp_path / 'b.png').write_text('no image')
    assert enhance(tmp_path / 'a.png', tmp_path / 'b.png', '--json') == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed['counts'] == {'ok': 1, 'failed': 1}
    assert printed['photos'][0] == dict(
        input=f'{tmp_path}/a.png', output=f'{tmp_path}/a_enhanced.png', result='ok', reason=None, mode='direct',
        size=[16, 12], seconds=printed['photos'][0]['seconds'])


def test_names_of_any_bytes(tmp_path, capsys):
    root = write_photos(tmp_path / 'in', 'a.png')
    os.rename(root / 'a.png', os.fsencode(root) + b'/\xff\n[b].png')
    (root / os.fsdecode(b'\xfe.jpg')).write_text('no image')
    assert enhance(root) == 1
    assert '\\xfe.jpg: holds no image' in capsys.readouterr().err
    assert sorted(os.listdir(os.fsencode(tmp_path / 'in_enhanced')))[-1] == b'\xff\n[b].png'
    assert sorted(results(tmp_path / 'in_enhanced').values()) == ['failed', 'ok']


def test_one_run_at_a_time_in_a_folder(tmp_path, capsys):
    root = write_photos(tmp_path / 'in', 'a.png')
    journal = Journal(tmp_path / 'in_enhanced')
    assert enhance(root) == 1
    assert capsys.readouterr().err == f'{tmp_path}/in_enhanced: another run is writing there\n'
    journal.close()
    assert enhance(root) == 0


def test_shares_of_ranks(tmp_path, monkeypatch):
    root, out = write_photos(tmp_path / 'in', *(f'{i}.png' for i in range(10))), tmp_path / 'out'
    monkeypatch.setenv('WORLD_SIZE', '3')
    for rank in range(3):
        monkeypatch.setenv('RANK', str(rank))
        assert enhance(root, '-o', out) == 0
    parts = [results(out, f'.rank{rank}') for rank in range(3)]
    assert [len(part) for part in parts] == [4, 3, 3] and len({name for part in parts for name in part}) == 10
    assert len(files(out)) == 10
    monkeypatch.setenv('WORLD_SIZE', '1')
    monkeypatch.setenv('RANK', '0')
    assert enhance(root, '-o', out) == 0
    assert list(results(out).values()) == ['skipped'] * 10


@pytest.mark.full
def test_torchrun_with_the_real_lite(tmp_path):
    """A report of all, and a photo that fails in one process does not end the other."""
    root, out = write_photos(tmp_path / 'in', *(f'{i}.png' for i in range(12))), tmp_path / 'out'
    (root / '0.png').write_text('no image')
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '-m', 'lowlight_cyclegan',
               'enhance', str(root), '-o', str(out)]
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    finished = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 1
    assert finished.stdout.splitlines()[-1].startswith('11 enhanced, 0 finished before, 1 failed')
    assert report(out)['counts'] == {'failed': 1, 'ok': 11} and len(files(out)) == 11
    lines = [(out / f'enhance_journal.rank{rank}.jsonl').read_text().splitlines() for rank in (0, 1)]
    assert min(map(len, lines)) >= 5 and len({json.loads(line)['output'] for line in sum(lines, [])}) == 11


def start(arguments, output, delay=0.0):
    """The command in a fork of this process; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        sys.stdout = sys.stderr = open(2, 'w', buffering=1, closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)
        Inverter.delay = delay
        code = enhance(*arguments)
    finally:
        os._exit(code)


def wait_for_outputs(root, count, pid):
    """Until so many are there, or the process has ended, which is returned."""
    while not root.is_dir() or sum(not name.startswith(('.', 'enhance_')) for name in os.listdir(root)) < count:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    return False


def check_kills(tmp_path, count, kills, delay):
    root, out, whole = tmp_path / 'in', tmp_path / 'out', tmp_path / 'whole'
    write_photos(root, *(f'{i:04d}{(".png", ".jpg", ".tif", ".webp")[i % 4]}' for i in range(count)))
    rng = np.random.default_rng(0)
    for kill in range(kills):
        pid = start([root, '-o', out], tmp_path / 'output.txt', delay)
        assert not wait_for_outputs(out, count * (kill + 1) // (kills + 2), pid), (tmp_path / 'output.txt').read_text()
        time.sleep(rng.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        assert len(files(out)) < count
    done = len([name for name in files(out) if not name.startswith('.')])
    for arguments in ([root, '-o', out], [root, '-o', whole]):
        _, status = os.waitpid(start(arguments, tmp_path / 'output.txt'), 0)
        assert status == 0, (tmp_path / 'output.txt').read_text()
    assert files(out) == files(whole) and len(files(whole)) == count
    assert report(out)['counts'] == {'skipped': done, 'ok': count - done}
    assert report(whole)['counts'] == {'ok': count}
    print(f'{count} photos, {kills} kills: {done} finished before the last run')


@pytest.mark.parametrize('count,kills', [(30, 2), pytest.param(1000, 10, marks=pytest.mark.full)])
def test_killed_and_resumed(tmp_path, count, kills):
    check_kills(tmp_path, count, kills, delay=0.002)


@pytest.mark.full
def test_killed_and_resumed_with_the_real_lite(tmp_path):
    check_kills(tmp_path, 1000, 10, delay=0)


def test_interrupted(tmp_path):
    root, out = write_photos(tmp_path / 'in', *(f'{i:02d}.png' for i in range(30))), tmp_path / 'out'
    pid = start([root, '-o', out], tmp_path / 'output.txt', delay=0.03)
    assert not wait_for_outputs(out, 4, pid)
    os.kill(pid, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    counts = report(out)['counts']
    assert counts['ok'] == len(files(out)) >= 4 and counts['pending'] == 30 - counts['ok'] > 0
    assert (tmp_path / 'output.txt').read_text() == \
        f'Interrupted: {counts["ok"]} of 30 photos are finished and stay; the same command continues.\n'
    assert enhance(root, '-o', out) == 0
    assert report(out)['counts'] == {'skipped': counts['ok'], 'ok': counts['pending']}


def test_files_are_what_the_real_model_makes_of_their_pixels(tmp_path, capsys):
    from lowlight_cyclegan import Enhancer
    enhancer = Enhancer.from_pretrained()
    rng = np.random.default_rng(0)
    for name, shape, depth in (('a.png', (40, 33, 3), 8), ('b.png', (40, 33, 4), 8), ('c.png', (40, 33), 8),
                               ('d.png', (40, 33), 16), ('e.tif', (40, 33, 3), 16), ('f.tif', (40, 33, 4), 16)):
        pixels = rng.integers(0, 2**depth // 4, shape).astype(np.uint8 if depth == 8 else np.uint16)
        write_image(tmp_path / name, Photo(pixels))
        for strength in (0, 0.5, 1):
            assert enhance(tmp_path / name, '-o', tmp_path / 'out' / name, '--strength', strength, '--mode', 'direct',
                           '--overwrite') == 0
            found = read_image(tmp_path / 'out' / name).pixels
            assert found.dtype == pixels.dtype
            assert np.array_equal(found, enhancer.enhance(pixels, strength, 'direct'))
            assert np.array_equal(found, pixels) == (strength == 0)
    lines = capsys.readouterr().out.splitlines()
    assert 'unchanged' in lines[0] and 'direct' in lines[1]
    assert enhance(tmp_path / 'a.png', '-o', tmp_path / 'out' / 'a.png', '--self-ensemble', '--overwrite') == 0
    pixels, found = (read_image(path / 'a.png').pixels for path in (tmp_path, tmp_path / 'out'))
    assert np.array_equal(found, Enhancer.from_pretrained(self_ensemble=True).enhance(pixels))
    assert not np.array_equal(found, enhancer.enhance(pixels))
    for mode in ('direct', 'guided'):
        assert enhance(tmp_path / 'a.png', '-o', tmp_path / 'out' / 'a.png', '--denoise', '0.5', '--mode', mode,
                       '--overwrite') == 0
        found = read_image(tmp_path / 'out' / 'a.png').pixels
        assert np.array_equal(found, Enhancer.from_pretrained(denoise=0.5).enhance(pixels, mode=mode))
        assert not np.array_equal(found, enhancer.enhance(pixels, mode=mode))
