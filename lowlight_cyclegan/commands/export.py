"""The command ``export``."""
from __future__ import annotations

import argparse

HELP = 'write a generator as ONNX or torch.export'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lowlight_cyclegan.enhance import export
    export.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.enhance import export
    export.run(args)
