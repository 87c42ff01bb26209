"""Many photos: reading and writing beside the network, shared out among processes, continued by the journal."""
from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowlight_cyclegan.files import file_sha256
from lowlight_cyclegan.messages import first_line, is_out_of_memory
from .formats import MAX_PIXELS, ImageError, Photo, shown
from .journal import Journal, Settings, remove_leftovers
from .plan import Job, plan
from .read import decode_image, read_bytes
from .report import Entry, Report, Screen
from .write import encode_image, write_bytes

if TYPE_CHECKING:
    from lowlight_cyclegan.enhance.enhancer import Enhancer

__all__ = ['Pipeline', 'enhance_photos']

THREADS = 2  # that read, and that write
WAITING = 3  # photos that are read ahead, or enhanced and not yet written


def enhance_photos(
        inputs: Iterable[str], output: str | None = None, suffix: str | None = None, format: str | None = None,
        quality: int | None = None, overwrite: bool = False, max_pixels: int = MAX_PIXELS, model: str = 'lite',
        options: str | None = None, device: str | None = None, precision: str = 'auto', mode: str = 'auto',
        strength: float = 1.0, self_ensemble: bool = False, denoise: float = 0.0, as_json: bool = False) -> Report:
    """Enhance photos in files and folders, and say what became of them.

    Under torchrun, or with RANK and WORLD_SIZE set, the photos are shared out among the processes.

    Args:
        inputs, output, suffix, format: See :func:`~.plan.plan`.
        quality: See :func:`~.write.encode_image`.
        overwrite: Replace files that no earlier run wrote.
        max_pixels: A larger photo is refused.
        model, options, device, precision, mode, self_ensemble, denoise: See
            :meth:`Enhancer.from_pretrained <lowlight_cyclegan.enhance.enhancer.Enhancer.from_pretrained>`.
        strength: From 0 (the photo) to 1 (the network's picture).
        as_json: Print the report in the place of lines.

    Raises:
        ValueError: If nothing can begin: output and inputs do not go together, the weights cannot be had, or the
            output folder cannot be written.
        OSError: If a file of the weights cannot be read.
    """
    jobs = plan(inputs, output, suffix, format)
    group = ProcessGroup()
    jobs = group.share(jobs)
    mine = jobs[group.rank::group.world]
    report = Report(jobs, '') if group.joined else Report(mine, group.part)
    screen = Screen(as_json, bar=group.rank == 0)
    speaks = group.rank == 0 or not group.joined
    try:
        with contextlib.ExitStack() as stack:
            from lowlight_cyclegan.enhance.enhancer import Enhancer
            enhancer = Enhancer.from_pretrained(
                model, options, device=device or group.device(), precision=precision, mode=mode,
                self_ensemble=self_ensemble, denoise=denoise)
            settings = Settings(enhancer.fingerprint(), strength, mode, enhancer.precision, format, quality,
                                self_ensemble, denoise)
            journals = {root: Journal(root, group.part) for root in report.roots}
            for journal in journals.values():
                stack.callback(journal.close)
            remove_leftovers(job.target for job in mine if job.root)
            screen.begin(report, len(mine))
            stack.callback(screen.end)

            def done(entry: Entry) -> None:
                report.add([entry])
                screen.show(entry)

            Pipeline(enhancer, settings, journals, overwrite, max_pixels, done).run(mine)
    except KeyboardInterrupt:
        report.interrupted = True
        if not group.joined:
            report.write()
        if speaks:
            screen.conclude(report)
        return report
    report.add(group.collect(report.entries))
    if speaks:
        report.write()
        screen.conclude(report)
    group.leave()
    return report


class ProcessGroup:
    """The processes of torchrun. A rank that exits with an error ends the others, so all of them end together.

    Attributes:
        rank, world: Of RANK and WORLD_SIZE.
        joined: True under torchrun; without it, each process with a RANK is on its own.
        part: Part of files' names that tells ranks apart.
    """

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        self.joined = self.world > 1 and 'TORCHELASTIC_RUN_ID' in os.environ
        self.part = f'.rank{self.rank}' if self.world > 1 else ''
        if self.joined:
            from datetime import timedelta
            from torch import distributed
            distributed.init_process_group('gloo', timeout=timedelta(days=365))  # of waiting for the slowest
            self._distributed = distributed

    def device(self) -> str | None:
        """The GPU of this process, if there are several processes and a GPU."""
        if not self.joined:
            return None
        import torch
        return f'cuda:{os.environ["LOCAL_RANK"]}' if torch.cuda.is_available() else None

    def share(self, jobs: list[Job]) -> list[Job]:
        """The jobs that rank 0 found: files may come and go meanwhile."""
        if not self.joined:
            return jobs
        shared = [jobs]
        self._distributed.broadcast_object_list(shared, src=0)
        return shared[0]

    def collect(self, entries: list[Entry]) -> list[Entry]:
        """The results of all processes."""
        if not self.joined:
            return entries
        parts: list[Any] = [None] * self.world
        self._distributed.all_gather_object(parts, entries)
        return [entry for part in parts for entry in part]

    def leave(self) -> None:
        """Wait for the others, and part."""
        if self.joined:
            self._distributed.barrier()
            self._distributed.destroy_process_group()


