"""Files that are whole or absent, their hashes, and the memory that is free. Imports neither torch nor basicsr."""
from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from os import path as osp

__all__ = ['atomic_write', 'available_memory', 'file_sha256', 'remove_temporary', 'temporary_prefix']


def temporary_prefix(path: str | os.PathLike) -> str:
    """Beginning of the names that :func:`atomic_write` uses beside ``path`` before the file is complete.

    They end in ``.part``. The name itself is hashed, so that a long one stays within the file system's limit.
    """
    name = osp.basename(os.fspath(path))
    return f'.{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.'


def atomic_write(path: str | os.PathLike, data: bytes | memoryview, durable: bool = True) -> None:
    """Write a file that is there completely or, as before, not at all: a temporary name beside it, then a rename.

    Args:
        path: Final name, in a folder that exists.
        data: All of the content.
        durable: Flush the file and its folder to the disk, so that a power cut leaves the old file or the new.

    Raises:
        OSError: It cannot be written; what was there before is untouched.
    """
    path = os.fspath(path)
    folder = osp.dirname(path) or '.'
    temporary = osp.join(folder, f'{temporary_prefix(path)}{secrets.token_hex(4)}.part')
    try:
        with open(temporary, 'xb') as f:
            f.write(data)
            if durable:
                f.flush()
                os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    if durable and os.name == 'posix':  # the rename is durable only once the folder is
        with contextlib.suppress(OSError):  # some shares cannot, and some folders may not be read; the file is there
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def remove_temporary(folder: str | os.PathLike) -> None:
    """Remove what a process that was killed inside :func:`atomic_write` left in a folder that nobody else writes to."""
    for name in os.listdir(folder):
        if re.fullmatch(r'\.[0-9a-f]{16}\.[0-9a-f]{8}\.part', name):
            with contextlib.suppress(OSError):
                os.remove(osp.join(folder, name))


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def available_memory() -> int:
    """Bytes of main memory that can be taken without swapping, within the limit of a container."""
    import psutil
    free = psutil.virtual_memory().available
    try:
        with open('/sys/fs/cgroup/memory.max') as limit, open('/sys/fs/cgroup/memory.current') as used:
            free = min(free, int(limit.read()) - int(used.read()))
    except (OSError, ValueError):  # no container, or one without a limit ('max')
        pass
    return max(free, 0)
