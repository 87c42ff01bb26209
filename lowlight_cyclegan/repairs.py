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
import os
import re
import subprocess
import sys
import torch
import torch.distributed as dist
import yaml
from basicsr import test as test_script
from basicsr import train as train_script
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.models.base_model import BaseModel
from basicsr.utils import dist_util, options
from basicsr.utils.misc import check_resume
from contextlib import contextmanager
from datetime import timedelta
from os import path as osp
from torch.nn.parallel import DistributedDataParallel
from types import SimpleNamespace

from .config import find_file, force_option, load_options, options_dir, run_parser
from .messages import fail, warn

OUR_MODELS = ('LowLightCycleGANModel', 'ZeroReferenceModel')
NETWORK_TIMEOUT = timedelta(minutes=10)  # a process that waits longer than this for the others gives up

_parse_options = options.parse_options
_model_to_device = BaseModel.model_to_device


def apply():
    """Install the repairs. Repeated calls change nothing more."""
    for module in (options, train_script, test_script):
        module.parse_options = parse_options
    for module in (options, dist_util):
        module.init_dist = init_dist
    BaseModel.model_to_device = model_to_device


# ------------------------------------------------------------------- options


def parse_options(root_path, is_train=True):
    """BasicSR's parse_options behind checks, with options that suit this machine.

    Returns:
        tuple[dict, argparse.Namespace]: Options and command line.

    Raises:
        SystemExit: Something in the file or on the command line is wrong; one line for each.
    """
    args, unknown = run_parser().parse_known_args()
    args.opt = find_file(args.opt, [options_dir()])
    opt = load_options(args.opt)
    for entry in args.force_yml or ():
        force_option(opt, entry)
    from .registration import register
    register()
    ours = opt.get('model_type') in OUR_MODELS
    if ours:
        complete_options(opt, args)
    suit_machine(opt)
    if ours:
        from . import preflight
        preflight.check(opt, is_train)
    mend_training_scripts(ours)

    argv = [sys.argv[0], '-opt', args.opt, '--launcher', args.launcher, *unknown]
    argv += [f'--{flag}' for flag in ('auto_resume', 'debug') if getattr(args, flag)]
    loaded = SimpleNamespace(load=lambda *_, **__: opt, resolver=yaml.resolver)
    with replaced(sys, 'argv', argv), replaced(options, 'yaml', loaded):
        opt, _ = _parse_options(root_path, is_train)
    return opt, args


@contextmanager
def replaced(owner, name, value):
    """Give an attribute another value for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def complete_options(opt, args):
    """Defaults that our models need, and one process for each GPU."""
    if args.launcher == 'none':
        if 'TORCHELASTIC_RUN_ID' in os.environ and os.environ.get('WORLD_SIZE') != '1':
            fail('started by torchrun without --launcher pytorch: add it')
        # BasicSR reads auto as all GPUs: DataParallel, and a batch that many times larger.
        if opt.get('num_gpu', 'auto') == 'auto':
            opt['num_gpu'] = min(1, torch.cuda.device_count())
        elif opt['num_gpu'] not in (0, 1):
            fail(f"num_gpu: {opt['num_gpu']}, but one process drives one GPU: write auto and start with "
                 'torchrun --nproc_per_node=N ... --launcher pytorch')
    opt.setdefault('num_gpu', 'auto')
    opt.setdefault('scale', 1)
    opt['name'] = str(opt.get('name', osp.splitext(osp.basename(args.opt))[0]))
    opt['manual_seed'] = opt.get('manual_seed') or 0  # one for all processes; BasicSR draws one in each
    for phase, dataset in _datasets(opt):
        for key in ('names', 'exclude_names'):
            if isinstance(dataset.get(key), str):
                dataset[key] = find_file(dataset[key], [osp.dirname(args.opt), options_dir()])
        if phase == 'train':
            dataset['manual_seed'] = opt['manual_seed']


def _datasets(opt):
    datasets = opt.get('datasets')
    return [(k, v) for k, v in datasets.items() if isinstance(v, dict)] if isinstance(datasets, dict) else []


def suit_machine(opt):
    """Take back what needs a GPU where none is used, and persistent workers where there are no workers."""
    if isinstance(opt.get('num_gpu'), int) and opt['num_gpu'] > 0 and not torch.cuda.is_available():
        warn(f"num_gpu: {opt['num_gpu']}, but torch finds no GPU: running on the CPU")
        opt['num_gpu'] = 0
    on_gpu = torch.cuda.is_available() and opt.get('num_gpu') != 0
    for phase, dataset in _datasets(opt):
        # Loaders of val and test have no workers whatever the options say.
        workers = dataset.get('num_worker_per_gpu') if phase == 'train' else 0
        if dataset.get('persistent_workers') and not workers:
            dataset['persistent_workers'] = False
        if not on_gpu and dataset.get('pin_memory'):
            dataset['pin_memory'] = False
        if not on_gpu and dataset.get('prefetch_mode') == 'cuda':
            dataset['prefetch_mode'] = None


# --------------------------------------------------------------- distributed


def init_dist(launcher, backend='nccl', port=None, **kwargs):
    """Start torch.distributed from torchrun's or slurm's environment.

    CPU tensors go over gloo, GPU tensors over ``backend``; each process takes the GPU of its local rank.

    Args:
        launcher (str): 'pytorch' or 'slurm'.
        backend (str): Backend for GPU tensors. Default: 'nccl'.
        port (int | None): Master port, for slurm. Default: MASTER_PORT, else 29500.

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


def model_to_device(self, net):
    """BaseModel.model_to_device; on the CPU DistributedDataParallel takes no device."""
    if self.opt['dist'] and self.device.type == 'cpu':
        return DistributedDataParallel(
            net.to(self.device), find_unused_parameters=self.opt.get('find_unused_parameters', False))
    return _model_to_device(self, net)


# -------------------------------------------------------------------- resume


def mend_training_scripts(ours):
    """Repair the functions of train.py, which live in ``__main__`` too when it is run as a script."""
    from .data.data_sampler import EpochSampler
    scripts = [train_script]
    main = sys.modules['__main__']
    if osp.realpath(getattr(main, '__file__', '')).endswith(osp.join('basicsr', 'train.py')):
        scripts.append(main)
    for script in scripts:
        if not isinstance(getattr(script.load_resume_state, '__self__', None), Resume):
            Resume(script)
        script.EnlargedSampler = EpochSampler if ours else EnlargedSampler


class Resume:
    """The two functions of a training script that know of resuming.

    Args:
        script (module): BasicSR's train.py.
    """

    def __init__(self, script):
        self.state = None
        self._create_dataloaders = script.create_train_val_dataloader
        script.load_resume_state = self.load_resume_state
        script.create_train_val_dataloader = self.create_train_val_dataloader

    def load_resume_state(self, opt):
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

    def create_train_val_dataloader(self, opt, logger):
        """BasicSR's; the sampler continues inside the epoch."""
        result = self._create_dataloaders(opt, logger)
        if self.state is not None and opt['model_type'] in OUR_MODELS:
            # The epoch follows from the iteration: the batches of an epoch may be others than before.
            self.state['epoch'] = result[1].start_from(self.state['iter'])
        return result


def newest_state(opt):
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


def read_state(path, opt):
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
        from .models.checkpoint import file_sha256
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
