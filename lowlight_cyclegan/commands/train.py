"""The command ``train``: ``python -m lowlight_cyclegan.train`` with the same flags, or within a time budget."""
from __future__ import annotations

import argparse

from lowlight_cyclegan.config import RunFlags, add_run_flags
from lowlight_cyclegan.messages import fail
from .arguments import number

HELP = 'train from an option file; results go to ./experiments'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_flags(parser)
    parser.add_argument('--minutes', type=number(1, 1e6), metavar='N',
                        help='time budget, everything included: the number of iterations follows from the speed here')


def run(args: argparse.Namespace) -> None:
    if args.minutes is None:
        from lowlight_cyclegan.train import train
        train(RunFlags.of(args))
        return
    if args.launcher != 'none' or args.auto_resume or args.debug:
        fail('--minutes: a budget is for one process and a run that begins: leave --launcher, --auto_resume and '
             '--debug out')
    from lowlight_cyclegan.training.budget import train_within
    raise SystemExit(train_within(args.opt, args.minutes, args.force_yml))
