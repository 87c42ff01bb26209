"""Many photos: what goes where, reading and writing beside the network, and a journal by which a run continues."""
import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from lowlight_cyclegan.messages import fail, first_line, is_out_of_memory
from .image_io import (FORMATS, SUFFIXES, WRITTEN, ImageError, decode_image, default_suffix, encode_image, read_bytes,
                       shown, temporary_prefix, write_bytes)

__all__ = ['Job', 'Journal', 'Settings', 'enhance_jobs', 'find_photos', 'plan', 'run', 'weights_hash']

SUFFIX = '_enhanced'
JOURNAL, REPORT = 'enhance_journal', 'enhance_report'  # names in an output folder, without rank and extension
THREADS = 2  # that read, and that write
WAITING = 3  # photos that are read ahead, or enhanced and not yet written
INTERRUPTED = 130  # exit code, 128 + SIGINT as in shells


@dataclass(frozen=True)
class Job:
    """One photo.

    Attributes:
        source (Path): Its file.
        target (Path): Where it goes.
        root (Path | None): Output folder, with the journal, that the target lies in; None for single files.
        problem (str): Why it cannot be done, where that is known before.
    """
    source: Path
    target: Path
    root: Path | None = None
    problem: str = ''


@dataclass(frozen=True)
class Settings:
    """What an output depends on besides its input: it is made anew when one of these changes."""
    weights: str
    strength: float = 1.0
    mode: str = 'auto'
    precision: str = 'fp32'
    format: str | None = None
    quality: int | None = None
    self_ensemble: bool = False
    denoise: float = 0.0

    def digest(self):
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def weights_hash(enhancer):
    """SHA-256 of an enhancer's weights and of the options that its network is built with."""
    import torch
    digest = sha256(json.dumps(getattr(enhancer, 'options', None), sort_keys=True, default=str).encode())
    for name, value in enhancer.network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def find_photos(folder, excluded=None):
    """Photos in a folder and below, by their suffixes; hidden ones are left out.

    Links to folders are followed, and each folder is looked through once, so that loops of links end. Output folders of
    earlier runs are left out.

    Args:
        folder (Path): Where to begin.
        excluded (Path | None): A folder that is not looked through.

    Returns:
        list[tuple[Path, str]]: Path and, for a folder that cannot be read, the reason.
    """
    found = []
    seen = {os.path.realpath(excluded)} if excluded else set()
    folders, links = deque([Path(folder)]), deque()
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
        if current != Path(folder) and any(_is_journal(entry.name) for entry in entries):
            continue
        for entry in entries:
            if entry.name.startswith('.'):
                continue
            path = current / entry.name
            if os.path.isdir(path):
                # after all others, so that a folder is found under its own name
                (links if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in SUFFIXES:
                found.append((path, ''))
    return sorted(found)


def _is_journal(name):
    return name.startswith(JOURNAL) and name.endswith('.jsonl')


def plan(inputs, output=None, suffix=None, format=None):
    """Decide where each photo goes.

    A file goes beside itself with the suffix, a folder to a folder beside itself with the suffix; under ``output``, if
    that is given, names stay (but for an explicit suffix) and a folder keeps its structure. Of several inputs, folders
    become folders of their name in it.

    Args:
        inputs (list[str]): Files and folders.
        output (str | None): Folder, or for a single file also a file name.
        suffix (str | None): Added to the names of files. Default: ``SUFFIX`` where they are beside their inputs.
        format (str | None): Key of ``FORMATS``. Default: the input's where that is written, see default_suffix.

    Returns:
        list[Job]: Sorted by source, no target twice.

    Raises:
        SystemExit: If output and inputs do not go together.
    """
    paths = [Path(path) for path in inputs]
    folders = [path for path in paths if path.is_dir()]
    ending = Path(output or '').suffix.lower()
    if ending in SUFFIXES and len(paths) == 1 and not folders and not Path(output).is_dir():
        kind = WRITTEN.get(ending)
        if kind is None:
            fail(f'--output {shown(output)}: {ending} is not written; give a folder or a name that ends in '
                 f'{", ".join(f".{name}" for name in FORMATS)}')
        if format and kind != FORMATS[format]:
            fail(f'--output {shown(output)}: its suffix says {kind}, --format says {format}; leave one out')
        return _checked([Job(paths[0], Path(output))])
    if output and os.path.lexists(output) and not Path(output).is_dir():
        fail(f'--output {shown(output)}: is a file, where a folder is needed')
    jobs = []
    for path in paths:
        if path in folders:
            named = path if path.name not in ('', '..') else Path(os.path.realpath(path))
            if output:
                root = Path(output)
                base = root / named.name if len(paths) > 1 else root
            else:
                base = root = named.with_name(named.name + (SUFFIX if suffix is None else suffix))
            if os.path.realpath(base) == os.path.realpath(path):
                fail(f'{shown(path)}: is the folder of the inputs; give another one with --output')
            for source, problem in find_photos(path, excluded=root):
                # beside the input, it is the folder that has the suffix
                target = base / source.relative_to(path).parent / _renamed(source, output and suffix or '', format)
                jobs.append(Job(source, target, root, problem))
        else:
            added = (SUFFIX if suffix is None else suffix) if not output else suffix or ''
            folder = Path(output) if output else path.parent
            jobs.append(Job(path, folder / _renamed(path, added, format), Path(output) if output and folders else None))
    if not jobs:
        fail(f'{", ".join(map(shown, paths))}: no photos there ({" ".join(sorted(SUFFIXES))})')
    return _checked(jobs)


def _renamed(source, added, format, stem=None):
    suffix = default_suffix(source)
    if format and WRITTEN.get(suffix.lower()) != FORMATS[format]:
        suffix = f'.{format}'
    return f'{stem or source.stem}{added}{suffix}'


def _checked(jobs):
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


class Journal:
    """Outputs of an output folder, one JSON line each: input, settings and output by their hashes.

    A line is on the disk before its output is in place. An output is finished if it has the hash that a line names for
    the input and the settings of now; and a file that has a hash named by none is not ours. There is one file for each
    rank, all of them are read, and each is locked by the process that appends to it.

    Args:
        root (Path): Output folder; it is created.
        part (str): Part of the file's name that tells ranks apart.

    Raises:
        ImageError: If the folder cannot be written, or another run is writing there.
    """

    def __init__(self, root, part=''):
        self.root, self.path = Path(root), Path(root) / f'{JOURNAL}{part}.jsonl'
        self._lines, self._lock = defaultdict(set), threading.Lock()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._claim()
            for path in sorted(self.root.iterdir()):
                if _is_journal(path.name):
                    self._read(path)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b'\n':  # the end of a line that was cut off
                os.write(self._file, b'\n')
        except OSError as error:
            raise ImageError(self.path, f'cannot be written ({error.strerror or error})') from error

    def _claim(self):
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise ImageError(self.root, 'another run is writing there') from error

    def _read(self, path):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off, or edited
                entry = json.loads(line)
                self._lines[entry['output']].add((entry['input'], entry['settings'], entry['sha256']))

    def _name(self, target):
        return os.path.relpath(target, self.root)

    def finished(self, target, source_hash, settings_hash, target_hash):
        return (source_hash, settings_hash, target_hash) in self._lines[self._name(target)]

    def owns(self, target, target_hash):
        return any(line[2] == target_hash for line in self._lines[self._name(target)])

    def add(self, target, source_hash, settings_hash, target_hash):
        line = json.dumps(dict(
            output=self._name(target), input=source_hash, settings=settings_hash, sha256=target_hash))
        try:
            with self._lock:
                os.write(self._file, f'{line}\n'.encode())
                os.fsync(self._file)
        except OSError as error:
            raise ImageError(self.path, f'cannot be written ({error.strerror or error})') from error

    def close(self):
        os.close(self._file)


def enhance_jobs(enhancer, jobs, settings, journals=None, overwrite=False, max_pixels=None, done=None):
    """Enhance photos, reading and writing others meanwhile. What goes wrong with one is said in its entry.

    Args:
        enhancer (Enhancer): Or what has its ``enhance`` and ``last_mode``.
        jobs (list[Job]): From :func:`plan`.
        settings (Settings): What to do.
        journals (dict[Path, Journal]): By the root of jobs.
        overwrite (bool): Replace files that are not ours.
        max_pixels (int | None): Of a photo. Default: see :mod:`~lowlight_cyclegan.photos.image_io`.
        done (Callable[[dict], None]): Called in this thread with each entry when it is complete. When this function is
            interrupted, what is enhanced already is written, and its entries arrive, before the interrupt goes on.

    Returns:
        list[dict]: ``input``, ``output``, ``result`` ('ok', 'skipped' or 'failed'), ``reason``, ``seconds``, ``mode``,
        ``size`` of each job, in their order.
    """
    limits = {} if max_pixels is None else dict(max_pixels=max_pixels)
    wanted, journals, entries = settings.digest(), journals or {}, {}

    def load(job):
        """-> (photo, hash of its file); None for what is finished."""
        if job.problem:
            raise ImageError(job.source, job.problem)
        journal = journals.get(job.root)
        exists = os.path.lexists(job.target)
        if exists and not journal and not overwrite:
            raise ImageError(job.source, f'{shown(job.target)} exists already; --overwrite replaces it')
        data = read_bytes(job.source, **limits)
        source_hash = sha256(data).hexdigest()
        if exists and journal:
            target_hash = _file_hash(job.target)
            if journal.finished(job.target, source_hash, wanted, target_hash):
                return None
            if not overwrite and not journal.owns(job.target, target_hash):
                raise ImageError(job.source, f'{shown(job.target)} exists already and is not what an earlier run '
                                 'wrote; --overwrite replaces it')
        return decode_image(data, job.source, **limits), source_hash

    def save(job, photo, source_hash):
        data = encode_image(photo, job.target, settings.quality)
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(job.target, f'cannot be written ({error.strerror})') from error
        if job.root in journals:
            journals[job.root].add(job.target, source_hash, wanted, sha256(data).hexdigest())
        write_bytes(job.target, data)

    def note(job, result, reason=None, seconds=None, mode=None, size=None):
        entries[job] = dict(input=str(job.source), output=str(job.target), result=result, reason=reason,
                            seconds=seconds, mode=mode, size=size)
        if done:
            done(entries[job])

    def failed(job, error):
        if is_out_of_memory(error):
            reason = 'does not fit into memory; --mode guided takes less'
        else:
            reason = error.reason if getattr(error, 'name', None) == job.source else first_line(error)
        note(job, 'failed', reason)

    def finish(job, future, facts):
        try:
            future.result()
        except (ImageError, MemoryError) as error:
            failed(job, error)
        else:
            note(job, 'ok', **facts)

    def enhance(photo):
        start = time.perf_counter()
        pixels = enhancer.enhance(photo.pixels, settings.strength, settings.mode)
        seconds = round(time.perf_counter() - start, 3)
        mode = enhancer.last_mode if settings.strength else None  # 0 takes no network
        return photo.with_pixels(pixels), dict(seconds=seconds, mode=mode, size=photo.size)

    with ThreadPoolExecutor(THREADS) as readers, ThreadPoolExecutor(THREADS) as writers:
        upcoming, loading, saving = iter(jobs), deque(), deque()
        try:
            while True:
                while len(loading) < WAITING and (job := next(upcoming, None)):
                    loading.append((job, readers.submit(load, job)))
                if not loading:
                    break
                job, future = loading.popleft()
                try:
                    loaded = future.result()
                    if loaded is None:
                        note(job, 'skipped', 'finished before')
                        continue
                    photo, facts = enhance(loaded[0])
                except (ValueError, MemoryError, RuntimeError) as error:
                    if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                        raise
                    failed(job, error)
                else:
                    saving.append((job, writers.submit(save, job, photo, loaded[1]), facts))
                future = loaded = photo = None  # pixels are freed as soon as they are written
                while saving and (len(saving) > WAITING or saving[0][1].done()):
                    finish(*saving.popleft())
        finally:
            for _, future in loading:
                future.cancel()
            while saving:
                finish(*saving.popleft())
    return [entries[job] for job in jobs]


def _file_hash(path):
    try:
        with open(path, 'rb') as file:
            digest = sha256()
            while block := file.read(2**20):
                digest.update(block)
        return digest.hexdigest()
    except OSError:
        return ''


def _remove_leftovers(jobs):
    """Remove what killed runs had begun to write. Called for locked folders alone."""
    prefixes = defaultdict(set)
    for job in jobs:
        prefixes[job.target.parent].add(temporary_prefix(job.target))
    for folder, known in prefixes.items():
        with contextlib.suppress(OSError):  # not there yet
            for name in os.listdir(folder):
                if name.endswith('.part') and name[:len(temporary_prefix(name))] in known:
                    (folder / name).unlink(missing_ok=True)


def run(args):
    """The command ``enhance``, see :mod:`~lowlight_cyclegan.enhance.commands` for its arguments.

    Under torchrun, or with RANK and WORLD_SIZE set, the photos are shared out among the processes.

    Raises:
        SystemExit: 1 if a photo failed, 130 if interrupted, a line if nothing could begin.
    """
    rank, world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
    jobs = plan(args.input, args.output, args.suffix, args.format)
    group = _Group(world)
    jobs = group.same(jobs)
    alone = world == 1 or not group.joined  # nobody to collect entries from: a report of its own
    part = f'.rank{rank}' if world > 1 else ''
    mine = jobs[rank::world]
    progress = _Progress(jobs if group.joined else mine, len(mine), args.json, rank)
    try:
        with contextlib.ExitStack() as stack:
            enhancer, settings = _prepare(args, group)
            journals = {root: Journal(root, part) for root in progress.roots}
            for journal in journals.values():
                stack.callback(journal.close)
            _remove_leftovers([job for job in mine if job.root])
            stack.enter_context(progress)
            enhance_jobs(enhancer, mine, settings, journals, args.overwrite, round(args.max_megapixels * 1e6),
                         progress.done)
    except KeyboardInterrupt:
        if alone:
            progress.write_reports(part)
        if rank == 0 or alone:
            progress.interrupted()
        raise SystemExit(INTERRUPTED) from None
    except ImageError as error:
        fail(str(error))
    progress.entries = group.collect(progress.entries)
    if rank == 0 or alone:
        progress.conclude(part if alone else '')
    group.leave()
    if any(entry['result'] == 'failed' for entry in progress.entries.values()):
        raise SystemExit(1)


def _prepare(args, group):
    from lowlight_cyclegan.enhance.enhancer import Enhancer
    device = args.device
    if device is None and group.joined:
        import torch
        device = f'cuda:{os.environ["LOCAL_RANK"]}' if torch.cuda.is_available() else None
    try:
        enhancer = Enhancer.from_pretrained(
            args.model, args.options, device=device, precision=args.precision, mode=args.mode,
            self_ensemble=args.self_ensemble, denoise=args.denoise)
    except (ValueError, OSError) as error:
        fail(first_line(error))
    return enhancer, Settings(weights_hash(enhancer), args.strength, args.mode, enhancer.precision, args.format,
                              args.quality, args.self_ensemble, args.denoise)


class _Group:
    """The processes of torchrun. A rank that exits with an error ends the others, so all of them end together."""

    def __init__(self, world):
        self.joined = world > 1 and 'TORCHELASTIC_RUN_ID' in os.environ
        if self.joined:
            from datetime import timedelta
            from torch import distributed
            self._distributed = distributed
            distributed.init_process_group('gloo', timeout=timedelta(days=365))  # of waiting for the slowest

    def same(self, jobs):
        """The jobs that rank 0 found: files may come and go meanwhile."""
        if not self.joined:
            return jobs
        shared = [jobs]
        self._distributed.broadcast_object_list(shared, src=0)
        return shared[0]

    def collect(self, entries):
        if not self.joined:
            return entries
        parts = [None] * self._distributed.get_world_size()
        self._distributed.all_gather_object(parts, entries)
        return {key: entry for part in parts for key, entry in part.items()}

    def leave(self):
        if self.joined:
            self._distributed.barrier()
            self._distributed.destroy_process_group()


class _Progress:
    """What the user sees, and the entries that have arrived: lines for single files, a bar for folders.

    Args:
        jobs (list[Job]): That are reported.
        total (int): Number of those that this process does.
        as_json (bool): Print the report, and nothing else, to standard output.
        rank (int): The bar is rank 0's.
    """

    def __init__(self, jobs, total, as_json, rank):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn

        class Rate(ProgressColumn):

            def render(self, task):
                return f'{task.speed:.2f}/s' if task.speed else ''

        self.roots = sorted({job.root for job in jobs if job.root})
        self.entries, self._jobs, self._json = {}, jobs, as_json
        console = Console(stderr=True, soft_wrap=True)
        self._bar = Progress(
            BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), console=console, transient=True,
            disable=not self.roots or as_json or rank > 0 or not console.is_terminal)
        self._task = self._bar.add_task('', total=total)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def done(self, entry):
        self.entries[entry['input'], entry['output']] = entry
        self._bar.advance(self._task)
        if entry['result'] == 'failed':
            self._bar.console.print(f'{shown(entry["input"])}: {entry["reason"]}', markup=False, highlight=False)
        elif not self.roots and not self._json:
            width, height = entry['size']
            print(f'{shown(entry["output"])}: {width}x{height}, {entry["mode"] or "unchanged"}, '
                  f'{entry["seconds"]:.2f} s', flush=True)

    def report(self, root=None):
        """Counts, and an entry for each job (of a root); 'pending' is the result of those that were not reached."""
        photos = [
            self.entries.get((str(job.source), str(job.target)),
                             dict(input=str(job.source), output=str(job.target), result='pending'))
            for job in self._jobs if root is None or job.root == root]
        return dict(counts=Counter(photo['result'] for photo in photos), photos=photos)

    def write_reports(self, part):
        for root in filter(os.path.isdir, self.roots):  # not there if interrupted before
            try:
                write_bytes(root / f'{REPORT}{part}.json', json.dumps(self.report(root), indent=1).encode())
            except ImageError as error:
                print(error, file=sys.stderr)

    def interrupted(self):
        counts = self.report()['counts']
        print(f'Interrupted: {counts["ok"] + counts["skipped"]} of {len(self._jobs)} photos are finished and stay'
              f'{"; the same command continues" if self.roots else ""}.', file=sys.stderr)

    def conclude(self, part):
        self.write_reports(part)
        report = self.report()
        if self._json:
            print(json.dumps(report))
        elif self.roots:
            counts = report['counts']
            print(f'{counts["ok"]} enhanced, {counts["skipped"]} finished before, {counts["failed"]} failed; report: '
                  f'{", ".join(shown(root / f"{REPORT}{part}.json") for root in self.roots)}')
