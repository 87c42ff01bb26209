"""The command ``video``."""
from __future__ import annotations

import argparse

HELP = 'brighten a dark video, with its sound'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lowlight_cyclegan.video import video
    video.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.video import video
    video.run(args)
