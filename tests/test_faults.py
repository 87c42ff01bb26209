"""Runs that are killed, starved and lied to must end where an undisturbed run ends.

Every run is a fork of this process, in which torch and BasicSR are loaded already. A sample runs always, all of it with
``--full``; the last test prints how many faults were tried and survived.
"""
import logging
import os
import pytest
import random
import signal
import sys
import time
import torch
import yaml
from pathlib import Path

import lowlight_cyclegan

lowlight_cyclegan.register()
from lowlight_cyclegan import train  # noqa: E402  (BasicSR imports once it is mended)

TOTAL_ITER = 12
tally = {'tried': 0, 'survived': 0}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    import cv2
    import numpy as np
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for kind, brightness in (('low', 60), ('high', 250)):
        (root / kind).mkdir()
        for i in range(7):
            coarse = rng.integers(0, brightness, (6, 6, 3), dtype=np.uint8)
            cv2.imwrite(str(root / kind / f'{i}.png'), cv2.resize(coarse, (56, 48)))
    return root


def write_options(folder, data, workers):
    generator = dict(type='EMAResNetGenerator', num_feat=4, num_block=1, ema_factor=2)
    discriminator = dict(type='PatchGANDiscriminator', num_feat=4, num_layer=2)
    adam = dict(type='Adam', lr=1e-3, betas=[0.5, 0.999])
    dataset = dict(dataroot_lq=str(data / 'low'), dataroot_gt=str(data / 'high'), io_backend=dict(type='disk'))
    opt = dict(
        name='toy', model_type='LowLightCycleGANModel', num_gpu=0, manual_seed=3,
        datasets=dict(
            train=dict(
                dataset, name='train', type='UnpairedImageDataset', gt_size=32, use_hflip=True,
                num_worker_per_gpu=workers, persistent_workers=True, batch_size_per_gpu=2),
            val=dict(dataset, name='val', type='PairedImageDataset')),
        network_g=generator, network_f=generator, network_d_a=discriminator, network_d_b=discriminator,
        path={},
        train=dict(
            optim_g=adam, optim_d=adam, scheduler=dict(type='LinearDecayLR'), total_iter=TOTAL_ITER, ema_decay=0.9,
            pool_size=3, gan_opt=dict(type='GANLoss', gan_type='vanilla'),
            cycle_opt=dict(type='L1Loss', loss_weight=10), identity_opt=dict(type='L1Loss', loss_weight=5)),
        val=dict(val_freq=3, save_img=False, metrics=dict(psnr=dict(type='calculate_psnr', crop_border=0))),
        logger=dict(print_freq=5, save_checkpoint_freq=2, keep_last=2, keep_best='psnr', use_tb_logger=False))
    folder.mkdir(exist_ok=True)
    (folder / 'toy.yml').write_text(yaml.safe_dump(opt))


def start(folder, ranks=1, port=0, before=None):
    """Fork a training run in ``folder``, one process a rank; ``before`` is called in each first. Returns their pids."""
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        code = 1
        try:
            output = os.open(folder / f'output{rank}', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout = sys.stderr = open(2, 'w', buffering=1, closefd=False)  # in place of pytest's capture
            logging.root.handlers.clear()
            os.chdir(folder)
            os.setsid()  # a group of its own, with its workers
            sys.argv = ['train', '-opt', 'toy.yml', '--auto_resume']
            if ranks > 1:
                sys.argv += ['--launcher', 'pytorch']
                os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank), MASTER_ADDR='127.0.0.1',
                                  MASTER_PORT=str(port))
            if before is not None:
                before()
            train.main()
            code = 0
        except SystemExit as e:
            if isinstance(e.code, str):
                print(e.code)
            code = e.code if isinstance(e.code, int) else 1
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    return pids


def wait(pids, timeout=120):
    """Exit codes, minus the signal's number for a killed process."""
    codes, deadline = {}, time.monotonic() + timeout
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f'a run hung: {codes}')
        time.sleep(0.005)
    for pid in pids:
        try:
            # A worker process that starts while its parent is killed takes init for its parent and waits forever.
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return [codes[pid] for pid in pids]


def end_of(folder):
    """Everything a run leaves: weights of all the networks and the last training state."""
    experiment = folder / 'experiments' / 'toy'
    ends = {p.name: torch.load(p, weights_only=True) for p in (experiment / 'models').glob('*.pth')}
    for p in (experiment / 'training_states').iterdir():
        assert p.suffix in ('.state', '.pth'), f'left behind: {p}'
        ends[p.name] = torch.load(p, weights_only=True)
        if p.suffix == '.state':
            del ends[p.name]['files']  # hashes of files; their content is compared
    return ends


