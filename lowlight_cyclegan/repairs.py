"""Repairs to BasicSR 1.4.2 and git master (2022-2024), which do nothing where they are not needed.

One more, the torchvision module that BasicSR <= 1.4.2 imports, must come before BasicSR: see ``autoload.py``.
Repairs that only turn a crash into a run serve every model; those that change what a run does serve our models alone.

| repair | reason |
|---|---|
| `parse_options` | ``--force_yml`` goes through exec; mistakes in a YAML file end in tracebacks; options need a GPU |
| `init_dist` | divides by the number of GPUs, picks the GPU by global rank, waits half an hour for a dead process |
| `model_to_device` | asks CUDA for a device in a distributed run on the CPU |
| `load_resume_state` | asks CUDA, searches the current folder, takes the newest file even when it is broken |
| `EpochSampler` | EnlargedSampler ignores manual_seed, loses the last batch, restarts an interrupted epoch |
"""
from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import torch
import torch.distributed as dist
from basicsr import test as test_script
from basicsr import train as train_script
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.models.base_model import BaseModel
from basicsr.utils import dist_util, options, set_random_seed
from basicsr.utils.misc import check_resume
from basicsr.utils.registry import MODEL_REGISTRY
from collections.abc import Callable
from datetime import timedelta
from os import path as osp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from types import TracebackType
from typing import Any

from .config import (RunFlags, complete_options, datasets_of, find_file, force_option, load_options, options_dir,
                     run_flags, suit_machine)
from .files import file_sha256
from .messages import explain_run, fail, nearest, warn

OUR_MODELS = ('LowLightCycleGANModel', )
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
    BaseModel.model_to_device = model_to_device


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
    try:
        flags.opt = find_file(flags.opt, [options_dir()])
        opt = load_options(flags.opt)
        for entry in flags.force_yml:
            force_option(opt, entry)
        _register()
        model = opt.get('model_type')
        if model not in MODEL_REGISTRY:
            raise ValueError(f'model_type: {model!r} is not known{nearest(model, OUR_MODELS)}')
        ours = model in OUR_MODELS
        if ours:
            complete_options(opt, flags.opt, flags.launcher, is_train)
        suit_machine(opt)
        if ours:
            from . import preflight
            preflight.check(opt, is_train)
    except ValueError as error:
        fail(str(error))
    mend_training_scripts(ours)
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
    set_random_seed(opt['manual_seed'] + opt['rank'])
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
            if dataset.get(key) is not None:
                dataset[key] = osp.expanduser(dataset[key])
    path = opt['path']
    for key, value in path.items():
        if value is not None and ('resume_state' in key or 'pretrain_network' in key):
            path[key] = osp.expanduser(value)
    root = osp.join(root_path, 'experiments' if is_train else 'results', opt['name'])
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
        'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'SLURM_NODELIST'),
    }[launcher]
    missing = [name for name in wanted if name not in env]
    if missing:
        starter = 'torchrun --nproc_per_node=N' if launcher == 'pytorch' else 'srun'
        fail(f'--launcher {launcher}: {", ".join(missing)} not set; start with {starter}')
    if launcher == 'slurm':
        env.update(RANK=env['SLURM_PROCID'], WORLD_SIZE=env['SLURM_NTASKS'], LOCAL_RANK=env['SLURM_LOCALID'])
        env['MASTER_ADDR'] = subprocess.getoutput(f"scontrol show hostname {env['SLURM_NODELIST']} | head -n1")
        env['MASTER_PORT'] = str(port or env.get('MASTER_PORT', 29500))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(env['LOCAL_RANK']) % torch.cuda.device_count())
        backend = backend if backend == 'gloo' else f'cpu:gloo,cuda:{backend}'
    else:
        backend = 'gloo'
    kwargs.setdefault('timeout', NETWORK_TIMEOUT)
    dist.init_process_group(backend, **kwargs)


def model_to_device(self: BaseModel, net: nn.Module) -> nn.Module:
    """BaseModel.model_to_device; on the CPU DistributedDataParallel takes no device."""
    if self.opt['dist'] and self.device.type == 'cpu':
        return DistributedDataParallel(
            net.to(self.device), find_unused_parameters=self.opt.get('find_unused_parameters', False))
    return _model_to_device(self, net)


