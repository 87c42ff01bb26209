"""Option files and the flags of a run: found, read, overridden, completed. Imports neither torch nor basicsr."""
from __future__ import annotations

import argparse
import os
import re
import sys
import yaml
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import path as osp
from typing import Any

from . import schema
from .messages import nearest, warn

__all__ = ['DEFAULT_MODEL', 'OPTIONS_USED', 'OptionLoader', 'RunFlags', 'add_run_flags', 'bundled', 'complete_options',
           'datasets_of', 'dump', 'find_file', 'find_lists', 'force_option', 'get', 'load_options', 'options_dir',
           'run_flags', 'run_folder', 'suit_machine', 'written_out']

BASE = '_base_'
DEFAULT_MODEL = 'everyday'  # the bundled weights that everything takes unless told otherwise
OPTIONS_USED = 'options_used.yml'  # beside a run: what it used, resolved, completed and overridden


class OptionLoader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]
    """YAML without Python objects, in which 1e-4 is a number as 1.0e-4 is."""


OptionLoader.add_implicit_resolver('tag:yaml.org,2002:float', re.compile(r'[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$'),
                                   list('-+.0123456789'))


def options_dir() -> str:
    """Folder of our option files: inside the installed package, or at the top of a checkout."""
    here = osp.dirname(osp.abspath(__file__))
    packaged = osp.join(here, 'options')
    return packaged if osp.isdir(packaged) else osp.join(osp.dirname(here), 'options')


def bundled() -> dict[str, str]:
    """Files of the weights that the package brings along, by their names."""
    folder = osp.join(osp.dirname(osp.abspath(__file__)), 'weights')
    return {name.removesuffix('.safetensors'): osp.join(folder, name) for name in sorted(os.listdir(folder))
            if name.endswith('.safetensors')}


def find_file(path: str, folders: Iterable[str]) -> str:
    """The path itself if there is such a file, else the first ``folder/path`` or ``folder/name``, else the path."""
    path = osp.expanduser(path)
    candidates = [path] + [osp.join(folder, p) for folder in folders for p in (path, osp.basename(path))]
    return next(filter(osp.isfile, candidates), path)


def load_options(path: str, _heirs: Sequence[str] = ()) -> dict[str, Any]:
    """Read an option file, with what it inherits.

    ``_base_: FILE.yml``, looked for beside the file and among the package's option files, gives the options that the
    file changes: section by section, and a section that begins with ``_delete_: true`` replaces that of the base.

    Raises:
        ValueError: It or its base cannot be read, is no YAML or no mapping, or it inherits from itself.
    """
    opt = _read(path)
    if BASE not in opt:
        return opt
    name = opt.pop(BASE)
    if not isinstance(name, str):
        raise ValueError(f'-opt {path}: {BASE}: is one file name, found {name!r}')
    heirs = [*_heirs, osp.realpath(path)]
    base = find_file(name, [osp.dirname(path), options_dir()])
    if osp.realpath(base) in heirs:
        raise ValueError(f'-opt {path}: {BASE}: {name} inherits from this file')
    from mmengine.config import Config  # loads torch: for heirs alone
    config = Config(load_options(base, heirs))
    try:
        config.merge_from_dict(opt, allow_list_keys=False)
    except TypeError:
        raise ValueError(f'-opt {path}: a section stands where {name} has a value: begin it with _delete_: true') \
            from None
    return config.to_dict()


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding='utf-8') as f:
            opt = yaml.load(f, Loader=OptionLoader)
    except OSError as error:
        raise ValueError(f'-opt {path}: {error.strerror}') from None
    except UnicodeDecodeError:
        raise ValueError(f'-opt {path}: is not a text file') from None
    except yaml.YAMLError as error:
        raise ValueError(f'-opt {path}: is not valid YAML: {" ".join(str(error).split())}') from None
    if not isinstance(opt, dict):
        raise ValueError(f'-opt {path}: holds no options')
    return opt


def written_out(path: str) -> str:
    """Text of an option file that stands alone: with ``_base_`` the resolved options, else the file as it is."""
    with open(path, encoding='utf-8') as f:
        text = f.read()
    if not re.search(f'^{BASE}:', text, re.MULTILINE):
        return text
    head = ''.join(re.findall(r'^#.*\n', text.split(BASE)[0], re.MULTILINE))
    return f'{head}# Written out in full.\n\n{dump(load_options(path))}'


def dump(opt: dict[str, Any]) -> str:
    """Options as YAML that every loader reads: no aliases, no Python objects."""
    dumper = type('Dumper', (yaml.SafeDumper, ), {'ignore_aliases': lambda self, data: True})
    return yaml.dump(opt, Dumper=dumper, sort_keys=False, width=120)


def run_folder(opt: dict[str, Any], root: str = '.', is_train: bool = True) -> str:
    """Folder of a run: its name under ``path: experiments_root`` (or results_root), by default root/experiments."""
    key, default = ('experiments_root', 'experiments') if is_train else ('results_root', 'results')
    return osp.join(root, osp.expanduser(get(opt, f'path:{key}') or default), opt['name'])


def get(opt: Any, path: str) -> Any:
    """What stands at ``section:key``, None where nothing does."""
    for key in path.split(':'):
        opt = opt.get(key) if isinstance(opt, dict) else None
    return opt