def assert_same(a, b, where=''):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f'{where}/{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f'{where}/{i}')
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, data):
    """End and duration of the run without faults, for each number of workers and ranks."""
    runs = {}

    def run(workers, ranks):
        if (workers, ranks) not in runs:
            folder = tmp_path_factory.mktemp(f'undisturbed_{workers}_{ranks}')
            write_options(folder, data, workers)
            begin = time.monotonic()
            assert wait(start(folder, ranks, free_port())) == [0] * ranks, (folder / 'output0').read_text()
            runs[workers, ranks] = end_of(folder), time.monotonic() - begin
        return runs[workers, ranks]

    return run


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def finish(folder, expected, ranks=1):
    """Resume until the end and compare; the fault counts as survived if nothing differs."""
    assert wait(start(folder, ranks, free_port())) == [0] * ranks, (folder / 'output0').read_text()
    assert_same(end_of(folder), expected)
    tally['survived'] += 1


def wait_for_checkpoint(folder, iteration):
    """Wait until a run has saved an iteration, or a later one."""
    states = folder / 'experiments' / 'toy' / 'training_states'
    while not any(int(path.stem) >= iteration for path in states.glob('*.state')):
        time.sleep(0.005)


def trials(quick, full):
    return [pytest.param(i, marks=() if i < quick else pytest.mark.full) for i in range(full)]


@pytest.mark.parametrize('workers, ranks', [(0, 1), (2, 1), (0, 2), pytest.param(2, 2, marks=pytest.mark.full)])
@pytest.mark.parametrize('trial', trials(1, 8))
def test_kill_at_random_moments(trial, workers, ranks, tmp_path, data, undisturbed):
    """Up to three kills at any time of the run, saves and start-up included."""
    expected, duration = undisturbed(workers, ranks)
    rng = random.Random(f'{trial} {workers} {ranks}')
    folder = tmp_path / 'run'
    write_options(folder, data, workers)
    for _ in range(rng.randint(1, 3)):
        tally['tried'] += 1
        tally['survived'] += 1 if _ else 0
        pids = start(folder, ranks, free_port())
        time.sleep(rng.uniform(0, duration))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait(pids)
    finish(folder, expected, ranks)


@pytest.mark.parametrize('trial', trials(2, 24))
def test_kill_inside_a_save(trial, tmp_path, data, undisturbed):
    """Killed at a random call of those that write a checkpoint."""
    expected, _ = undisturbed(0, 1)
    rng = random.Random(trial)
    folder = tmp_path / 'run'
    write_options(folder, data, 0)
    tally['tried'] += 1

    def before():
        left = [rng.randint(1, 80)]  # a save makes 15 of these calls, the run 7 saves

        def counted(call):

            def wrapper(*args, **kwargs):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return wrapper

        os.fsync, os.replace, os.remove = counted(os.fsync), counted(os.replace), counted(os.remove)

    assert wait(start(folder, before=before)) == [-signal.SIGKILL]
    finish(folder, expected)


@pytest.mark.parametrize('damage', ['truncated', 'empty', 'foreign', 'missing network', 'truncated network'])
def test_damaged_checkpoints_are_named_and_passed_over(damage, tmp_path, data, undisturbed):
    expected, _ = undisturbed(0, 1)
    folder = tmp_path / 'run'
    write_options(folder, data, 0)
    tally['tried'] += 1
    assert wait(start(folder, before=lambda: kill_after(9))) == [-signal.SIGKILL]
    states = folder / 'experiments' / 'toy' / 'training_states'
    models = folder / 'experiments' / 'toy' / 'models'
    newest = states / '8.state'
    named = newest
    if damage == 'truncated':
        newest.write_bytes(newest.read_bytes()[:-100])
    elif damage == 'empty':
        newest.write_bytes(b'')
    elif damage == 'foreign':
        named = states / '99.state'
        torch.save({'iter': 99}, named)
        (states / 'notes.state').write_text('not a checkpoint')
    else:
        network = models / 'net_d_b_8.pth'
        network.write_bytes(network.read_bytes()[:-1]) if damage.startswith('truncated') else network.unlink()
    assert wait(start(folder)) == [0]
    assert f'skipped {named}' in (folder / 'output0').read_text()
    for foreign in ('99.state', 'notes.state'):
        (states / foreign).unlink(missing_ok=True)
    assert_same(end_of(folder), expected)
    tally['survived'] += 1


