"""The command ``test``: ``python -m lowlight_cyclegan.test`` with the same flags."""
from __future__ import annotations

import argparse

HELP = 'enhance and measure from an option file; results go to ./results'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lowlight_cyclegan.config import add_run_flags
    add_run_flags(parser)


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.config import RunFlags
    from lowlight_cyclegan.test import test
    test(RunFlags.of(args))
