"""Option files and the flags of a run: found, read, overridden. Imports stay light."""
import argparse
import re
import sys
import yaml
from os import path as osp

from .messages import fail, nearest

__all__ = ['OptionLoader', 'add_run_flags', 'find_file', 'force_option', 'load_options', 'options_dir', 'run_parser']


class OptionLoader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):
    """YAML without Python objects, in which 1e-4 is a number as 1.0e-4 is."""


OptionLoader.add_implicit_resolver('tag:yaml.org,2002:float', re.compile(r'[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$'),
                                   list('-+.0123456789'))


def options_dir():
    """Folder of our option files: inside the installed package, or at the top of a checkout."""
    here = osp.dirname(osp.abspath(__file__))
    packaged = osp.join(here, 'options')
    return packaged if osp.isdir(packaged) else osp.join(osp.dirname(here), 'options')


def find_file(path, folders):
    """The path itself if there is such a file, else the first ``folder/path`` or ``folder/name``, else the path."""
    path = osp.expanduser(path)
    candidates = [path] + [osp.join(folder, p) for folder in folders for p in (path, osp.basename(path))]
    return next(filter(osp.isfile, candidates), path)


def load_options(path):
    """Read an option file.

    Raises:
        SystemExit: It cannot be read, is no YAML or no mapping.
    """
    try:
        with open(path, encoding='utf-8') as f:
            opt = yaml.load(f, Loader=OptionLoader)
    except OSError as error:
        fail(f'-opt {path}: {error.strerror}')
    except UnicodeDecodeError:
        fail(f'-opt {path}: is not a text file')
    except yaml.YAMLError as error:
        fail(f'-opt {path}: is not valid YAML: {" ".join(str(error).split())}')
    if not isinstance(opt, dict):
        fail(f'-opt {path}: holds no options')
    return opt


def force_option(opt, entry):
    """Apply one ``section:key=value`` of ``--force_yml``; the value is read as YAML.

    Raises:
        SystemExit: It has another form or names an unknown section.
    """
    keys, equals, text = entry.partition('=')
    *sections, key = (k.strip() for k in keys.split(':'))
    if not equals or not key:
        fail(f'--force_yml {entry}: write it as section:key=value')
    target = opt
    for name in sections:
        if not isinstance(target.get(name), dict):
            fail(f'--force_yml {entry}: no section {name!r}' +
                 nearest(name, [k for k, v in target.items() if isinstance(v, dict)]))
        target = target[name]
    try:
        value = yaml.load(text, Loader=OptionLoader)
    except yaml.YAMLError:
        value = text.strip()
    target[key] = None if text.strip().lower() == 'none' else value


def run_parser(prog=None):
    """Parser of BasicSR's flags for training and testing."""
    parser = argparse.ArgumentParser(prog=prog or _prog())
    add_run_flags(parser)
    return parser


def add_run_flags(parser):
    parser.add_argument('-opt', required=True, metavar='FILE.yml', help='option file')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='pytorch: started by torchrun')
    parser.add_argument(
        '--auto_resume', action='store_true', help='continue from the newest complete checkpoint, if there is one')
    parser.add_argument('--debug', action='store_true', help='short intervals, experiment named debug_...')
    parser.add_argument(
        '--force_yml', nargs='+', default=None, metavar='KEY=VALUE',
        help='override options, for example train:total_iter=100 datasets:train:batch_size_per_gpu=2')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def _prog():
    spec = getattr(sys.modules['__main__'], '__spec__', None)
    return f'python -m {spec.name}' if spec is not None else None