def kill_after(iteration):
    """Kill this process after an iteration."""
    from lowlight_cyclegan.models import LowLightCycleGANModel
    step = LowLightCycleGANModel.optimize_parameters

    def optimize_parameters(self, current_iter):
        step(self, current_iter)
        if current_iter == iteration:
            os.kill(os.getpid(), signal.SIGKILL)

    LowLightCycleGANModel.optimize_parameters = optimize_parameters


@pytest.mark.parametrize('trial', trials(1, 12))
def test_full_disk(trial, tmp_path, data, undisturbed):
    """The disk fills up during some checkpoint: one line, those before are whole, and the run goes on from them."""
    expected, _ = undisturbed(0, 1)
    folder = tmp_path / 'run'
    write_options(folder, data, 0)
    tally['tried'] += 1
    last = random.Random(trial).randint(1, 40)  # file that fits; a checkpoint has five, each of two calls

    def before():
        import errno
        sync, calls = os.fsync, [0]

        def fsync(fd):
            calls[0] += 1
            if calls[0] > last:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return sync(fd)

        os.fsync = fsync

    assert wait(start(folder, before=before)) == [1]
    output = (folder / 'output0').read_text()
    assert 'No space left on device' in output and 'Traceback' not in output
    finish(folder, expected)


def test_results_folder_that_cannot_be_made(tmp_path, data):
    folder = tmp_path / 'run'
    write_options(folder, data, 0)
    (folder / 'experiments').write_text('a file where a folder has to be')
    assert wait(start(folder)) == [1]
    output = (folder / 'output0').read_text()
    assert f"{folder / 'experiments'}" in output and 'Mend this' in output and 'Traceback' not in output


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('workers, ranks', [(2, 1), (0, 2)])
@pytest.mark.parametrize('trial', trials(1, 3))
def test_signals_save_and_exit(trial, signum, workers, ranks, tmp_path, data, undisturbed):
    expected, _ = undisturbed(workers, ranks)
    folder = tmp_path / 'run'
    write_options(folder, data, workers)
    tally['tried'] += 1
    pids = start(folder, ranks, free_port())
    wait_for_checkpoint(folder, 2 * (trial + 1))
    os.kill(pids[0], signum)  # one rank is told, all stop
    assert wait(pids) == ranks * [128 + signum]  # they agree on it
    assert 'everything saved. To continue:' in (folder / 'output0').read_text()
    finish(folder, expected, ranks)


@pytest.mark.parametrize('trial', trials(1, 4))
def test_killed_worker_ends_the_run_in_one_line(trial, tmp_path, data, undisturbed):
    expected, _ = undisturbed(2, 1)
    folder = tmp_path / 'run'
    write_options(folder, data, 2)
    tally['tried'] += 1
    pid, = start(folder)
    wait_for_checkpoint(folder, 2 + trial // 2 * 2)
    children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    os.kill(int(children[trial % 2]), signal.SIGKILL)
    assert wait([pid]) == [1]
    output = (folder / 'output0').read_text()
    assert '--auto_resume' in output and 'Traceback' not in output
    finish(folder, expected)


@pytest.mark.parametrize('trial', trials(1, 4))
def test_killed_rank_brings_the_others_down(trial, tmp_path, data, undisturbed):
    expected, _ = undisturbed(0, 2)
    folder = tmp_path / 'run'
    write_options(folder, data, 0)
    tally['tried'] += 1
    pids, lost = start(folder, 2, free_port()), (trial + 1) % 2
    wait_for_checkpoint(folder, 2 + trial // 2 * 2)
    os.kill(pids[lost], signal.SIGKILL)
    codes = wait(pids, timeout=60)
    assert (codes[lost], codes[1 - lost]) == (-signal.SIGKILL, 1)
    output = (folder / f'output{1 - lost}').read_text()
    assert 'Traceback' not in output
    assert 'Lost another process' in output, output
    finish(folder, expected, 2)


def test_another_number_of_processes_resumes_with_a_warning(tmp_path, data):
    folder = tmp_path / 'run'
    write_options(folder, data, 0)
    tally['tried'] += 1
    assert wait(start(folder, before=lambda: kill_after(5))) == [-signal.SIGKILL]
    assert wait(start(folder, 2, free_port())) == [0, 0]
    assert 'saved by 1 processes and is resumed by 2' in (folder / 'output0').read_text()
    tally['survived'] += 1


def test_faults_tried_and_survived(capsys, request):
    with capsys.disabled():
        print(f"\nfaults: {tally['tried']} tried, {tally['survived']} survived")
    assert tally['survived'] == tally['tried']
    chosen = request.config.option.keyword or any('::' in arg for arg in request.config.args)
    if request.config.getoption('--full') and not chosen:
        assert tally['tried'] >= 100