class Pipeline:
    """Enhances photos, reading and writing others meanwhile. What goes wrong with one is said in its entry.

    Args:
        enhancer: Or what has its ``enhance_with_report``.
        settings: What to do.
        journals: By the root of jobs.
        overwrite: Replace files that are not ours.
        max_pixels: A larger photo is refused.
        done: Called in the thread of :meth:`run` with each entry when it is complete.
    """

    def __init__(self, enhancer: Enhancer, settings: Settings, journals: Mapping[Path, Journal] | None = None,
                 overwrite: bool = False, max_pixels: int = MAX_PIXELS,
                 done: Callable[[Entry], None] = lambda entry: None) -> None:
        self.enhancer, self.settings, self.journals = enhancer, settings, journals or {}
        self.overwrite, self.max_pixels, self.done = overwrite, max_pixels, done
        self._digest = settings.digest()
        self._entries: dict[Job, Entry] = {}

    def run(self, jobs: list[Job]) -> list[Entry]:
        """Do all jobs; entries in their order.

        When this is interrupted, what is enhanced already is written, and its entries arrive, before the interrupt goes
        on.
        """
        self._entries = {}
        upcoming = iter(jobs)
        loading: deque[tuple[Job, Future]] = deque()
        saving: deque[tuple[Job, Future, dict]] = deque()
        with ThreadPoolExecutor(THREADS) as readers, ThreadPoolExecutor(THREADS) as writers:
            try:
                while True:
                    while len(loading) < WAITING and (job := next(upcoming, None)):
                        loading.append((job, readers.submit(self._load, job)))
                    if not loading:
                        break
                    job, future = loading.popleft()
                    if enhanced := self._enhance(job, future):
                        photo, source_hash, facts = enhanced
                        saving.append((job, writers.submit(self._save, job, photo, source_hash), facts))
                    future = enhanced = photo = None  # pixels are freed as soon as they are written
                    while saving and (len(saving) > WAITING or saving[0][1].done()):
                        self._finish(*saving.popleft())
            finally:
                for _, future in loading:
                    future.cancel()
                while saving:
                    self._finish(*saving.popleft())
        return [self._entries[job] for job in jobs]

    def _load(self, job: Job) -> tuple[Photo, str] | None:
        """In a reader: the photo and the hash of its file; None for what is finished."""
        if job.problem:
            raise ImageError(job.source, job.problem)
        journal = self.journals.get(job.root)
        exists = os.path.lexists(job.target)
        if exists and not journal and not self.overwrite:
            raise ImageError(job.source, f'{shown(job.target)} exists already; --overwrite replaces it')
        data = read_bytes(job.source, self.max_pixels)
        source_hash = sha256(data).hexdigest()
        if exists and journal:
            target_hash = _hash_if_readable(job.target)
            if journal.finished(job.target, source_hash, self._digest, target_hash):
                return None
            if not self.overwrite and not journal.owns(job.target, target_hash):
                raise ImageError(job.source, f'{shown(job.target)} exists already and is not what an earlier run '
                                 'wrote; --overwrite replaces it')
        return decode_image(data, job.source, self.max_pixels), source_hash

    def _enhance(self, job: Job, loaded: Future) -> tuple[Photo, str, dict] | None:
        """The enhanced photo, the hash of its input and facts for its entry; None if the entry is complete."""
        try:
            if loaded.result() is None:
                self._note(job, 'skipped', 'finished before')
                return None
            photo, source_hash = loaded.result()
            start = time.perf_counter()
            result = self.enhancer.enhance_with_report(photo.pixels, self.settings.strength, self.settings.mode)
            seconds = round(time.perf_counter() - start, 3)
        except (ValueError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            self._fail(job, error)
            return None
        return photo.with_pixels(result.image), source_hash, dict(seconds=seconds, mode=result.mode, size=photo.size)

    def _save(self, job: Job, photo: Photo, source_hash: str) -> None:
        """In a writer: the journal's line, then the file."""
        data = encode_image(photo, job.target, self.settings.quality)
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(job.target, f'cannot be written ({error.strerror})') from error
        if job.root in self.journals:
            self.journals[job.root].add(job.target, source_hash, self._digest, sha256(data).hexdigest())
        write_bytes(job.target, data)

    def _finish(self, job: Job, saved: Future, facts: dict) -> None:
        try:
            saved.result()
        except (ImageError, MemoryError) as error:
            self._fail(job, error)
        else:
            self._note(job, 'ok', **facts)

    def _fail(self, job: Job, error: Exception) -> None:
        if is_out_of_memory(error):
            reason = 'does not fit into memory; --mode guided takes less'
        else:
            reason = error.reason if getattr(error, 'name', None) == job.source else first_line(error)
        self._note(job, 'failed', reason)

    def _note(self, job: Job, result: str, reason: str | None = None, seconds: float | None = None,
              mode: str | None = None, size: tuple[int, int] | None = None) -> None:
        self._entries[job] = dict(input=str(job.source), output=str(job.target), result=result, reason=reason,
                                  seconds=seconds, mode=mode, size=size)
        self.done(self._entries[job])


def _hash_if_readable(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return ''
