import json
import os
import pytest
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / 'scripts'


def bash(folder, script, *arguments, **env):
    command = ['bash', f'scripts/{script}', *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, env={**os.environ, **env})


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / 'scripts').mkdir()
    for name in ('pack.sh', 'train_full.sh'):
        shutil.copy(SCRIPTS / name, tmp_path / 'scripts')
    return tmp_path


# ------------------------------------------------------------------- packing


def test_parts_hold_every_file_once(checkout):
    """Also behind links, of any name and of none of the parts' own size."""
    rng = random.Random(0)
    (checkout / 'elsewhere').mkdir()
    (checkout / 'datasets').mkdir()
    (checkout / 'datasets' / 'LOL').symlink_to(checkout / 'elsewhere')
    for i in range(40):
        (checkout / 'elsewhere' / f'picture {i}.png').write_bytes(rng.randbytes(rng.randint(0, 200_000)))
    (checkout / 'datasets' / 'trunk.pth').write_bytes(rng.randbytes(900_000))
    result = bash(checkout, 'pack.sh', '-s', 1, '-w', '', 'datasets')
    assert result.returncode == 0, result.stderr
    parts = sorted((checkout / 'build' / 'parts').iterdir())
    assert len(parts) >= 4 and all(part.stat().st_size <= 1_000_000 for part in parts)
    assert [line.split()[0] for line in result.stdout.splitlines()] == [f'build/parts/{part.name}' for part in parts]

    target = checkout / 'target'
    names = []
    for part in reversed(parts):
        with tarfile.open(part) as tar:
            names += tar.getnames()
            tar.extractall(target, filter='data')
    assert len(names) == len(set(names)) == 41
    for name in names:
        assert (target / name).read_bytes() == (checkout / name).read_bytes()
    assert not (target / 'datasets' / 'LOL').is_symlink()


@pytest.mark.parametrize('arguments, message', [
    ([], 'Usage'), (['-x', 'data'], 'Usage'), (['nowhere'], 'nowhere: no such file'),
    (['/etc'], 'relative to this folder'), (['-s', '1', '-w', '', 'large'], 'large: is larger than a part')])
def test_what_cannot_be_packed(checkout, arguments, message):
    (checkout / 'large').write_bytes(bytes(1_000_000))
    result = bash(checkout, 'pack.sh', *arguments)
    assert result.returncode and message in result.stderr and not list(checkout.glob('build/parts/*.tar'))


# ------------------------------------------------------------------ training

TRAINER = """
import os, signal, sys, time
run = 'experiments/full'
os.makedirs(run)
print('arguments', *sys.argv[1:])
print('12.0 images a second: 600 iterations of batch 4 in 2.0 minutes')
print('2026-01-01 00:00:00,000 INFO: Start training from epoch: 0, iter: 0')
def write(text):
    with open(f'{run}/part', 'w') as f:
        f.write(text)
    os.replace(f'{run}/part', f'{run}/full.safetensors')
def stop(*_):
    write('saved')
    raise SystemExit(143)
signal.signal(signal.SIGTERM, stop)
if 'weights=no' in sys.argv:
    raise SystemExit('datasets:train: broken')
write('early')
print('2026-01-01 00:01:00,000 INFO: [full..][epoch:  0, iter:   1,050, lr:(2.000e-04,)] '
      '[eta: 0:09:23, time (data): 0.250 (0.002)] l_gan_g: 1.2e-01 l_cycle: 2.4e+00 ')
print('2026-01-01 00:01:00,000 INFO: Validation LOL_val40, 40 images (each one in x.csv)')
print('\\t # psnr: 20.0766 (over 40)\\tBest: 20.1401 @ 2500 iter')
time.sleep(0.2 if 'wait=no' in sys.argv else 60)
write('late')
"""


@pytest.fixture
def trained(checkout):
    """A checkout whose trainer, evaluation and card are stand-ins: function that calls train_full.sh there."""
    (checkout / 'datasets' / 'LOL' / 'eval15').mkdir(parents=True)
    (checkout / 'scripts' / 'train_within.py').write_text(TRAINER)
    (checkout / 'scripts' / 'draft_card.py').write_text('import sys; print("card", *sys.argv[1:])')
    package = checkout / 'lowlight_cyclegan'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'cli.py').write_text('import os, sys; print("cli", *sys.argv[1:]); os.makedirs("results/full/eval15")')
    (checkout / 'bin').mkdir()
    (checkout / 'bin' / 'python3').symlink_to(sys.executable)
    path = f'{checkout / "bin"}:{os.environ["PATH"]}'

    def call(*arguments):
        return bash(checkout, 'train_full.sh', *arguments, PATH=path)

    yield checkout, call
    call('stop')


def join(folder):
    parts = sorted((folder / 'results').glob('full.tar.*'))
    (folder / 'joined.tar').write_bytes(b''.join(part.read_bytes() for part in parts))
    with tarfile.open(folder / 'joined.tar') as tar:
        return {name: tar.extractfile(name).read().decode() for name in tar.getnames() if tar.getmember(name).isfile()}