# -------------------------------------------------------------------- resume


def mend_training_scripts(ours: bool) -> None:
    """Repair the functions of train.py, which live in ``__main__`` too when it is run as a script."""
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


def say_in_one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """An exception hook: one line for a user's mistake, the traceback for anything else."""
    line = explain_run(error)
    if line is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        print(line, file=sys.stderr)


class Resume:
    """The two functions of a training script that know of resuming.

    Args:
        script: BasicSR's train.py.
    """

    def __init__(self, script: Any) -> None:
        self.state: dict[str, Any] | None = None
        self._create_dataloaders = script.create_train_val_dataloader
        script.load_resume_state = self.load_resume_state
        script.create_train_val_dataloader = self.create_train_val_dataloader

    def load_resume_state(self, opt: dict[str, Any]) -> dict[str, Any] | None:
        """The training state to continue from, on the CPU, or None. The networks' paths are put into ``opt``."""
        path = opt['path']
        self.state = None
        if opt['auto_resume']:
            found = [newest_state(opt) if opt['rank'] == 0 else None]
            if opt['dist']:
                dist.broadcast_object_list(found)
            path['resume_state'] = found[0]
        if path.get('resume_state'):
            try:
                self.state = read_state(path['resume_state'], opt)
            except ValueError as error:
                fail(f'cannot resume: {error}')
            for key in ('models', 'training_states', 'visualization'):
                os.makedirs(path[key], exist_ok=True)
            check_resume(opt, self.state['iter'])
        return self.state

    def create_train_val_dataloader(self, opt: dict[str, Any], logger: Any) -> tuple:
        """BasicSR's; the sampler continues inside the epoch."""
        result = self._create_dataloaders(opt, logger)
        if self.state is not None and opt['model_type'] in OUR_MODELS:
            # The epoch follows from the iteration: the batches of an epoch may be others than before.
            self.state['epoch'] = result[1].start_from(self.state['iter'])
        return result


def newest_state(opt: dict[str, Any]) -> str | None:
    """Path of the newest complete training state of the experiment, or None; names those it passes over."""
    folder = opt['path']['training_states']
    names = os.listdir(folder) if osp.isdir(folder) else []
    numbers = sorted((int(name[:-len('.state')]) for name in names if re.fullmatch(r'\d+\.state', name)), reverse=True)
    for number in numbers:
        path = osp.join(folder, f'{number}.state')
        try:
            read_state(path, opt)
        except ValueError as error:
            warn(f'skipped {error}')
        else:
            return path
    if numbers:
        warn(f'no complete checkpoint in {folder}: starting anew, the old experiment is kept under another name')
    return None


def read_state(path: str, opt: dict[str, Any]) -> dict[str, Any]:
    """Load a training state to the CPU and see that its networks are there, whole where it knows their hashes.

    Raises:
        ValueError: Path and what is wrong.
    """
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise ValueError(f'{path}: no such file') from None
    except Exception as error:  # torch.load answers a broken file with many kinds
        raise ValueError(f'{path}: not a readable training state ({type(error).__name__})') from None
    if not isinstance(state, dict) or not {'epoch', 'iter', 'optimizers', 'schedulers'} <= state.keys():
        raise ValueError(f'{path}: not a training state')
    if opt['model_type'] in OUR_MODELS:
        networks = [key[len('network_'):] for key in opt if key.startswith('network_')]
        files = state.get('files') or {f"net_{name}_{state['iter']}.pth": None for name in networks}
        for name, sha256 in files.items():
            file = osp.join(opt['path']['models'], name)
            if not osp.isfile(file):
                raise ValueError(f'{path}: its network {file} is missing')
            if sha256 and file_sha256(file) != sha256:
                raise ValueError(f'{path}: its network {file} is not the one saved with it')
        for rank in range(1, state.get('world_size', 1)):
            file = path.replace('.state', f'_rank{rank}.pth')
            if not osp.isfile(file):
                raise ValueError(f'{path}: its part {file} is missing')
    return state
