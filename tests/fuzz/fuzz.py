"""Throws mutated files at the commands: ``python tests/fuzz/fuzz.py [KIND ...] [--cases 500] [--seed 0] [--case N]``.

Valid files are made first; every case is one of them, mutated, and one command that gets it, in a fork of this process
(which spares it the imports). What must hold, whatever the file:

- the command ends in time, by itself, with exit code 0 or 1;
- no traceback; code 1 comes with a line, which names the file where there is one to name;
- inputs are untouched, every file that the command left is whole, and none has a temporary name.

A case depends on its kind, the seed and its number alone, so that ``--seed S --case N`` repeats it.
"""
from __future__ import annotations

import argparse
import functools
import hashlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import patience

KINDS = ('photos', 'videos', 'options', 'checkpoints', 'archives')
TEMPORARY = ('.part', '.tmp', '.temp', '~')
TIMEOUT = 120  # seconds, see patience.py


class Kind:
    """A kind of files: what a valid one is, how it is mutated, which command gets it."""

    folders_for_later: tuple[str, ...] = ()  # parts of names of folders that an unfinished command may leave
    may_change: tuple[str, ...] = ()  # beginnings of names of files that the command goes on with

    def make(self) -> None:
        """Write valid files into the current folder."""
        raise NotImplementedError

    def mutate(self, valid: Path, rng: random.Random) -> list[str]:
        """Write a mutated file into the current folder; returns the command line that gets it."""
        raise NotImplementedError

    def wrong(self, code: int, output: str) -> str | None:
        """What is wrong with the files in the current folder or the output, beyond what holds for all kinds."""
        return None


@dataclass
class Fault:
    """A case in which something did not hold."""
    kind: str
    seed: int
    case: int
    what: str
    command: list[str]
    output: str
    folder: Path

    def __str__(self) -> str:
        last = '\n'.join(f'    {line}' for line in self.output.splitlines()[-12:])
        return (f'{self.kind} --seed {self.seed} --case {self.case}: {self.what}\n'
                f'    in {self.folder}: lowlight-cyclegan {" ".join(self.command)}\n{last}')


def fuzz(name: str, cases: Sequence[int], seed: int, root: Path, timeout: int = TIMEOUT,
         show: Callable[[str], None] | None = None, every: bool = False) -> tuple[list[Fault], str]:
    """Run cases of a kind.

    Args:
        name: One of ``KINDS``.
        cases: Their numbers.
        seed: Of all of them.
        root: Empty folder; those of faults stay there.
        timeout: Seconds for a case.
        show: Gets the faults as they are found; with ``every``, also each command and its output.

    Returns:
        The faults, and a line for the terminal.
    """
    kind: Kind = import_module(f'fuzz_{name}').KIND
    start, faults, ends = time.monotonic(), [], Counter()
    valid = root / 'valid'
    valid.mkdir(parents=True)
    status, made = _forked(lambda: (os.chdir(valid), kind.make()), root / 'make.txt', 600)
    if status != 0:
        raise RuntimeError(f'no valid {name} could be made:\n{made}')
    for case in cases:
        folder = root / f'{case:05d}'
        folder.mkdir()
        verdict = root / 'verdict.json'
        verdict.unlink(missing_ok=True)
        output = root / f'{case:05d}.txt'
        status, text = _forked(lambda: _run_case(kind, valid, folder, f'{name} {seed} {case}', output, verdict),  # noqa: B023
                               output, timeout)
        found = json.loads(verdict.read_text()) if verdict.exists() else {'command': [], 'code': None, 'what': None}
        what = found['what']
        if status is None:
            what = f'hangs: no end within {timeout} s'
        elif status:
            what = f'ends the process with {status}'
        if show and every:
            show(f'{name} --case {case}: lowlight-cyclegan {" ".join(found["command"])}\n{text}')
        ends[found['code']] += 1
        if what:
            faults.append(Fault(name, seed, case, what, found['command'], text, folder))
            if show:
                show(str(faults[-1]))
        else:
            shutil.rmtree(folder)
            output.unlink()
    line = (f'fuzz {name}: {len(cases)} cases, seed {seed}, {ends[0]} done, {ends[1]} refused, {len(faults)} faults, '
            f'{time.monotonic() - start:.0f} s')
    return faults, line


