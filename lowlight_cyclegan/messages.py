"""What a run says to its user: once, not once for every process."""
import difflib
import errno
import logging
import os


def fail(*lines):
    """End the run with these lines (exit status 1).

    Raises:
        SystemExit: Always. Its text is left to rank 0.
    """
    raise SystemExit('\n'.join(lines) if _is_first() else 1)


def warn(line):
    """Say something that does not end the run."""
    if _is_first():
        logging.getLogger('lowlight_cyclegan').warning(line)


def first_line(error):
    """What an exception says, in one line; its class if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def explain(error):
    """The lines of an error of the library: those of a ValueError, file and reason of an OSError."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    file = error.filename2 or error.filename
    room = ': make room and give the same command again' if error.errno == errno.ENOSPC else ''
    return f'{file}: {error.strerror}{room}' if file else f'{error.strerror}{room}'


def is_out_of_memory(error):
    """True if an exception, Python's or torch's of any device, says that memory ran out."""
    return isinstance(error, MemoryError) or any(
        words in str(error).lower() for words in ('out of memory', 'not enough memory', "can't allocate memory"))


def nearest(name, names):
    """``', did you mean X?'`` with the nearest of the names; where none is near, all of them if they are few."""
    names = sorted(map(str, names))
    near = difflib.get_close_matches(str(name), names, n=1)
    if near:
        return f', did you mean {near[0]}?'
    return f', known: {", ".join(names)}' if 0 < len(names) <= 12 else ''


def _is_first():
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'
