"""A run over files and folders: planned, shared out among processes, continued by the journal, reported."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from lowlight_cyclegan.config import DEFAULT_MODEL
from .formats import MAX_PIXELS
from .journal import Journal, Settings, remove_leftovers
from .pipeline import Pipeline
from .plan import Job, plan
from .report import Entry, Report, Screen

__all__ = ['enhance_photos']


def enhance_photos(
        inputs: Iterable[str], output: str | None = None, suffix: str | None = None, format: str | None = None,
        quality: int | None = None, overwrite: bool = False, max_pixels: int = MAX_PIXELS, model: str = DEFAULT_MODEL,
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
        strength: From 0 (the photo) to 1 (the network's picture); to 2 with the default model.
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
    mine = [job for job in mine if not job.left_out]
    screen = Screen(as_json, bar=group.rank == 0)
    speaks = group.rank == 0 or not group.joined
    try:
        with contextlib.ExitStack() as stack:
            from lowlight_cyclegan.enhance.enhancer import Enhancer
            enhancer = Enhancer.from_pretrained(
                model, options, device=device or group.device(), precision=precision, mode=mode,
                self_ensemble=self_ensemble, denoise=denoise)
            if strength > enhancer.max_strength:
                raise ValueError(f'strength {strength:g}: of {model} it is from 0 to {enhancer.max_strength:g}')
            settings = Settings(enhancer.fingerprint(), strength, mode, enhancer.precision, format, quality,
                                self_ensemble, denoise)
            journals = {root: Journal(root, group.part) for root in report.roots}
            for journal in journals.values():
                stack.callback(journal.close)
            remove_leftovers(target for job in mine if job.root and journals[job.root].locked
                             for target in (job.target, job.other_target) if target)
            screen.begin(report, len(mine))
            stack.callback(screen.end)

            def done(job: Job, entry: Entry) -> None:
                report.add({job: entry})
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
            from mmengine import dist
            from torch import distributed
            distributed.init_process_group('gloo', timeout=timedelta(days=365))  # of waiting for the slowest
            self._dist, self._leave = dist, distributed.destroy_process_group

    def device(self) -> str | None:
        """The GPU of this process, if there are several processes and a GPU."""
        if not self.joined:
            return None
        import torch
        return f'cuda:{os.environ["LOCAL_RANK"]}' if torch.cuda.is_available() else None

    def share(self, jobs: list[Job]) -> list[Job]:
        """The jobs that rank 0 found: files may come and go meanwhile."""
        shared = [jobs]
        if self.joined:
            self._dist.broadcast_object_list(shared)
        return shared[0]

    def collect(self, entries: dict[Job, Entry]) -> dict[Job, Entry]:
        """The results of all processes."""
        parts = self._dist.all_gather_object(entries) if self.joined else [entries]
        return {job: entry for part in parts for job, entry in part.items()}

    def leave(self) -> None:
        """Wait for the others, and part."""
        if self.joined:
            self._dist.barrier()
            self._leave()
