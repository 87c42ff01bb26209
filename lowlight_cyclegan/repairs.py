"""Repairs to BasicSR 1.4.2 and git master (2022-2024), which do nothing where they are not needed.

One more, the torchvision module that BasicSR <= 1.4.2 imports, must come before BasicSR: see ``autoload.py``.
Repairs that only turn a crash into a run serve every model; those that change what a run does serve our models alone.

| repair | reason |
|---|---|
| `parse_options` | ``--force_yml`` goes through exec; mistakes in a YAML file end in tracebacks; options need a GPU |
| `init_dist` | divides by the number of GPUs, picks the GPU by global rank, waits half an hour for a dead process |
| `model_to_device` | asks CUDA for a device in a distributed run on the CPU |
| `load_resume_state` | asks CUDA, searches the current folder, takes the newest file even when it is broken |
| `mkdir_and_rename` | two folders that are put aside within one second get one name, which ends the second run |
| `prefetch` | with ``prefetch_mode: cpu``, an error of the data leaves the run waiting for ever |
| `EpochSampler` | EnlargedSampler ignores manual_seed, loses the last batch, restarts an interrupted epoch |
"""
from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
import torch
import torch.distributed as dist
from basicsr import test as test_script
from basicsr import train as train_script
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.data.prefetch_dataloader import PrefetchGenerator
from basicsr.models.base_model import BaseModel
from basicsr.utils import dist_util, misc, options, set_random_seed
from basicsr.utils.registry import MODEL_REGISTRY
from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from functools import partial
from os import path as osp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from types import TracebackType
from typing import Any

from .config import (OPTIONS_USED, RunFlags, complete_options, datasets_of, dump, find_file, force_option,
                     load_options, options_dir, run_flags, run_folder, suit_machine)
from .files import atomic_write
from .messages import explain_run, fail, nearest
from .resume import Resume
from .schema import OUR_MODELS

NETWORK_TIMEOUT = timedelta(minutes=10)  # a process that waits longer than this for the others gives up

_model_to_device = BaseModel.model_to_device
_register: Callable[[], None]


def apply(register: Callable[[], None]) -> None:
    """Install the repairs. Repeated calls change nothing more.

    Args:
        register: Registers our classes; called before options are checked.
    """
    global _register
    _register = register
    for module in (options, train_script, test_script):
        module.parse_options = parse_options
    for module in (options, dist_util):
        module.init_dist = init_dist
    misc.mkdir_and_rename = mkdir_and_rename  # of make_exp_dirs
    BaseModel.model_to_device = model_to_device
    PrefetchGenerator.run, PrefetchGenerator.__next__ = prefetch, next_prefetched


# ------------------------------------------------------------------- options


def parse_options(root_path: str, is_train: bool = True, flags: RunFlags | None = None) -> tuple[dict, RunFlags]:
    """In place of BasicSR's: behind checks, with options that suit this machine, on any device.

    Args:
        root_path: Takes ``experiments`` and ``results``.
        is_train: For training or for testing.
        flags: Of the run. Default: those of this process's command line.

    Returns:
        The options, and the flags with the option file as it was found.

    Raises:
        SystemExit: Something in the file or on the command line is wrong; one line for each.
    """
    flags = run_flags() if flags is None else flags
    used: dict[str, Any] = {}
    try:
        flags.opt = find_file(flags.opt, [options_dir()])
        opt = load_options(flags.opt)
        for entry in flags.force_yml:
            force_option(opt, entry)
        _register()
        model = opt.get('model_type')
        if not isinstance(model, str) or model not in MODEL_REGISTRY:
            raise ValueError(f'model_type: {model!r} is not known{nearest(model, OUR_MODELS)}')
        ours = model in OUR_MODELS
        if ours:
            num_gpu = opt.get('num_gpu') or 'auto'
            complete_options(opt, flags.opt, flags.launcher, is_train)
            used = {**deepcopy(opt), 'num_gpu': num_gpu}
        suit_machine(opt)
        if ours:
            from . import preflight
            preflight.check(opt, is_train)
    except ValueError as error:
        fail(str(error))
    mend_training_scripts(ours, used)
    _start(opt, flags)
    _place(opt, root_path, is_train)
    return opt, flags


