"""The command ``info``."""
from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lowlight_cyclegan.config import bundled, options_dir
from lowlight_cyclegan.messages import fail, nearest

PACKAGE = Path(__file__).resolve().parents[1]
HELP = 'show versions, paths, weights and what is registered in BasicSR, or a model card'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', nargs='?', help='weights in the package, for example lite: prints their card')
    parser.add_argument('--json', action='store_true', help='for programs')


def run(args: argparse.Namespace) -> None:
    if args.model:
        if args.model not in bundled():
            fail(f'{args.model}: no bundled weights have that name{nearest(args.model, bundled())}')
        card = Path(bundled()[args.model]).with_suffix('.md').read_text(encoding='utf-8')
        print(json.dumps({'name': args.model, 'card': card}) if args.json else card)
        return
    found = info()
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f'{name:<17} {", ".join(value) or "none" if isinstance(value, list) else value or "not installed"}')


def info() -> dict[str, str | list[str] | None]:
    """Versions, paths, attached folders, bundled weights and what we register in BasicSR. Loads neither it nor torch.

    Returns:
        By their names, None for a package that is not installed.
    """
    from lowlight_cyclegan import __version__
    from lowlight_cyclegan.attach import attached_dirs, toolbox_dir
    found: dict[str, str | list[str] | None] = {
        'lowlight_cyclegan': f'{__version__} in {PACKAGE}',
        'options': options_dir(),
        'weights': list(bundled()),
        'toolbox': None,
        'attached': attached_dirs(),
        'python': sys.version.split()[0],
    }
    for name in ('basicsr', 'torch', 'torchvision', 'mmengine', 'lpips', 'opencv-python', 'pyiqa'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if found['basicsr']:
        found['toolbox'] = toolbox_dir()
    found['GPUs'] = _gpus()
    for kind, folder in (('arch', 'archs'), ('dataset', 'data'), ('loss', 'losses'), ('metric', 'metrics'),
                         ('model', 'models')):
        found[kind + ('es' if kind == 'loss' else 's')] = _registered(folder, kind)
    return found


def _gpus() -> list[str]:
    """Names of NVIDIA's GPUs, as its driver's tool gives them."""
    if shutil.which('nvidia-smi') is None:
        return []
    command = ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split('\n')[:-1] if done.returncode == 0 else []


def _registered(folder: str, kind: str) -> list[str]:
    """Names that our sources register, which are read, not imported."""
    pattern = rf'^@{kind.upper()}_REGISTRY\b.*\n(?:@.*\n)*(?:class|def) (\w+)'
    texts = (path.read_text(encoding='utf-8') for path in sorted((PACKAGE / folder).glob('*.py')))
    return [name for text in texts for name in re.findall(pattern, text, re.MULTILINE)]
