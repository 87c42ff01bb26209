"""The console command ``lowlight-cyclegan``: one module a command.

A command is a module here with ``HELP`` (one line), ``add_arguments(parser)`` and ``run(args)``; a heavy import stands
inside one of the two. ``run`` makes one call of the library. What that raises for a user's mistake, ValueError or
OSError, ends the process with one line here: nothing below this package reads a command line or exits.
"""
from __future__ import annotations

import argparse
import atexit
import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from lowlight_cyclegan.messages import explain, explain_run, fail, raise_interrupted

COMMANDS = ('enhance', 'video', 'web', 'export', 'train', 'test', 'data', 'evaluate', 'ablate', 'info', 'attach',
            'detach')
NETWORK_ONLY = ('enhance', 'video', 'export')  # run a network in this process alone, with nothing left to wind up
EPILOG = """exit codes: 0 done, 1 failed, with a line that says why, 2 wrong command line, 130 interrupted.
COMMAND --help says more."""


def _command(name: str) -> ModuleType:
    return import_module(f'{__name__}.{name}')


def build_parser(names: Sequence[str] = COMMANDS, filled: bool = True) -> argparse.ArgumentParser:
    """Parser of these commands; without ``filled`` they have a line of help each and no flags."""
    parser = argparse.ArgumentParser(
        prog='lowlight-cyclegan', description='Low-light image enhancement with an attention CycleGAN, on BasicSR.',
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='store_true', help='print the version')
    group = parser.add_subparsers(title='commands', metavar='COMMAND')
    for name in names:
        command = _command(name)
        text = f'{command.HELP[0].upper()}{command.HELP[1:]}.'
        sub = group.add_parser(name, help=command.HELP, description=text)
        sub.set_defaults(command=command)
        if filled:
            command.add_arguments(sub)
    return parser


def console() -> None:
    """What the shell runs: :func:`main` on the process's arguments, and a quick end.

    Raises:
        SystemExit: As main does.
    """
    main()
    if 'torch' in sys.modules and sys.argv[1] in NETWORK_ONLY:
        _end()


def _end() -> NoReturn:
    """End the process, successfully, after its threads and exit handlers, but without unloading torch.

    The destructors of the libraries that a build for CUDA brings read 130 MB of them into memory, a quarter of what
    importing torch takes, to give back what the system takes back anyway.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command line. Without arguments it prints the help.

    Raises:
        SystemExit: Anything but success, see the exit codes in the help.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    given = next((text for text in argv if not text.startswith('-')), None)
    # Only the command that is used gets its flags: those of some come from heavy modules.
    parser = build_parser([given]) if given in COMMANDS else build_parser(filled=False)
    args = parser.parse_args(argv)
    if args.version:
        from lowlight_cyclegan import __version__
        print(__version__)
    elif not hasattr(args, 'command'):
        parser.print_help()
    else:
        try:
            args.command.run(args)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has seen enough, as in "| head"
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            raise_interrupted(getattr(args.command, 'INTERRUPTED', 'Interrupted.'))
        except (ValueError, OSError) as error:
            fail(explain(error))
        except ModuleNotFoundError as error:
            line = explain_run(error)
            if line is None:
                raise
            fail(line)
