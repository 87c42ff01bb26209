"""The results of a run, and what the user sees of it: lines for single files, a bar for folders, a report in each
output folder."""
from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from .formats import ImageError, shown
from .plan import Job
from .write import write_bytes

__all__ = ['ANEW', 'Entry', 'Report', 'Screen', 'sentence']

REPORT = 'enhance_report'  # name in an output folder, without rank and extension
INTERRUPTED = 130  # exit code, 128 + SIGINT as in shells

ANEW = 'made anew: the photo, the settings, the weights or the version changed'  # reason of an entry

# One photo's result: input, output, result ('ok', 'skipped', 'failed', 'left out' or 'pending'), reason, seconds, mode,
# size.
Entry = dict[str, Any]


class Report:
    """What became of each photo.

    Args:
        jobs: The photos that are reported.
        part: Part of the files' names that tells ranks apart.

    Attributes:
        roots: The output folders.
        entries: The results that have arrived.
        interrupted: Set if the run did not come to its end.
    """

    def __init__(self, jobs: list[Job], part: str = '') -> None:
        self.jobs, self.roots = jobs, sorted({job.root for job in jobs if job.root})
        self.interrupted = False
        self._part = part
        self.entries: dict[Job, Entry] = {}

    def add(self, entries: dict[Job, Entry]) -> None:
        """Take results."""
        self.entries.update(entries)

    @property
    def exit_code(self) -> int:
        """0, 1 if a photo failed, 130 if the run was interrupted."""
        failed = any(entry['result'] == 'failed' for entry in self.entries.values())
        return INTERRUPTED if self.interrupted else int(failed)

    def summary(self, root: Path | None = None) -> dict[str, Any]:
        """Counts, and an entry for each job (of a root); 'pending' is the result of those that were not reached."""
        jobs = [job for job in self.jobs if root is None or job.root == root]
        photos = [self.entries.get(job) or _without_result(job) for job in jobs]
        return dict(counts=Counter(photo['result'] for photo in photos), photos=photos)

    def path(self, root: Path) -> Path:
        """The report's file in an output folder."""
        return root / f'{REPORT}{self._part}.json'

    def write(self) -> None:
        """Write the report of each output folder; one that cannot be written is said."""
        for root in filter(os.path.isdir, self.roots):  # not there if interrupted before
            try:
                write_bytes(self.path(root), json.dumps(self.summary(root), indent=1).encode())
            except ImageError as error:
                print(error, file=sys.stderr)


def _without_result(job: Job) -> Entry:
    if job.left_out:
        return dict(input=str(job.source), output=None, result='left out', reason=f'{job.source.suffix} is not read')
    return dict(input=str(job.source), output=str(job.target), result='pending')


class Screen:
    """Shows results as they arrive, and how it ended.

    Args:
        as_json: Print the report, and nothing else, to standard output.
        bar: Show a bar for folders.
    """

    def __init__(self, as_json: bool = False, bar: bool = True) -> None:
        self._json, self._wants_bar = as_json, bar

    def begin(self, report: Report, total: int) -> None:
        """Show the bar for a report of which this process does ``total`` photos."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
        self._lines = not report.roots and not self._json
        console = Console(stderr=True, soft_wrap=True)
        self._bar = Progress(
            BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True,
            disable=not report.roots or self._json or not self._wants_bar or not console.is_terminal)
        self._task = self._bar.add_task('', total=total)
        self._bar.start()

    def show(self, entry: Entry) -> None:
        """Move the bar, and say what failed or, without folders, what was done."""
        self._bar.advance(self._task)
        if entry['result'] == 'failed':
            self._bar.console.print(f'{shown(entry["input"])}: {entry["reason"]}', markup=False, highlight=False)
        elif entry['reason'] not in (None, ANEW, 'finished before'):
            self._bar.console.print(f'{shown(entry["input"])}: {entry["reason"]}', markup=False, highlight=False)
        if entry['result'] == 'ok' and self._lines:
            width, height = entry['size']
            print(f'{shown(entry["output"])}: {width}x{height}, {entry["mode"] or "unchanged"}, '
                  f'{entry["seconds"]:.2f} s', flush=True)

    def end(self) -> None:
        """Take the bar away."""
        self._bar.stop()

    def conclude(self, report: Report) -> None:
        """Say how the run ended."""
        summary = report.summary()
        counts = summary['counts']
        if report.interrupted:
            total = len(report.jobs) - counts['left out']
            print(f'Interrupted: {counts["ok"] + counts["skipped"]} of {total} photos are finished and stay'
                  f'{"; the same command continues" if report.roots else ""}.', file=sys.stderr)
        elif self._json:
            print(json.dumps(summary))
        elif report.roots:
            print(f'{sentence(summary)}; report: {", ".join(shown(report.path(root)) for root in report.roots)}')


def sentence(summary: dict[str, Any]) -> str:
    """How many photos came to which result."""
    counts, photos = summary['counts'], summary['photos']
    parts = [f'{counts["ok"]} enhanced', f'{counts["skipped"]} finished before', f'{counts["failed"]} failed']
    anew = sum(photo.get('reason') == ANEW for photo in photos)
    if anew:
        parts[0] += f' ({anew} {ANEW})'
    if counts['left out']:
        kinds = sorted({Path(photo['input']).suffix for photo in photos if photo['result'] == 'left out'})
        parts.append(f'{counts["left out"]} left out, of kinds that are not read ({" ".join(kinds)})')
    return ', '.join(parts)
