"""The command ``train``: ``python -m lowlight_cyclegan.train`` with the same flags."""
from __future__ import annotations

import argparse

HELP = 'train from an option file; results go to ./experiments'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lowlight_cyclegan.config import add_run_flags
    add_run_flags(parser)


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.config import RunFlags
    from lowlight_cyclegan.train import train
    train(RunFlags(args.opt, args.launcher, args.auto_resume, args.debug, args.force_yml))