def _forked(function, output: Path, timeout: int) -> tuple[int | None, str]:
    """Call a function in a fork: (exit status of the process, see :func:`patience.wait`; what it printed)."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        status = 3
        try:
            os.setsid()
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for standard in (1, 2):
                os.dup2(descriptor, standard)
            sys.stdout = sys.stderr = open(2, 'w', buffering=1, closefd=False)  # in place of pytest's capture
            logging.root.handlers.clear()
            import torch
            torch.set_num_threads(1)  # the threads of the parent are not here
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = patience.wait(pid, timeout)  # what it started and left ends, too
    return status, output.read_text(errors='replace')


def _run_case(kind: Kind, valid: Path, folder: Path, seed: str, output: Path, verdict: Path) -> None:
    from lowlight_cyclegan.commands import main
    os.chdir(folder)
    command = kind.mutate(valid, random.Random(seed))
    before = dict(_hashes(folder))
    found = {'command': command, 'code': None, 'what': None}
    verdict.write_text(json.dumps(found))
    try:
        main(command)
        code = 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code)
        code = 0 if stop.code is None else stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = -1
    os.chdir(folder)
    text = output.read_text(errors='replace')
    what = _wrong(folder, before, code, text, kind) or kind.wrong(code, text)
    verdict.write_text(json.dumps({'command': command, 'code': code, 'what': what}))


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            yield str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()


def _wrong(folder: Path, before: dict[str, str], code: int, text: str, kind: Kind) -> str | None:
    if code == -1 or 'Traceback (most recent call last)' in text:
        return 'traceback'
    if code not in (0, 1):
        return f'exit code {code}'
    if code and not text.strip():
        return 'fails without a line'
    after = dict(_hashes(folder))
    for name, digest in before.items():
        if after.get(name) != digest and not name.startswith(kind.may_change):
            return f'the input {name} is {"changed" if name in after else "gone"}'
    for name in after.keys() - before.keys():
        for_later = any(part in name for part in kind.folders_for_later)
        if code and for_later:
            continue
        if for_later or name.endswith(TEMPORARY):
            return f'leaves {name}'
        if after[name] in before.values():  # an input that was put aside
            continue
        problem = _half(folder / name)
        if problem:
            return f'half a file: {name} ({problem})'
    return None


def _half(path: Path) -> str | None:
    """Why a file is not whole; None if it is, or of no known kind."""
    try:
        if path.suffix in ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff'):
            from PIL import Image
            with Image.open(path) as image:
                image.load()
        elif path.suffix == '.json':
            json.loads(path.read_bytes())
        elif path.suffix in ('.pth', '.state'):
            import torch
            torch.load(path, map_location='cpu', weights_only=False)
        elif path.suffix == '.safetensors':
            from safetensors.torch import load_file
            load_file(path)
        elif path.suffix in ('.mp4', '.mkv', '.mov', '.webm'):
            import av
            with av.open(str(path)) as container:
                if not sum(1 for _ in container.decode(video=0)):
                    return 'no frames'
    except Exception as error:  # decoders answer broken files with every kind there is
        return f'{type(error).__name__}: {error}'
    return None


def load_libraries() -> None:
    """Import once what every case needs; a fork has it then."""
    import cv2
    import PIL.Image
    cv2.setNumThreads(1)  # a fork has none of its parent's threads
    PIL.Image.init()
    import lowlight_cyclegan
    lowlight_cyclegan.register()
    for module in ('basicsr.train', 'lowlight_cyclegan.train', 'lowlight_cyclegan.enhance.enhancer',
                   'lowlight_cyclegan.photos.pipeline', 'lowlight_cyclegan.prepare.layouts'):
        import_module(module)
    try:
        import av  # noqa: F401
    except ImportError:
        pass


def main() -> None:
    """Run cases and keep the folders of faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('kind', nargs='*', metavar='KIND', help=f'default: all of {", ".join(KINDS)}')
    parser.add_argument('--cases', type=int, default=500, help='of each kind. Default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--case', type=int, help='this one alone')
    parser.add_argument('--show', action='store_true', help='print every command and its output')
    parser.add_argument('--keep', type=Path, help='folder for faults. Default: a temporary one')
    args = parser.parse_args()
    for name in args.kind:
        if name not in KINDS:
            parser.error(f'{name}: no kind, known: {", ".join(KINDS)}')
    load_libraries()
    root = args.keep or Path(tempfile.mkdtemp(prefix='fuzz_'))
    cases, failed = range(args.cases) if args.case is None else [args.case], 0
    for name in args.kind or KINDS:
        faults, line = fuzz(name, cases, args.seed, root / name, show=functools.partial(print, flush=True),
                            every=args.show)
        print(line, flush=True)
        failed += len(faults)
    if failed:
        raise SystemExit(f'{failed} faults; their files are in {root}')
    shutil.rmtree(root)


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    sys.path[:0] = [str(Path(__file__).parents[2])]
    main()
