"""The command ``attach``."""
from __future__ import annotations

import argparse

HELP = "make BasicSR's own commands (python basicsr/train.py) see this plugin in a folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('directory', nargs='?', default='.',
                        help='BasicSR source tree or any folder. Default: this one')
    parser.add_argument('--force', action='store_true', help='overwrite option files that differ from ours')


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.attach import attach
    attach(args.directory, args.force)
