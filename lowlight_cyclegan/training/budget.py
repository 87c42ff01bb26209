"""Training within a time budget: the speed is measured first, so that the learning rate ends at zero inside it."""
from __future__ import annotations

import gc
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import torch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from os import path as osp

from lowlight_cyclegan.config import (complete_options, find_file, force_option, load_options, options_dir,
                                      run_folder, suit_machine)

__all__ = ['iterations_within', 'signals_for', 'train_within']

PROBE_SECONDS = 10
TRAINING_SHARE = 0.85  # of the budget; validations, checkpoints and decoding take the rest
LAST_WORDS = 20  # seconds to save in, at the end of the budget


@contextmanager
def signals_for(process: subprocess.Popen) -> Iterator[None]:
    """Leave Ctrl-C and SIGTERM to a training process, which saves and ends."""
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
              signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate())}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def iterations_within(opt: dict, minutes: float) -> int:
    """Training steps that fit into the minutes on this machine, judged by the time that a few of them take.

    Args:
        opt: Options of a training run, with its name; some are completed in place.
        minutes: Of training alone, without validations.

    Returns:
        At least 1.
    """
    import lowlight_cyclegan
    lowlight_cyclegan.register()
    from basicsr.models import build_model
    complete_options(opt, '')
    suit_machine(opt)
    opt.update(is_train=True, dist=False, rank=0, world_size=1, auto_resume=False)
    opt['path'].update(models='', training_states='')  # nothing is saved
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    model = build_model(opt)
    for number, handler in handlers.items():  # the model takes them for its own
        signal.signal(number, handler)
    torch.backends.cudnn.benchmark = True  # as in training
    size = opt['datasets']['train']['gt_size']
    shape = [opt['datasets']['train']['batch_size_per_gpu'], 3, *(size if isinstance(size, list) else (size, size))]
    data = {key: torch.randint(0, 256, shape, dtype=torch.uint8) for key in ('lq', 'gt', 'teacher')}
    times: list[float] = []
    while len(times) < 2 or sum(times[1:]) < PROBE_SECONDS and len(times) < 20:
        begin = time.perf_counter()
        model.feed_data(data)
        model.optimize_parameters(len(times) + 1)
        model.get_current_log()  # waits for the device
        times.append(time.perf_counter() - begin)
    del model  # the training that follows needs the memory
    gc.collect()
    torch.cuda.empty_cache()
    return max(1, int(60 * minutes / statistics.median(times[1:])))  # the first one compiles and picks kernels


def train_within(opt_file: str, minutes: float, force_yml: Sequence[str] = ()) -> int:
    """Train in a process of its own, as well as the minutes allow, everything included.

    The learning rate reaches zero at the last iteration. Where the estimate was too high, the run is asked to save and
    end when the time is up.

    Args:
        opt_file: Option file.
        minutes: More than one.
        force_yml: Entries ``section:key=value`` that override options.

    Returns:
        Exit code: 0 where the training or its time ended, else that of the run, which has said why; what it had
            saved is kept all the same.

    Raises:
        ValueError: Too few minutes, options that are wrong, or a run of this name that is there already.
    """
    begin = time.monotonic()
    if not 3 * LAST_WORDS < minutes * 60 < float('inf'):
        raise ValueError(f'{minutes:g} minutes: give more than {3 * LAST_WORDS // 60}')
    opt_file = find_file(opt_file, [options_dir()])
    opt = load_options(opt_file)
    for entry in force_yml:
        force_option(opt, entry)
    import lowlight_cyclegan
    from lowlight_cyclegan import preflight
    lowlight_cyclegan.register()
    complete_options(opt, opt_file)
    preflight.check(opt, is_train=True)
    folder = run_folder(opt, '')
    if osp.exists(folder):
        raise ValueError(f'{folder}: exists; move it away or give another name with --force_yml name=NAME')

    count = iterations_within(deepcopy(opt), minutes * TRAINING_SHARE)
    left = max(0.1, 1 - (time.monotonic() - begin) / 60 / minutes)  # the measuring took its time
    count, planned = max(1, int(count * left)), minutes * TRAINING_SHARE * left
    batch = opt['datasets']['train']['batch_size_per_gpu']
    print(f'{count * batch / planned / 60:.1f} images a second: {count} iterations of batch {batch} in {planned:.1f} '
          'minutes', flush=True)
    every = max(1, count // 5)
    forced = [*force_yml, f'train:total_iter={count}', f'val:val_freq={every}', f'logger:save_checkpoint_freq={every}']
    run = subprocess.Popen([sys.executable, '-m', 'lowlight_cyclegan.train', '-opt', opt_file, '--force_yml', *forced])
    with signals_for(run):
        try:
            code = run.wait(max(1, begin + minutes * 60 - LAST_WORDS - time.monotonic()))
        except subprocess.TimeoutExpired:
            print('The time is up: saving.', flush=True)
            run.terminate()
            code = run.wait()
            if code in (128 + signal.SIGTERM, -signal.SIGTERM):  # the second before it could listen
                code = 0
    path = _newest(osp.join(folder, 'models'))
    if path is None and not code:
        raise ValueError(f'{folder}: holds no weights, the time was up before a checkpoint: give more minutes')
    if path is not None:
        print(f'weights: {path}, after {(time.monotonic() - begin) / 60:.1f} minutes')
    return code


def _newest(folder: str) -> str | None:
    """The last checkpoint of G."""
    names = os.listdir(folder) if osp.isdir(folder) else []
    names = [name for name in names if re.fullmatch(r'net_g_(\d+|latest)\.pth', name)]
    return max((osp.join(folder, name) for name in names), key=osp.getmtime, default=None)
