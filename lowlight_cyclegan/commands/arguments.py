"""Types of flags that several commands have, for argparse."""
from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from lowlight_cyclegan.config import DEFAULT_MODEL


def number(low: float, high: float, kind: Callable[[str], Any] = float) -> Callable[[str], Any]:
    """A number from low to high, both included."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f'must be a number from {low:g} to {high:g}, found {text!r}')
        return value

    return parse


def natural(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f'must be a whole number of at least 0, found {text!r}')
    return int(text)


def path(text: str) -> str:
    """Anything but nothing."""
    if not text:
        raise argparse.ArgumentTypeError('must not be empty')
    return text


def part_of_name(text: str) -> str:
    """What can stand in a file's name."""
    if '/' in text or '\\' in text or '\0' in text:
        raise argparse.ArgumentTypeError(f'must be part of a name, found {text!r}')
    return text


def add_weights(parser: argparse._ActionsContainer) -> None:
    """Which network."""
    parser.add_argument('--model', default=DEFAULT_MODEL, metavar='NAME|FILE',
                        help='name of packaged weights, file or folder. Default: %(default)s')
    parser.add_argument('--options', metavar='FILE.yml', help='option file of weights that do not say what they hold')


def add_network(parser: argparse._ActionsContainer) -> None:
    """Which network, and how it runs."""
    add_weights(parser)
    parser.add_argument('--mode', choices=['auto', 'direct', 'guided'], default='auto',
                        help='in one piece, or the effect of a reduced copy; everyday takes any size. Default: by size '
                        'and memory')
    parser.add_argument('--device', help='default: cuda where there is one, else cpu')
    parser.add_argument('--precision', choices=['auto', 'fp32', 'bf16'], default='auto', help='default: by device')
