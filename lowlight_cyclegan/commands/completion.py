"""The command ``completion``."""
from __future__ import annotations

import argparse

HELP = 'print what completes this command in a shell'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = 'For bash: eval "$(lowlight-cyclegan completion bash)" in ~/.bashrc.'
    parser.add_argument('shell', choices=['bash', 'zsh', 'tcsh'])


def run(args: argparse.Namespace) -> None:
    import shtab

    from . import build_parser
    print(shtab.complete(build_parser(), args.shell))