def datasets_of(opt: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Phases, as 'train' or 'val_2', and their sections."""
    datasets = opt.get('datasets')
    for phase, section in datasets.items() if isinstance(datasets, dict) else ():
        if isinstance(section, dict):
            yield phase, section


def force_option(opt: dict[str, Any], entry: str) -> None:
    """Apply one ``section:key=value`` of ``--force_yml``; the value is read as YAML.

    Raises:
        ValueError: It has another form or names an unknown section.
    """
    keys, equals, text = entry.partition('=')
    *sections, key = (k.strip() for k in keys.split(':'))
    if not equals or not key:
        raise ValueError(f'--force_yml {entry}: write it as section:key=value')
    target = opt
    for name in sections:
        if not isinstance(target.get(name), dict):
            raise ValueError(f'--force_yml {entry}: no section {name!r}' +
                             nearest(name, [k for k, v in target.items() if isinstance(v, dict)]))
        target = target[name]
    try:
        value = yaml.load(text, Loader=OptionLoader)
    except yaml.YAMLError:
        value = text.strip()
    target[key] = None if text.strip().lower() == 'none' else value


def complete_options(opt: dict[str, Any], file: str, launcher: str = 'none', is_train: bool = True) -> None:
    """Put in what the option file leaves out, for our models; one process drives one GPU.

    Raises:
        ValueError: ``num_gpu`` and the launcher do not go together.
    """
    import torch
    if launcher == 'none':
        if 'TORCHELASTIC_RUN_ID' in os.environ and os.environ.get('WORLD_SIZE') != '1':
            raise ValueError('started by torchrun without --launcher pytorch: add it')
        # BasicSR reads auto as all GPUs: DataParallel, and a batch that many times larger.
        if opt.get('num_gpu') in (None, 'auto'):
            opt['num_gpu'] = min(1, torch.cuda.device_count())
        elif opt['num_gpu'] not in (0, 1):
            raise ValueError(f"num_gpu: {opt['num_gpu']}, but one process drives one GPU: write auto and start with "
                             'torchrun --nproc_per_node=N ... --launcher pytorch')
    opt['name'] = str(opt.get('name') or osp.splitext(osp.basename(file))[0])
    schema.fill_in(opt, is_train)
    find_lists(opt, file)
    for phase, dataset in datasets_of(opt):
        if phase == 'train':
            dataset['manual_seed'] = opt['manual_seed']  # one for all processes; BasicSR draws one in each


def find_lists(opt: dict[str, Any], file: str) -> None:
    """Lists of names that datasets have, looked for beside the option file and among the package's too."""
    for _, dataset in datasets_of(opt):
        for key in ('names', 'exclude_names'):
            if isinstance(dataset.get(key), str):
                dataset[key] = find_file(dataset[key], [osp.dirname(file), options_dir()])


def suit_machine(opt: dict[str, Any]) -> None:
    """Take back what needs a GPU where none is used, and persistent workers where there are no workers."""
    import torch
    if isinstance(opt.get('num_gpu'), int) and opt['num_gpu'] > 0 and not torch.cuda.is_available():
        warn(f"num_gpu: {opt['num_gpu']}, but torch finds no GPU: running on the CPU")
        opt['num_gpu'] = 0
    on_gpu = torch.cuda.is_available() and opt.get('num_gpu') != 0
    for phase, dataset in datasets_of(opt):
        # Loaders of val and test have no workers whatever the options say.
        workers = dataset.get('num_worker_per_gpu') if phase == 'train' else 0
        if dataset.get('persistent_workers') and not workers:
            dataset['persistent_workers'] = False
        if not on_gpu and dataset.get('pin_memory'):
            dataset['pin_memory'] = False
        if not on_gpu and dataset.get('prefetch_mode') == 'cuda':
            dataset['prefetch_mode'] = None


@dataclass
class RunFlags:
    """Command line of a training or test run: BasicSR's flags."""
    opt: str
    launcher: str = 'none'
    auto_resume: bool = False
    debug: bool = False
    force_yml: Sequence[str] = ()

    @classmethod
    def of(cls, args: argparse.Namespace) -> RunFlags:
        """Those that :func:`add_run_flags` had parsed."""
        return cls(args.opt, args.launcher, args.auto_resume, args.debug, args.force_yml)


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add BasicSR's flags for training and testing."""
    parser.add_argument('-opt', required=True, metavar='FILE.yml', help='option file')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='pytorch: started by torchrun')
    parser.add_argument(
        '--auto_resume', action='store_true', help='continue from the newest complete checkpoint, if there is one')
    parser.add_argument('--debug', action='store_true', help='short intervals, experiment named debug_...')
    parser.add_argument(
        '--force_yml', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
        help='override options, for example train:total_iter=100 datasets:train:batch_size_per_gpu=2')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def run_flags(argv: Sequence[str] | None = None, prog: str | None = None) -> RunFlags:
    """Flags of a run from a command line, this process's by default. Wrong ones end the process with code 2."""
    if prog is None:
        spec = getattr(sys.modules['__main__'], '__spec__', None)
        prog = None if spec is None else f'python -m {spec.name}'
    parser = argparse.ArgumentParser(prog=prog)
    add_run_flags(parser)
    return RunFlags.of(parser.parse_args(argv))
