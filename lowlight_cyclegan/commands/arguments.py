"""Types of flags that several commands have, for argparse."""
from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


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


def size(text: str) -> tuple[int, int]:
    """Width and height, written as 600x400."""
    width, _, height = text.partition('x')
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'write it as 600x400, found {text!r}')
    return int(width), int(height)


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


strength = number(0, 1)
