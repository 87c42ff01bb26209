"""Waiting for a process by a clock that stands still while the machine is busy with others."""
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

TICKS = os.sysconf('SC_CLK_TCK') if hasattr(os, 'sysconf') else 100


def wait(pid: int, timeout: float) -> int | None:
    """Wait for the leader of a session, then end what is left of it.

    What counts is the time that the session computes, and the time in which none of its threads could: a case that is
    starved of the processor hangs no more than one that is slow. (Without /proc, all time counts.)

    Args:
        pid: A child that has called ``os.setsid``, or is about to.
        timeout: Seconds.

    Returns:
        Its exit status, minus the signal that ended it; None if the time was up.
    """
    used, computed, last, pause = 0.0, 0.0, time.monotonic(), 0.002
    status = None
    while status is None and used < timeout:
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
            break
        time.sleep(pause)
        pause = min(2 * pause, 0.25)
        now, (total, ready) = time.monotonic(), _session(pid)
        if total is None or not ready:
            used += now - last
        used, computed, last = used + max(0, (total or 0) - computed), max(computed, total or 0), now
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if status is None:
        os.kill(pid, signal.SIGKILL)  # in case that it has no session yet
        os.waitpid(pid, 0)
    return status


def _session(leader: int) -> tuple[float | None, bool]:
    """(Seconds that the threads of a session have computed, whether one of them is ready to); None without /proc."""
    total, ready, found = 0.0, False, False
    for process in Path('/proc').glob('[0-9]*'):
        try:
            fields = _stat(process / 'stat')
            if int(process.name) != leader and int(fields[3]) != leader:
                continue
            found = True
            total += sum(map(int, fields[11:15])) / TICKS  # its own, and those of children that have ended
            ready = ready or any(_stat(thread / 'stat')[0] in 'RD' for thread in (process / 'task').iterdir())
        except (OSError, IndexError):  # it has just ended
            continue
    return (total if found else None), ready


def _stat(path: Path) -> list[str]:
    """What follows the name, which may hold blanks: state, parent, group, session, ..."""
    return path.read_text().rpartition(')')[2].split()
