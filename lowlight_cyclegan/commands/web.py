"""The command ``web``: a page in the browser."""
from __future__ import annotations

import argparse
import re
from dataclasses import asdict, fields

from .arguments import number
from lowlight_cyclegan.config import DEFAULT_MODEL
from lowlight_cyclegan.web.limits import Limits

HELP = 'brighten photos in the browser: serves a page'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--host', default='127.0.0.1',
                        help='address to listen on; 0.0.0.0 lets other machines in. Default: %(default)s')
    parser.add_argument('--port', type=number(0, 65535, int), default=7860,
                        help='0 takes a free one. Default: %(default)s')
    parser.add_argument('--root-path', type=_root_path, default='', metavar='/PREFIX',
                        help='prefix of the page behind a reverse proxy, for example /light')
    parser.add_argument('--model', nargs='+', default=[DEFAULT_MODEL], metavar='NAME',
                        help='weights: a packaged name, a file or a folder; with several, the page lets one choose. '
                        'Default: everyday')
    parser.add_argument('--device', help='default: cuda where there is one, else cpu')
    group, defaults = parser.add_argument_group('limits'), asdict(Limits())
    for name, kind, metavar, text in (
        ('max_mb', float, 'MB', 'size of an upload'),
        ('max_megapixels', float, 'N', 'size of a photo'),
        ('queue', int, 'N', 'photos that may wait; one is worked on at a time'),
        ('keep', float, 'MINUTES', 'time after its last use at which a photo is removed'),
    ):
        group.add_argument(f'--{name.replace("_", "-")}', type=number(1 if kind is int else 1e-6, 1e6, kind),
                           default=defaults[name], metavar=metavar, help=f'{text}. Default: %(default)s')


def _root_path(text: str) -> str:
    path = text.rstrip('/')
    if not re.fullmatch(r'(/[\w.~-]+)*', path, re.ASCII):
        raise argparse.ArgumentTypeError(f'must be a path such as /light, found {text!r}')
    return path


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.enhance.inference import keep_freed_memory
    from lowlight_cyclegan.web.server import serve
    keep_freed_memory()
    limits = Limits(**{field.name: getattr(args, field.name) for field in fields(Limits)})
    serve(args.model, args.host, args.port, args.device, limits, args.root_path)
