"""What a run says to its user: once, not once for every process. Imports stay light."""
from __future__ import annotations

import difflib
import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Iterable
from typing import NoReturn


def fail(*lines: str, alone: bool = False) -> NoReturn:
    """End this process with these lines (exit status 1); one of several says which it is.

    Args:
        lines: What is wrong.
        alone: It may be so in this process only. Else one process of each machine speaks for all.

    Raises:
        SystemExit: Always.
    """
    rank, world_size, first_here = _place()
    if not first_here and not alone:
        raise SystemExit(1)
    prefix = f'[rank {rank}] ' if world_size > 1 else ''
    raise SystemExit('\n'.join(prefix + line for text in lines for line in text.splitlines()))


def raise_interrupted(line: str = 'Interrupted.') -> NoReturn:
    """End this process after Ctrl-C, as shells expect it (exit status 130); one process of each machine says so.

    Raises:
        SystemExit: Always.
    """
    if _place()[2]:
        print(line, file=sys.stderr, flush=True)
    raise SystemExit(128 + signal.SIGINT) from None


def warn(line: str) -> None:
    """Say something that does not end the run."""
    if _place()[0] == 0:
        logging.getLogger('lowlight_cyclegan').warning(line)


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its class if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def explain(error: BaseException) -> str:
    """The lines of an error of the library: those of a ValueError, file and reason of an OSError."""
    if not isinstance(error, OSError) or error.errno is None:
        return _as_raised(error) or type(error).__name__
    file = error.filename2 or error.filename
    room = ': make room and give the same command again' if error.errno == errno.ENOSPC else ''
    return f'{file}: {error.strerror}{room}' if file else f'{error.strerror}{room}'


def _as_raised(error: BaseException) -> str:
    """What an exception says, without the traceback that a data loader's worker puts before it."""
    text, name = str(error), f'\n{type(error).__name__}: '
    if 'in DataLoader worker process' in text and name in text:
        return text.rpartition(name)[2].strip()
    return text


def explain_run(error: BaseException) -> str | None:
    """The line for a user whose training or test ended with this exception; None where it is a fault of the code.

    A data loader worker or another process that is lost reaches us as RuntimeError, or by its broken connection.
    """
    if isinstance(error, (ConnectionError, EOFError)):
        return (f'A DataLoader worker was lost ({first_line(error)}). If memory ran out, lower num_worker_per_gpu. '
                'Continue with --auto_resume.')
    if isinstance(error, ModuleNotFoundError) and error.name == 'basicsr':
        return 'this needs BasicSR, which is not installed: scripts/README.md says how, on any Python from 3.10 on'
    if isinstance(error, OSError) and error.filename is not None:
        return f'{error.filename}: {error.strerror}. Mend this and continue with --auto_resume.'
    if isinstance(error, (ValueError, OSError)):
        return explain(error)
    if isinstance(error, RuntimeError):
        reason = first_line(error)
        if 'DataLoader worker' in reason:
            return f'{reason} If memory ran out, lower num_worker_per_gpu. Continue with --auto_resume.'
        if re.search('gloo|NCCL', str(error)):
            return (f'Lost another process of this run, whose own message says why ({reason}). '
                    'Continue with --auto_resume.')
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """True if an exception, Python's or torch's of any device, says that memory ran out."""
    return isinstance(error, MemoryError) or any(
        words in str(error).lower() for words in ('out of memory', 'not enough memory', "can't allocate memory"))


def nearest(name: object, names: Iterable[object]) -> str:
    """``', did you mean X?'`` with the nearest of the names; where none is near, all of them if they are few."""
    known = sorted(map(str, names))
    near = difflib.get_close_matches(str(name), known, n=1)
    if near:
        return f', did you mean {near[0]}?'
    return f', known: {", ".join(known)}' if 0 < len(known) <= 12 else ''


def _place() -> tuple[int, int, bool]:
    """Rank, number of processes, and whether this is the first process of its machine, by torchrun or slurm."""
    env = os.environ
    names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK') if 'RANK' in env else ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')
    rank, world_size = (int(env.get(name, default)) for name, default in zip(names, ('0', '1')))
    return rank, world_size, int(env.get(names[2], rank)) == 0
