"""The command ``ablate``: the four rows of the paper's table 5."""
from __future__ import annotations

import argparse

HELP = 'train the generator without and with EMA and ASPP, and tabulate the four'
INTERRUPTED = 'Interrupted; the same command continues.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--opt', required=True, metavar='FILE.yml', help='base option file')
    parser.add_argument('--budget', required=True, metavar='500it|10min', help='of each run')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], metavar='N', help='default: 0')
    parser.add_argument('--force_yml', nargs='+', default=[], metavar='KEY=VALUE', help='override options of the base')
    parser.add_argument('--output', required=True, metavar='DIR', help='the same one continues')


def run(args: argparse.Namespace) -> None:
    import lowlight_cyclegan
    lowlight_cyclegan.register()
    from lowlight_cyclegan.training.ablation import ablate
    ablate(args.opt, args.budget, args.seeds, args.output, force_yml=args.force_yml)