def test_a_run_to_its_end(trained):
    folder, call = trained
    result = call('2.5', 'options/other.yml', 'wait=no')
    assert result.returncode == 0, result.stderr
    result = call('status', 40)
    assert result.returncode == 0 and 'Finished with code 0.' in result.stdout
    log = (folder / 'results' / 'full' / 'log.txt').read_text()
    assert 'arguments 2.5 -opt options/other.yml --force_yml name=full val:pbar=false wait=no\n' in log
    assert 'cli evaluate --method full=experiments/full/full.safetensors --device cpu --lpips none' in log
    assert 'card experiments/full results/full options/other.yml wait=no\n' in log
    assert '12.0 images a second: 600 iterations' in result.stdout
    assert 'iteration 1,050, 16.0 images a second, eta 0:09:23, l_gan_g: 1.2e-01 l_cycle: 2.4e+00' in result.stdout
    assert '# psnr: 20.0766' in result.stdout
    files = join(folder)
    assert files['experiments/full/full.safetensors'] == 'late' and 'results/full/log.txt' in files
    result = call('2')
    assert result.returncode == 1 and 'experiments/full: exists' in result.stderr


def test_weights_are_packed_early_and_a_stopped_run_is_measured(trained):
    folder, call = trained
    call('2')
    end = time.monotonic() + 30
    while not list((folder / 'results').glob('full.tar.*')) and time.monotonic() < end:
        time.sleep(0.2)
    assert join(folder).keys() == {'experiments/full/full.safetensors', 'results/full/log.txt'}
    assert join(folder)['experiments/full/full.safetensors'] == 'early'
    assert call('stop').returncode == 0
    assert 'Finished with code 143.' in call('status', 30).stdout
    assert join(folder)['experiments/full/full.safetensors'] == 'saved'
    assert 'cli evaluate' in (folder / 'results' / 'full' / 'log.txt').read_text()


def test_a_killed_run_is_not_waited_for(trained):
    folder, call = trained
    call('2')
    while not (folder / 'experiments' / 'full' / 'full.safetensors').exists():
        time.sleep(0.1)
    os.killpg(int((folder / 'results' / 'full' / 'pid').read_text()), signal.SIGKILL)
    begin = time.monotonic()
    assert 'The run is gone' in call('status', 30).stdout and time.monotonic() - begin < 20


def test_a_failed_run_says_why(trained):
    folder, call = trained
    call('2', 'options/other.yml', 'weights=no')
    result = call('status', 30)
    assert 'datasets:train: broken' in result.stdout and 'Finished with code 1.' in result.stdout
    assert not list((folder / 'results').glob('full.tar.*'))


@pytest.mark.parametrize('arguments, code, message', [
    ([], 2, 'Usage'), (['soon'], 2, 'Usage'), (['status'], 1, 'No run'), (['stop'], 1, 'Nothing is being trained'),
    (['25'], 1, 'datasets/LOL: holds no eval15')])
def test_refusals(checkout, arguments, code, message):
    result = bash(checkout, 'train_full.sh', *arguments)
    assert result.returncode == code and message in result.stderr and not (checkout / 'results').exists()


# ---------------------------------------------------------------------- card


def test_card_tells_what_was_measured(tmp_path, monkeypatch):
    run, results = tmp_path / 'run', tmp_path / 'results'
    (run / 'metrics').mkdir(parents=True)
    (results / 'eval15').mkdir(parents=True)
    (run / 'train_full_1.log').write_text(''.join(
        f'2026-01-01 00:0{i}:00,000 INFO: [full..][epoch:  0, iter:   1,0{i}0, lr:(2.000e-04,)] [eta: 0:09:23, time '
        f'(data): 0.250 (0.002)] l_gan_g: 1.2e-01 l_gan_f: 1.0e-01 l_cycle: 2.4e+00 l_d_a: 2e-01 l_d_b: 2e-01 \n'
        for i in (1, 3)))
    for iteration, psnr in ((900, 19), (1033, 21)):
        (run / 'metrics' / f'LOL_val40_{iteration}.csv').write_text(f'image,psnr\n1,{psnr}\n2,{psnr + 1}\n3,inf\n')
    row = {'params': 13.75, 'psnr': [21.5, 1.25], 'ssim': [0.75, 0.01], 'lpips': [None, None], 'niqe': [4, 0.5],
           'psnr_gt_mean': [25, 1]}
    (results / 'eval15' / 'table.json').write_text(json.dumps({'protocol': 'RGB', 'tables': [{'rows': [row]}]}))
    monkeypatch.setattr(sys, 'argv', ['draft_card.py', str(run), str(results), 'options/train_lol_full.yml',
                                      'datasets:train:batch_size_per_gpu=3'])
    monkeypatch.chdir(SCRIPTS.parent)
    runpy.run_path(str(SCRIPTS / 'draft_card.py'), run_name='__main__')
    card = (results / 'card.md').read_text()
    for text in ('1033 iterations of batch 3, seed 0, amp auto', ': 0:02:00 |', 'psnr 21.5000 ± 1.2500',
                 '| 13.750000 M |', 'LOL_val40, iteration 1033 | psnr 21.5000 |'):
        assert text in card, card
    assert 'lpips' not in card and (results / 'curves.png').stat().st_size > 1000
