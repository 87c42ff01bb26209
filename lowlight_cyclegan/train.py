"""Train from an option file: ``python -m lowlight_cyclegan.train -opt options/train_lol.yml``.

BasicSR's train_pipeline and flags; ./experiments takes what it writes.
"""
from __future__ import annotations

import functools
import os
import signal
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .config import RunFlags, run_flags
from .messages import explain_run, fail, raise_interrupted


def main(argv: Sequence[str] | None = None) -> None:
    """Train by a command line, this process's by default."""
    train(run_flags(argv))  # wrong flags answer before torch is loaded


def train(flags: RunFlags) -> None:
    """Train in the current folder.

    Raises:
        SystemExit: Whatever ends the run early, with one line for each mistake of the user.
    """
    run_script('train', flags)


def run_script(name: str, flags: RunFlags) -> None:
    """Call the pipeline of BasicSR's script 'train' or 'test' with these flags.

    Raises:
        SystemExit: See :func:`train`; 130 where Ctrl-C came before the run listens, or a second time.
    """
    try:
        from . import register, repairs
        register()
        script: Any = import_module(f'basicsr.{name}')
        script.parse_options = functools.partial(repairs.parse_options, flags=flags)
        try:
            getattr(script, f'{name}_pipeline')(os.getcwd())
        finally:
            script.parse_options = repairs.parse_options
    except KeyboardInterrupt:
        raise_interrupted()
    except Exception as error:
        line = explain_run(error)
        if line is None:
            raise
        if 'DataLoader worker' in line and hasattr(signal, 'SIGCHLD'):
            # The loader's handler would raise once more as the other workers end, in place of the line.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        fail(line, alone=True)


if __name__ == '__main__':
    main()
