"""Reading, enhancing and writing many photos at once."""
from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lowlight_cyclegan.files import file_sha256
from lowlight_cyclegan.messages import first_line, is_out_of_memory
from .color import for_network, from_network
from .formats import MAX_PIXELS, WRITTEN, ImageError, Photo, shown, unfit
from .journal import Journal, Settings
from .plan import Job
from .read import decode_image, read_bytes
from .report import ANEW, Entry
from .write import encode_image, write_bytes

if TYPE_CHECKING:
    from lowlight_cyclegan.enhance.enhancer import Enhancer, Result

__all__ = ['Pipeline']

THREADS = 2  # that read, and that write
WAITING = 3  # photos that are read ahead, or enhanced and not yet written
AT_ONCE = 2  # photos that the network runs on, on a CPU
LARGE = 3 * 50_000_000  # numbers in a photo, above which it is alone


@dataclass(frozen=True)
class _Loaded:
    """A photo that was read.

    Attributes:
        job: With the target that holds this photo.
        pixels: For the network.
        source_hash: Of its file.
        anew: Another run wrote the target, of another input or by other settings.
    """
    job: Job
    photo: Photo
    pixels: np.ndarray
    source_hash: str
    anew: bool


class _InThisThread(Executor):
    """Runs what is submitted at once, so that an interrupt reaches it."""

    def submit(self, function: Callable, /, *arguments: Any, **keywords: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


class Pipeline:
    """Enhances photos, reading and writing others meanwhile. What goes wrong with one is said in its entry.

    Args:
        enhancer: Or what has its ``device`` and ``enhance_with_report``.
        settings: What to do.
        journals: By the root of jobs.
        overwrite: Replace files that are not ours.
        max_pixels: A larger photo is refused.
        done: Called in the thread of :meth:`run` with each job and its entry when that is complete.
    """

    def __init__(self, enhancer: Enhancer, settings: Settings, journals: Mapping[Path, Journal] | None = None,
                 overwrite: bool = False, max_pixels: int = MAX_PIXELS,
                 done: Callable[[Job, Entry], None] = lambda job, entry: None) -> None:
        self.enhancer, self.settings, self.journals = enhancer, settings, journals or {}
        self.overwrite, self.max_pixels, self.done = overwrite, max_pixels, done
        self._digest = settings.digest()
        self._entries: dict[Job, Entry] = {}
        self._at_once, self._entry, self._places = 1, threading.Lock(), threading.Semaphore(AT_ONCE)

    def run(self, jobs: list[Job]) -> list[Entry]:
        """Do all jobs; entries in their order.

        When this is interrupted, what is enhanced already is written, and its entries arrive, before the interrupt goes
        on.
        """
        self._entries = {}
        upcoming = iter(jobs)
        loading: deque[tuple[Job, Future]] = deque()
        enhancing: deque[tuple[Job, Future]] = deque()
        saving: deque[tuple[Job, Future]] = deque()
        with self._networks(len(jobs)) as networks, ThreadPoolExecutor(THREADS) as readers, \
                ThreadPoolExecutor(THREADS) as writers:
            try:
                while True:
                    while len(loading) < WAITING and (job := next(upcoming, None)):
                        loading.append((job, readers.submit(self._load, job)))
                    while loading and len(enhancing) < self._at_once + (self._at_once > 1):  # one waits in line
                        job, future = loading.popleft()
                        enhancing.append((job, networks.submit(self._enhance, future)))
                    if not enhancing:
                        break
                    self._pass_on(enhancing, saving, writers)
                    while saving and (len(saving) > WAITING or saving[0][1].done()):
                        self._finish(*saving.popleft())
            finally:
                for _, future in (*loading, *enhancing):
                    future.cancel()
                while saving:
                    self._finish(*saving.popleft())
        return [self._entries[job] for job in jobs]

    @contextlib.contextmanager
    def _networks(self, count: int) -> Iterator[Executor]:
        """Where the network runs: in this thread, or for many photos on a CPU in two others. Each has half of the
        cores, which then need not wait for each other after every operation."""
        import torch
        threads = torch.get_num_threads()
        self._at_once = min(AT_ONCE, threads, count) if self.enhancer.device.type == 'cpu' else 1
        if self._at_once < 2:
            yield _InThisThread()
            return
        share = threads // self._at_once
        try:
            with ThreadPoolExecutor(self._at_once, initializer=torch.set_num_threads, initargs=(share, )) as networks:
                yield networks
        finally:
            torch.set_num_threads(threads)

    def _pass_on(self, enhancing: deque[tuple[Job, Future]], saving: deque[tuple[Job, Future]],
                 writers: ThreadPoolExecutor) -> None:
        """From one queue to the other; nothing here holds on to the pixels."""
        job, future = enhancing.popleft()
        try:
            enhanced = future.result()
        except (ValueError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            self._fail(job, error)
            return
        if isinstance(enhanced, Path):
            self._note(job, 'skipped', enhanced, reason='finished before')
        else:
            saving.append((job, writers.submit(self._save, *enhanced)))

    def _load(self, job: Job) -> _Loaded | Path:
        """In a reader: the photo, or its target if that is finished."""
        if job.problem:
            raise ImageError(job.source, job.problem)
        if not self.overwrite and job.root not in self.journals and os.path.lexists(job.target):
            raise ImageError(job.source, f'{shown(job.target)} exists already; --overwrite replaces it')
        data = read_bytes(job.source, self.max_pixels)
        source_hash = sha256(data).hexdigest()
        state = self._state(job, source_hash)
        if state == 'finished':
            return job.target
        photo = decode_image(data, job.source, self.max_pixels)
        reason = unfit(WRITTEN[job.target.suffix.lower()], photo.pixels)
        if reason:
            if not job.other_target:
                raise ImageError(job.target, reason)
            job = replace(job, target=job.other_target)
            state = self._state(job, source_hash)
            if state == 'finished':
                return job.target
        pixels = for_network(photo) if self.settings.strength else photo.pixels
        return _Loaded(job, photo, pixels, source_hash, state == 'older')

    def _state(self, job: Job, source_hash: str) -> str:
        """Of a job's target: 'absent' (or to be replaced), 'finished', or 'older' if another run wrote it.

        Raises:
            ImageError: If it is there and nobody may replace it.
        """
        if not os.path.lexists(job.target):
            return 'absent'
        journal = self.journals.get(job.root) if job.root else None
        if not journal:
            if not self.overwrite:
                raise ImageError(job.source, f'{shown(job.target)} exists already; --overwrite replaces it')
            return 'absent'
        target_hash = _hash_if_readable(job.target)
        if journal.finished(job.target, source_hash, self._digest, target_hash):
            return 'finished'
        if journal.owns(job.target, target_hash):
            return 'older'
        if not self.overwrite:
            raise ImageError(job.source, f'{shown(job.target)} exists already and is not what an earlier run wrote; '
                             '--overwrite replaces it')
        return 'absent'

    def _enhance(self, loading: Future) -> tuple[_Loaded, Result, float] | Path:
        """Where the network runs: what :meth:`_save` takes, or the target of a photo that is finished."""
        loaded = loading.result()
        if isinstance(loaded, Path):
            return loaded
        with self._turn(loaded.pixels.size):
            start = time.perf_counter()
            result = self.enhancer.enhance_with_report(loaded.pixels, self.settings.strength, self.settings.mode)
            return loaded, result, round(time.perf_counter() - start, 3)

    @contextlib.contextmanager
    def _turn(self, size: int) -> Iterator[None]:
        """A photo of so many numbers waits until there is room for it: a large one has the memory for itself."""
        places = self._at_once if size > LARGE else 1
        with self._entry:
            for _ in range(places):
                self._places.acquire()
        try:
            yield
        finally:
            for _ in range(places):
                self._places.release()

    def _save(self, loaded: _Loaded, result: Result, seconds: float) -> dict:
        """In a writer: the journal's line, then the file; what the entry says."""
        job, photo = loaded.job, loaded.photo
        pixels = from_network(photo, result.image) if self.settings.strength else result.image
        data = encode_image(photo.with_pixels(pixels), job.target, self.settings.quality)
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(job.target, f'cannot be written ({error.strerror})') from error
        if job.root and job.root in self.journals:
            self.journals[job.root].add(job.target, loaded.source_hash, self._digest, sha256(data).hexdigest())
        write_bytes(job.target, data)
        return dict(target=job.target, reason=photo.note or (ANEW if loaded.anew else None), seconds=seconds,
                    mode=result.mode, size=photo.size)

    def _finish(self, job: Job, saving: Future) -> None:
        try:
            facts = saving.result()
        except (ImageError, MemoryError) as error:
            self._fail(job, error)
        else:
            self._note(job, 'ok', **facts)

    def _fail(self, job: Job, error: Exception) -> None:
        if is_out_of_memory(error):
            reason = 'does not fit into memory; --mode guided takes less'
        else:
            reason = error.reason if isinstance(error, ImageError) and error.name == job.source else first_line(error)
        self._note(job, 'failed', job.target, reason=reason)

    def _note(self, job: Job, result: str, target: Path, reason: str | None = None, seconds: float | None = None,
              mode: str | None = None, size: tuple[int, int] | None = None) -> None:
        self._entries[job] = dict(input=str(job.source), output=str(target), result=result, reason=reason,
                                  seconds=seconds, mode=mode, size=size)
        self.done(job, self._entries[job])


def _hash_if_readable(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return ''
