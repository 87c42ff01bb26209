"""The journal of an output folder, by which a run that was interrupted continues."""
from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from lowlight_cyclegan.files import temporary_prefix
from lowlight_cyclegan.messages import warn
from .formats import ImageError, shown

__all__ = ['Journal', 'Settings', 'is_journal', 'remove_leftovers']

JOURNAL = 'enhance_journal'  # name in an output folder, without rank and extension


@dataclass(frozen=True)
class Settings:
    """Everything except the input that determines an output; a change of it makes the output anew."""
    weights: str
    strength: float = 1.0
    mode: str = 'auto'
    precision: str = 'fp32'
    format: str | None = None
    quality: int | None = None
    self_ensemble: bool = False
    denoise: float = 0.0

    def digest(self) -> str:
        """A hash of them all."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def is_journal(name: str) -> bool:
    """True if a file of this name marks an output folder."""
    return name.startswith(JOURNAL) and name.endswith('.jsonl')


class Journal:
    """Outputs of an output folder, one JSON line each: input, settings and output by their hashes.

    A line is on the disk before its output is in place. An output is finished if it has the hash that a line names for
    the input and the settings of now; and a file that has a hash named by none is not ours. There is one file for each
    rank, all of them are read, and each is locked by the process that appends to it.

    Args:
        root: Output folder; it is created.
        part: Part of the file's name that tells ranks apart.

    Raises:
        ImageError: If the folder cannot be written, or another run is writing there.

    Attributes:
        locked: False where the file system knows no locks, as some network shares.
    """

    def __init__(self, root: str | os.PathLike, part: str = '') -> None:
        self.root, self.path = Path(root), Path(root) / f'{JOURNAL}{part}.jsonl'
        self._lines: defaultdict[str, set[tuple[str, str, str]]] = defaultdict(set)
        self._lock = threading.Lock()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self.locked = self._claim()
            for path in sorted(self.root.iterdir()):
                if is_journal(path.name):
                    self._read(path)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b'\n':  # the end of a line that was cut off
                os.write(self._file, b'\n')
        except OSError as error:
            raise ImageError(self.path, f'cannot be written ({error.strerror or error})') from error

    def _claim(self) -> bool:
        try:
            import fcntl
        except ImportError:  # not on Windows
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise ImageError(self.root, 'another run is writing there') from error
        except OSError as error:  # NFS and SMB without a lock server
            warn(f'{shown(self.root)}: cannot be locked ({error.strerror or error}); let no other run write there')
            return False
        return True

    def _read(self, path: Path) -> None:
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off, or edited
                entry = json.loads(line)
                self._lines[entry['output']].add((entry['input'], entry['settings'], entry['sha256']))

    def _name(self, target: Path) -> str:
        return os.path.relpath(target, self.root)

    def finished(self, target: Path, source_hash: str, settings_hash: str, target_hash: str) -> bool:
        """True if this output was made of this input by these settings."""
        return (source_hash, settings_hash, target_hash) in self._lines[self._name(target)]

    def owns(self, target: Path, target_hash: str) -> bool:
        """True if this output was written by some run, and not edited since."""
        return any(line[2] == target_hash for line in self._lines[self._name(target)])

    def add(self, target: Path, source_hash: str, settings_hash: str, target_hash: str) -> None:
        """Note an output that is about to be written.

        Raises:
            ImageError: If the line cannot be written.
        """
        line = json.dumps(dict(
            output=self._name(target), input=source_hash, settings=settings_hash, sha256=target_hash))
        try:
            with self._lock:
                os.write(self._file, f'{line}\n'.encode())
                os.fsync(self._file)
        except OSError as error:
            raise ImageError(self.path, f'cannot be written ({error.strerror or error})') from error

    def close(self) -> None:
        """Let others write there."""
        os.close(self._file)


def remove_leftovers(targets: Iterable[Path]) -> None:
    """Remove what killed runs had begun to write of these files. Called for locked folders alone."""
    prefixes = defaultdict(set)
    for target in targets:
        prefixes[target.parent].add(temporary_prefix(target))
    for folder, known in prefixes.items():
        with contextlib.suppress(OSError):  # not there yet
            for name in os.listdir(folder):
                if name.endswith('.part') and name[:len(temporary_prefix(name))] in known:
                    (folder / name).unlink(missing_ok=True)