def _start(opt: dict[str, Any], flags: RunFlags) -> None:
    """The processes of the run, and their random streams."""
    opt['dist'] = flags.launcher != 'none'
    if opt['dist']:
        init_dist(flags.launcher, **(opt.get('dist_params') or {} if flags.launcher == 'slurm' else {}))
    opt['rank'], opt['world_size'] = dist_util.get_dist_info()
    if opt.get('manual_seed') is None:
        opt['manual_seed'] = random.randint(1, 10000)
    set_random_seed((opt['manual_seed'] + opt['rank']) % 2**32)
    if opt.get('num_gpu', 'auto') == 'auto':
        opt['num_gpu'] = torch.cuda.device_count()
    opt['auto_resume'] = flags.auto_resume
    if flags.debug and not opt['name'].startswith('debug'):
        opt['name'] = f"debug_{opt['name']}"


def _place(opt: dict[str, Any], root_path: str, is_train: bool) -> None:
    """What BasicSR's datasets, models and loggers read from the options besides what a file says."""
    opt['is_train'] = is_train
    for phase, dataset in datasets_of(opt):
        dataset['phase'] = phase.split('_')[0]
        if 'scale' in opt:
            dataset['scale'] = opt['scale']
        for key in ('dataroot_gt', 'dataroot_lq'):
            if isinstance(dataset.get(key), str):
                dataset[key] = osp.expanduser(dataset[key])
    path = opt['path']
    for key, value in path.items():
        if value is not None and ('resume_state' in key or 'pretrain_network' in key):
            path[key] = osp.expanduser(value)
    root = run_folder(opt, root_path, is_train)
    for key in ('experiments_root', 'results_root'):  # BasicSR makes a folder of every key that is left
        path.pop(key, None)
    path.update(log=root, visualization=osp.join(root, 'visualization'))
    if not is_train:
        path['results_root'] = root
        return
    path.update(experiments_root=root, models=osp.join(root, 'models'),
                training_states=osp.join(root, 'training_states'))
    if 'debug' in opt['name']:
        if opt.get('val') is not None:
            opt['val']['val_freq'] = 8
        opt['logger'].update(print_freq=1, save_checkpoint_freq=8)


# --------------------------------------------------------------- distributed


def init_dist(launcher: str, backend: str = 'nccl', port: int | None = None, **kwargs: Any) -> None:
    """Start torch.distributed from torchrun's or slurm's environment.

    CPU tensors go over gloo, GPU tensors over ``backend``; each process takes the GPU of its local rank.

    Args:
        launcher: 'pytorch' or 'slurm'.
        backend: For GPU tensors.
        port: Master port, for slurm. Default: MASTER_PORT, else 29500.
        kwargs: For ``torch.distributed.init_process_group``.

    Raises:
        SystemExit: The launcher's environment variables are missing.
    """
    # Not BasicSR's 'spawn': a spawned data loader worker whose parent is killed while it starts never ends.
    env = os.environ
    wanted = {
        'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'),
        'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    }[launcher]
    missing = [name for name in wanted if name not in env]
    if missing:
        starter = 'torchrun --nproc_per_node=N' if launcher == 'pytorch' else 'srun'
        fail(f'--launcher {launcher}: {", ".join(missing)} not set; start with {starter}')
    if launcher == 'slurm':
        env.update(RANK=env['SLURM_PROCID'], WORLD_SIZE=env['SLURM_NTASKS'], LOCAL_RANK=env['SLURM_LOCALID'])
        env['MASTER_ADDR'] = env.get('MASTER_ADDR') or _first_slurm_node()
        env['MASTER_PORT'] = str(port or env.get('MASTER_PORT', 29500))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(env['LOCAL_RANK']) % torch.cuda.device_count())
        backend = backend if backend == 'gloo' else f'cpu:gloo,cuda:{backend}'
    else:
        backend = 'gloo'
    kwargs.setdefault('timeout', NETWORK_TIMEOUT)
    dist.init_process_group(backend, **kwargs)


