"""The command ``web``."""
from __future__ import annotations

import argparse

HELP = 'brighten photos in the browser: serves a page'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from lowlight_cyclegan.web import server
    server.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from lowlight_cyclegan.web import server
    server.run(args)
