"""The command ``detach``."""
from __future__ import annotations

import argparse

HELP = 'undo attach'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('directory', nargs='?', default='.', help='attached folder. Default: this one')


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.attach import detach
    detach(args.directory)
