"""Enhance and measure from an option file: ``python -m lowlight_cyclegan.test -opt options/test_lol.yml``.

BasicSR's test_pipeline and flags; ./results takes what it writes.
"""
from __future__ import annotations

from collections.abc import Sequence

from .config import RunFlags, run_flags
from .train import run_script


def main(argv: Sequence[str] | None = None) -> None:
    """Test by a command line, this process's by default."""
    test(run_flags(argv))


def test(flags: RunFlags) -> None:
    """Test in the current folder.

    Raises:
        SystemExit: Whatever ends the run early, with one line for each mistake of the user.
    """
    run_script('test', flags)


if __name__ == '__main__':
    main()