def _first_slurm_node() -> str:
    """The host that all processes of the slurm step meet at."""
    try:
        shown = subprocess.run(['scontrol', 'show', 'hostnames', os.environ.get('SLURM_NODELIST', '')],
                               capture_output=True, text=True, timeout=60, check=True)
        return shown.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        fail('--launcher slurm: MASTER_ADDR is not set, and scontrol, which knows the nodes, does not answer here: '
             'before srun, export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1)')


def model_to_device(self: BaseModel, net: nn.Module) -> nn.Module:
    """BaseModel.model_to_device; on the CPU DistributedDataParallel takes no device."""
    if self.opt['dist'] and self.device.type == 'cpu':
        return DistributedDataParallel(
            net.to(self.device), find_unused_parameters=self.opt.get('find_unused_parameters', False))
    return _model_to_device(self, net)


# -------------------------------------------------------------------- resume


def prefetch(self: PrefetchGenerator) -> None:
    """Prepare batches ahead, in a thread; an error goes to who waits for the next one."""
    try:
        for item in self.generator:
            self.queue.put(item)
        self.queue.put(None)
    except BaseException as error:
        self.queue.put(error)


def next_prefetched(self: PrefetchGenerator) -> Any:
    """The next batch, or the error that came in its place."""
    item = self.queue.get()
    if isinstance(item, BaseException):
        raise item
    if item is None:
        raise StopIteration
    return item


def mend_training_scripts(ours: bool, used: dict[str, Any]) -> None:
    """Repair the functions of train.py, which live in ``__main__`` too when it is run as a script.

    Args:
        ours: The run is one of our models.
        used: Its options, as they are saved beside it.
    """
    from .data.epoch_sampler import EpochSampler
    scripts = [train_script]
    main = sys.modules['__main__']
    if osp.realpath(getattr(main, '__file__', None) or '').endswith(osp.join('basicsr', 'train.py')):
        scripts.append(main)
        sys.excepthook = say_in_one_line
    for script in scripts:
        if not isinstance(getattr(script.load_resume_state, '__self__', None), Resume):
            Resume(script)
        script.EnlargedSampler = EpochSampler if ours else EnlargedSampler
        script.mkdir_and_rename = mkdir_and_rename
        script.copy_opt_file = partial(save_options, used) if ours else options.copy_opt_file


def mkdir_and_rename(path: str) -> None:
    """In place of BasicSR's: a folder that is there already is put aside, under a name that no other has."""
    if osp.exists(path):
        archive = first = f'{path}_archived_{misc.get_time_str()}'
        number = 1
        while osp.lexists(archive):
            number += 1
            archive = f'{first}_{number}'
        print(f'Path already exists. Rename it to {archive}', flush=True)
        os.rename(path, archive)
    os.makedirs(path, exist_ok=True)


def save_options(used: dict[str, Any], opt_file: str, experiments_root: str) -> None:
    """BasicSR's copy of the option file and, beside it, the options as they are used: resolved and overridden."""
    options.copy_opt_file(opt_file, experiments_root)
    if dist_util.get_dist_info()[0] == 0:
        head = f'# The options of this run as they were used.\n# {shlex.join(sys.orig_argv)}\n\n'
        atomic_write(osp.join(experiments_root, OPTIONS_USED), (head + dump(used)).encode())


def say_in_one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """An exception hook: one line for a user's mistake, the traceback for anything else."""
    line = explain_run(error)
    if line is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        print(line, file=sys.stderr)
