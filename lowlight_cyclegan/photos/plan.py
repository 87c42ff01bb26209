"""What goes where: photos found in folders, and a name for each output that is neither an input nor another's."""
from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .formats import FORMATS, LIMITED, SUFFIXES, WRITTEN, default_suffix, is_other_picture, shown
from .journal import is_journal

__all__ = ['Job', 'find_photos', 'plan']

SUFFIX = '_enhanced'


@dataclass(frozen=True)
class Job:
    """One photo.

    Attributes:
        source: Its file.
        target: Where it goes.
        root: Output folder, with the journal, that the target lies in; None for single files.
        problem: Why it cannot be done, where that is known before.
        other_target: Where it goes if the target's format turns out not to hold it: it is transparent, or too large.
        left_out: It is a picture of a kind that is not read: the report names it.
    """
    source: Path
    target: Path
    root: Path | None = None
    problem: str = ''
    other_target: Path | None = None
    left_out: bool = False


def find_photos(folder: str | os.PathLike, excluded: str | os.PathLike | None = None) -> list[tuple[Path, str]]:
    """Photos, and pictures of kinds that are not read, in a folder and below, by their suffixes; hidden ones are left
    out.

    Links to folders are followed, and each folder is looked through once, so that loops of links end. Output folders of
    earlier runs are left out.

    Args:
        folder: Where to begin.
        excluded: A folder that is not looked through.

    Returns:
        Path and, for a folder that cannot be read, the reason.
    """
    found: list[tuple[Path, str]] = []
    seen = {os.path.realpath(excluded)} if excluded else set()
    folders, links = deque([Path(folder)]), deque[Path]()
    while folders or links:
        current = (folders or links).popleft()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = list(os.scandir(current))
        except OSError as error:
            found.append((current, f'cannot be read ({error.strerror})'))
            continue
        if current != Path(folder) and any(is_journal(entry.name) for entry in entries):
            continue
        for entry in entries:
            if entry.name.startswith('.'):
                continue
            path = current / entry.name
            if os.path.isdir(path):
                # after all others, so that a folder is found under its own name
                (links if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in SUFFIXES or is_other_picture(path):
                found.append((path, ''))
    return sorted(found)


def plan(inputs: Iterable[str], output: str | None = None, suffix: str | None = None,
         format: str | None = None) -> list[Job]:
    """Decide where each photo goes.

    A file goes beside itself with the suffix, a folder to a folder beside itself with the suffix; under ``output``, if
    that is given, names stay (but for an explicit suffix) and a folder keeps its structure. Of several inputs, folders
    become folders of their name in it.

    Args:
        inputs: Files and folders.
        output: Folder, or for a single file also a file name.
        suffix: Added to the names of files. Default: ``SUFFIX`` where they are beside their inputs.
        format: Key of ``FORMATS``. Default: the input's where that is written, see default_suffix.

    Returns:
        Sorted by source, no target twice.

    Raises:
        ValueError: If output and inputs do not go together, or no photos are there.
    """
    paths = [Path(path) for path in inputs]
    folders = [path for path in paths if path.is_dir()]
    if output == '-':
        raise ValueError('--output -: photos are not written to standard output; ./- is a folder of that name')
    if output and len(paths) == 1 and not folders and _names_a_photo(output, format):
        return _without_clashes([Job(paths[0], Path(output))])
    if output and os.path.lexists(output) and not Path(output).is_dir():
        raise ValueError(f'--output {shown(output)}: is a file, where a folder is needed')
    jobs: list[Job] = []
    for path in paths:
        if path in folders:
            jobs += _plan_folder(path, output, suffix, format, named=len(paths) > 1)
        else:
            added = (SUFFIX if suffix is None else suffix) if not output else suffix or ''
            folder = Path(output) if output else path.parent
            jobs.append(Job(path, folder / _renamed(path, added, format), Path(output) if output and folders else None))
    left_out = [job for job in jobs if job.left_out]
    jobs = _without_clashes([job for job in jobs if not job.left_out])
    if not jobs:
        others = f'; {len(left_out)} pictures of other kinds, {shown(left_out[0].source)} first' if left_out else ''
        raise ValueError(f'{", ".join(map(shown, paths))}: no photos there ({" ".join(sorted(SUFFIXES))}){others}')
    return (jobs if format else _with_other_targets(jobs)) + left_out


def _names_a_photo(output: str, format: str | None) -> bool:
    """True if an output is the name of a file, which then agrees with the format."""
    ending = Path(output).suffix.lower()
    if ending not in SUFFIXES or Path(output).is_dir():
        return False
    kind = WRITTEN.get(ending)
    if kind is None:
        raise ValueError(f'--output {shown(output)}: {ending} is not written; give a folder or a name that ends in '
                         f'{", ".join(f".{name}" for name in FORMATS)}')
    if format and kind != FORMATS[format]:
        raise ValueError(f'--output {shown(output)}: its suffix says {kind}, --format says {format}; leave one out')
    return True


def _plan_folder(path: Path, output: str | None, suffix: str | None, format: str | None, named: bool) -> list[Job]:
    """Jobs of a folder; in an output, it becomes a folder of its own if it is ``named``."""
    own = path if path.name not in ('', '..') else Path(os.path.realpath(path))
    if output:
        root = Path(output)
        base = root / own.name if named else root
    else:
        base = root = own.with_name(own.name + (SUFFIX if suffix is None else suffix))
    if os.path.realpath(base) == os.path.realpath(path):
        raise ValueError(f'{shown(path)}: is the folder of the inputs; give another one with --output')
    added = output and suffix or ''  # beside the input, it is the folder that has the suffix
    return [
        Job(source, base / source.relative_to(path).parent / _renamed(source, added, format), root, problem,
            left_out=not problem and is_other_picture(source))
        for source, problem in find_photos(path, excluded=root)
    ]


def _renamed(source: Path, added: str, format: str | None) -> str:
    suffix = default_suffix(source)
    if format and WRITTEN.get(suffix.lower()) != FORMATS[format]:
        suffix = f'.{format}'
    return f'{source.stem}{added}{suffix}'


def _without_clashes(jobs: list[Job]) -> list[Job]:
    """Keep inputs that would become one output apart (a.jpg and a.png as a_jpg.webp and a_png.webp), and let no output
    be an input."""
    same = {(os.path.realpath(job.source), os.path.abspath(job.target)): job for job in reversed(jobs)}
    jobs = sorted(same.values(), key=lambda job: (job.source, job.target))
    count = Counter(os.path.abspath(job.target) for job in jobs)
    inputs = {os.path.realpath(job.source) for job in jobs}
    taken, result = set(), []
    for job in jobs:
        if count[os.path.abspath(job.target)] > 1 and job.source.suffix:
            name = f'{job.target.stem}_{job.source.suffix[1:]}{job.target.suffix}'
            job = replace(job, target=job.target.with_name(name))
        target = os.path.abspath(job.target)
        if os.path.realpath(target) in inputs:
            job = replace(job, problem=job.problem or f'{shown(job.target)} is one of the inputs: give another '
                          '--output or --suffix')
        elif target in taken:
            job = replace(job, problem=job.problem or f'{shown(job.target)} is the output of another input')
        taken.add(target)
        result.append(job)
    return result


def _with_other_targets(jobs: list[Job]) -> list[Job]:
    """Give each job whose target is of a format that does not hold every photo another, a PNG, that is nobody's
    else."""
    taken = {os.path.abspath(job.target) for job in jobs} | {os.path.realpath(job.source) for job in jobs}
    result = []
    for job in jobs:
        if WRITTEN.get(job.target.suffix.lower()) in LIMITED:
            for stem in (job.target.stem, f'{job.target.stem}_{job.source.suffix[1:]}'):
                path = job.target.with_name(f'{stem}.png')
                if not {os.path.abspath(path), os.path.realpath(path)} & taken:
                    taken.add(os.path.abspath(path))
                    job = replace(job, other_target=path)
                    break
        result.append(job)
    return result
