"""TIFF and camera RAW are decoded in processes of their own: libtiff and LibRaw write to standard error, and may crash
on a broken file. Neither should reach the user or the other photos."""
from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from .formats import ImageError, Photo

__all__ = ['decode_apart', 'serve']

_idle: list[_Decoder] = []  # that wait for the next photo; append and pop are atomic
_parents: list[_Decoder] = []  # after a fork
COMMAND = """import sys
sys.path[:] = {!r}
from lowlight_cyclegan.photos.apart import serve
from lowlight_cyclegan.photos.read import decode_here
serve(decode_here)"""


class _Decoder:
    """A Python process that decodes one photo after another; one thread at a time talks to it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-c', COMMAND.format(sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)
        assert self._process.stdin and self._process.stdout
        self._questions, self._answers = self._process.stdin, self._process.stdout

    def decode(self, *arguments: Any) -> tuple[Photo | None, str]:
        """(the photo, '') or (None, the reason why there is none).

        Raises:
            EOFError, OSError, pickle.UnpicklingError: If the process has ended.
        """
        pickle.dump(arguments, self._questions, pickle.HIGHEST_PROTOCOL)
        self._questions.flush()
        return pickle.load(self._answers)

    def end(self) -> None:
        """Let the process go; it ends when nobody can ask it any more."""
        for pipe in (self._questions, self._answers):
            try:
                pipe.close()
            except OSError:  # it ended before
                pass
        self._process.wait()


def decode_apart(data: bytes, name: str | os.PathLike, max_pixels: int) -> Photo:
    """:func:`~.read.decode_here` in another process.

    Raises:
        ImageError: As there, or if the decoder crashed.
    """
    decoder = _idle.pop() if _idle else _Decoder()
    try:
        photo, reason = decoder.decode(data, os.fspath(name), max_pixels)
    except (EOFError, OSError, pickle.UnpicklingError) as error:
        decoder.end()
        raise ImageError(name, 'is broken (its decoder crashed)') from error
    except BaseException:
        decoder.end()
        raise
    _idle.append(decoder)
    if photo is None:
        raise ImageError(name, reason)
    return photo


def serve(decode: Callable[..., Photo]) -> None:
    """In the other process: decode what comes in until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too; who asked decides
    answers = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # what a library prints is no answer
    while True:
        try:
            arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            photo, reason = decode(*arguments), ''
        except ImageError as error:
            photo, reason = None, error.reason
        pickle.dump((photo, reason), answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()
        arguments = photo = None  # the memory of their pixels


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _leave_to_parent() -> None:
    _parents.extend(_idle)
    _idle.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_leave_to_parent)
