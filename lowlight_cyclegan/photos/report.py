"""The results of a run, and what the user sees of it: lines for single files, a bar for folders, a report in each
output folder."""
from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .formats import ImageError, shown
from .plan import Job
from .write import write_bytes

__all__ = ['Entry', 'Report', 'Screen']

REPORT = 'enhance_report'  # name in an output folder, without rank and extension
INTERRUPTED = 130  # exit code, 128 + SIGINT as in shells

# One photo's result: input, output, result ('ok', 'skipped', 'failed' or 'pending'), reason, seconds, mode, size.
Entry = dict[str, Any]


class Report:
    """What became of each photo.

    Args:
        jobs: The photos that are reported.
        part: Part of the files' names that tells ranks apart.

    Attributes:
        roots: The output folders.
        interrupted: Set if the run did not come to its end.
    """

    def __init__(self, jobs: list[Job], part: str = '') -> None:
        self.jobs, self.roots = jobs, sorted({job.root for job in jobs if job.root})
        self.interrupted = False
        self._part = part
        self._entries: dict[tuple[str, str], Entry] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Take results."""
        for entry in entries:
            self._entries[entry['input'], entry['output']] = entry

    @property
    def entries(self) -> list[Entry]:
        """The results that have arrived."""
        return list(self._entries.values())

    @property
    def exit_code(self) -> int:
        """0, 1 if a photo failed, 130 if the run was interrupted."""
        return INTERRUPTED if self.interrupted else int(any(entry['result'] == 'failed' for entry in self.entries))

    def summary(self, root: Path | None = None) -> dict[str, Any]:
        """Counts, and an entry for each job (of a root); 'pending' is the result of those that were not reached."""
        photos = [
            self._entries.get((str(job.source), str(job.target)),
                              dict(input=str(job.source), output=str(job.target), result='pending'))
            for job in self.jobs if root is None or job.root == root]
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
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn

        class Rate(ProgressColumn):

            def render(self, task):
                return f'{task.speed:.2f}/s' if task.speed else ''

        self._lines = not report.roots and not self._json
        console = Console(stderr=True, soft_wrap=True)
        self._bar = Progress(
            BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), console=console, transient=True,
            disable=not report.roots or self._json or not self._wants_bar or not console.is_terminal)
        self._task = self._bar.add_task('', total=total)
        self._bar.start()

    def show(self, entry: Entry) -> None:
        """Move the bar, and say what failed or, without folders, what was done."""
        self._bar.advance(self._task)
        if entry['result'] == 'failed':
            self._bar.console.print(f'{shown(entry["input"])}: {entry["reason"]}', markup=False, highlight=False)
        elif self._lines:
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
            print(f'Interrupted: {counts["ok"] + counts["skipped"]} of {len(report.jobs)} photos are finished and stay'
                  f'{"; the same command continues" if report.roots else ""}.', file=sys.stderr)
        elif self._json:
            print(json.dumps(summary))
        elif report.roots:
            print(f'{counts["ok"]} enhanced, {counts["skipped"]} finished before, {counts["failed"]} failed; report: '
                  f'{", ".join(shown(report.path(root)) for root in report.roots)}')
