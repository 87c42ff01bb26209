"""The command ``info``."""
from __future__ import annotations

import argparse
import json
import sys
from os import path as osp

from lowlight_cyclegan.messages import fail, nearest

HELP = 'show versions, paths, weights and what is registered in BasicSR, or a model card'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', nargs='?', help='weights in the package, for example lite: prints their card')
    parser.add_argument('--json', action='store_true', help='for programs')


def run(args: argparse.Namespace) -> None:
    if args.model:
        from lowlight_cyclegan.enhance.pretrained import bundled, card
        if args.model not in bundled():
            fail(f'{args.model}: no bundled weights have that name{nearest(args.model, bundled())}')
        print(json.dumps({'name': args.model, 'card': card(args.model)}) if args.json else card(args.model))
        return
    found = info()
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f'{name:<17} {", ".join(value) or "none" if isinstance(value, list) else value or "not installed"}')


def info() -> dict[str, str | list[str] | None]:
    """Versions, paths, attached folders, weights in the box and what is registered in BasicSR.

    Returns:
        dict[str, str | list[str] | None]: By their names, None for a package that is not installed.
    """
    import torch
    from importlib.metadata import PackageNotFoundError, version

    import lowlight_cyclegan
    from lowlight_cyclegan import __version__
    from lowlight_cyclegan.attach import attached_dirs, toolbox_dir
    from lowlight_cyclegan.config import options_dir
    from lowlight_cyclegan.registration import register
    register()
    from lowlight_cyclegan.enhance.pretrained import bundled
    from basicsr.utils import registry
    found: dict[str, str | list[str] | None] = {
        'lowlight_cyclegan': f'{__version__} in {osp.dirname(osp.abspath(lowlight_cyclegan.__file__))}',
        'options': options_dir(),
        'weights': bundled(),
        'toolbox': toolbox_dir(),
        'attached': attached_dirs(),
        'python': sys.version.split()[0],
    }
    for name in ('basicsr', 'torch', 'torchvision', 'mmengine', 'lpips', 'opencv-python', 'pyiqa'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    found['GPUs'] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    for kind in ('arch', 'dataset', 'loss', 'metric', 'model'):
        entries = getattr(registry, f'{kind.upper()}_REGISTRY')
        found[kind + ('es' if kind == 'loss' else 's')] = [
            name for name, obj in entries if obj.__module__.startswith('lowlight_cyclegan.')]
    return found
