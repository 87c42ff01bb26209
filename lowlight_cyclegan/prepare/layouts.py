"""From what people download to ``datasets/<NAME>/<split>/{low,high}``: checked, named alike, with a manifest."""
from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import path as osp

from lowlight_cyclegan.data.data_util import IMAGE_EXTENSIONS, decode_image, map_threaded
from lowlight_cyclegan.messages import warn
from .archive import Source, open_source
from .fingerprint import aligned_correlation
from .manifest import MANIFEST, NewDataset, check_complete, duplicates, read_manifest, shared_views

__all__ = ['LAYOUTS', 'Layout', 'pair_names', 'prepare']

MIN_ALIGNMENT = 0.7  # of the reduced log-gray images; LOL's 141, 142 and 648 are below
MAX_LINES = 10
LSRW_SEED = 2024
LSRW_TEST = 30

File = tuple[Source, str]
Pair = tuple[str, str, File, File]  # split, name, low, high


@dataclass(frozen=True)
class Layout:
    """How a dataset is downloaded and what it must hold.

    Attributes:
        name: Folder under the output.
        folders: (split, folder of low images, folder of normal images, prefix of the names), the folders as
            regular expressions for the end of a path in lower case.
        counts: Pairs of each split, as published.
        roles: Split -> train or test.
        strip: Regular expression of what is taken off the names, so that the two of a pair are equal.
        num_test: Pairs to pick for a split ``test``, where the dataset has no split of its own.
        notes: For the manifest and the terminal.
    """
    name: str
    folders: tuple
    counts: dict = field(default_factory=dict)
    roles: dict = field(default_factory=dict)
    strip: str = ''
    num_test: int = 0
    notes: tuple = ()


LAYOUTS = {
    'lol': Layout(
        'LOL', (('our485', 'our485/low', 'our485/high', ''), ('eval15', 'eval15/low', 'eval15/high', '')),
        {'our485': 485, 'eval15': 15}, {'our485': 'train', 'eval15': 'test'}),
    'lolv2': Layout(
        'LOL-v2-real', (('train', 'train/low', 'train/normal', ''), ('test', 'test/low', 'test/normal', '')),
        {'train': 689, 'test': 100}, {'train': 'train', 'test': 'test'}, strip='^(low|normal)[-_ ]?',
        notes=('86 of the 100 test inputs are pixel-identical to training images of LOL, and 3 to test images of LOL: '
               'a model trained on LOL is not to be measured here without saying so.', )),
    'lsrw': Layout(
        'LSRW', (('', 'huawei/low', 'huawei/high', 'huawei_'), ('', 'nikon/low', 'nikon/high', 'nikon_')),
        {'': 5650}, {'train': 'train', 'test': 'test'}, num_test=LSRW_TEST,
        notes=(f'The {LSRW_TEST} test pairs of the paper are not published. These are the {LSRW_TEST} names whose '
               f'SHA-256 of "{LSRW_SEED}:<name>" is smallest: figures are not comparable pair by pair.', )),
}


def prepare(layout: Layout, sources: list[str], output: str, partial: bool = False, lmdb: bool = False) -> str:
    """Lay out a dataset; an interrupted run is repeated with the same command.

    Files gather in ``<output>/.<name>.partial`` and appear under their final name all at once.

    Args:
        layout: What to look for.
        sources: Zip archives or folders; for a layout without folders the low and the normal one.
        output: Folder for the datasets.
        partial: Accept other numbers of pairs than the published ones. Default: False.
        lmdb: Make BasicSR's LMDBs beside the folders. Default: False.

    Returns:
        str: Folder of the dataset.

    Raises:
        ValueError: One line for each thing that is wrong; nothing is laid out then.
        OSError: Something cannot be read or written.
    """
    target = osp.join(osp.expanduser(output), layout.name)
    if osp.lexists(target):
        check_complete(target)
        print(f'complete {target}')
    else:
        pairs, notes = _find_pairs(layout, [open_source(source) for source in sources], partial)
        _lay_out(layout, pairs, notes, target)
    if lmdb:
        _make_lmdbs(target)
    return target


# ------------------------------------------------------------------- finding


def _find_pairs(layout: Layout, sources: list[Source], partial: bool) -> tuple[list[Pair], tuple[str, ...]]:
    """Pairs, sorted, and notes."""
    found: dict[tuple[str, str], dict[str, File]] = {}
    problems, left_out = [], []
    for number, source in enumerate(sources):
        for file in source.files:
            place = _place(layout, file, number)
            if place is None or not file.lower().endswith(IMAGE_EXTENSIONS):
                left_out.append(file)
                continue
            split, domain, name = place
            files = found.setdefault((split, name), {})
            if domain in files:
                problems.append(f'{source.path}: {file} and {files[domain][1]} have the same name')
            files[domain] = (source, file)
    where = ', '.join(source.path for source in sources)
    if not found:
        looked_for = ' and '.join(f'{low} with {high}' for _, low, high, _ in layout.folders) or 'them'
        raise ValueError(f'{where}: no images found, looked for {looked_for}')
    if not layout.folders:
        found = _pair_plain(layout.name, found)
    for _, files in sorted(found.items()):
        for domain in {'low', 'high'} - files.keys():
            there = next(iter(files.values()))[1]
            problems.append(f'{where}: {there} has no {domain} image of that name')
    counts = Counter(split for split, _ in found)
    for split, count in layout.counts.items():
        if counts[split] not in (count, 0) and not partial:  # one of two splits is a dataset too
            problems.append(f'{where}: {counts[split]} pairs{f" in {split}" if split else ""}, {count} are '
                            'published: the download is not complete (--partial accepts it)')
    _refuse(problems)
    test: set[tuple[str, str]] = set()
    if layout.num_test:
        names = sorted(found, key=lambda key: hashlib.sha256(f'{LSRW_SEED}:{key[1]}'.encode()).hexdigest())
        test = set(names[:layout.num_test])
    pairs = []
    for key, files in found.items():
        split = key[0] if not layout.num_test else 'test' if key in test else 'train'
        pairs.append((split, key[1], files['low'], files['high']))
    if left_out and not layout.folders:
        warn(f'{where}: {len(left_out)} files in sub-folders or of other kinds are left out, such as {left_out[0]}')
    absent = ', '.join(split for split in layout.counts if not counts[split])
    notes = (f'no pairs of {absent} in {where}: laid out without', ) if absent else ()
    return sorted(pairs, key=lambda pair: pair[:2]), (*layout.notes, *notes)


def _pair_plain(name: str, found: dict) -> dict:
    """The images of two plain folders by the names of their pairs; as they were where they do not pair."""
    low, high = ({key[1]: files[domain] for key, files in found.items() if domain in files}
                 for domain in ('low', 'high'))
    try:
        return {('', shared): {'low': low[a], 'high': high[b]} for shared, a, b in pair_names(low, high, name)}
    except ValueError:
        return found


def pair_names(low: Iterable[str], high: Iterable[str], name: str) -> list[tuple[str, str, str]]:
    """Pair equal names; where none are equal, names that end in equal numbers (low00690 with normal00690), with a line.

    Args:
        low: Names without extension.
        high: The same.
        name: Of the dataset, for the line.

    Returns:
        (name of the pair, low name, high name) of each; that of a pair by number is the number as it is written.

    Raises:
        ValueError: Some are in one of the folders alone.
    """
    low, high = set(low), set(high)
    numbers = [{match[1]: stem for stem in stems if (match := re.search(r'(\d+)\D*$', stem))} for stems in (low, high)]
    if low & high or not low or numbers[0].keys() != numbers[1].keys() or len(numbers[0]) < max(len(low), len(high)):
        if single := sorted(low ^ high):
            raise ValueError(f'{len(single)} images are in one of the folders alone, such as {single[0]}')
        return [(stem, stem, stem) for stem in low]
    pairs = [(number, stem, numbers[1][number]) for number, stem in sorted(numbers[0].items())]
    warn(f'{name}: {len(pairs)} pairs by number, such as {pairs[0][1]} with {pairs[0][2]}')
    return pairs


def _place(layout: Layout, file: str, number: int) -> tuple[str, str, str] | None:
    """(split, domain, name) of a file, None where it is none of the dataset's."""
    folder, _, base = file.rpartition('/')
    stem = osp.splitext(base)[0]
    if not layout.folders:  # two plain folders
        return None if folder else ('', ('low', 'high')[number], stem)
    folder = folder.lower()
    if 'synthetic' in folder:  # LOL-v2's other half
        return None
    for split, low, high, prefix in layout.folders:
        for domain, pattern in (('low', low), ('high', high)):
            if re.search(rf'(^|/){pattern}$', folder):
                # LSRW is published in two parts that number their images from one
                prefix += 'eval_' if prefix and re.search(r'\b(eval|test)', folder) else ''
                return split, domain, prefix + re.sub(layout.strip, '', stem, flags=re.IGNORECASE)
    return None


def _refuse(problems: list[str]) -> None:
    if problems:
        more = [f'... and {len(problems) - MAX_LINES} more'] if len(problems) > MAX_LINES else []
        raise ValueError('\n'.join([*problems[:MAX_LINES], *more]))


# -------------------------------------------------------------------- laying out


def _lay_out(layout: Layout, pairs: list[Pair], notes: tuple[str, ...], target: str) -> None:
    dataset = NewDataset(target)
    images: list[dict] = []
    problems: list[str] = []
    alignment = {}
    print(f'reading  {len(pairs)} pairs')
    for pair, result in zip(pairs, map_threaded(lambda pair: _lay_out_pair(layout, pair, dataset), pairs)):
        entries, score, errors = result
        images += entries
        problems += errors
        alignment[f'{pair[0]}/{pair[1]}'.lstrip('/')] = score
    _refuse(problems)

    warnings = [f'{name}: low and high image correlate by {score:.2f} only, they may be misaligned'
                for name, score in alignment.items() if score < MIN_ALIGNMENT]
    repeated = duplicates(images)
    if repeated:
        warnings.append(f'{len(repeated)} images repeat another of their kind pixel by pixel, such as '
                        f'{" and ".join(next(iter(repeated.items())))}: see duplicates in {MANIFEST}')
    warnings += shared_views(images)
    dataset.finish(images, notes, warnings)
    for line in (*notes, *warnings):
        print(f'NOTE     {line}' if line in notes else f'WARNING  {line}')
    counts = Counter(split for split, *_ in pairs)
    summary = ', '.join(f'{count} pairs{f" in {split}" if split else ""}' for split, count in counts.items())
    print(f'ready    {target}: {summary}')


def _lay_out_pair(layout: Layout, pair: Pair, dataset: NewDataset) -> tuple[list[dict], float, list[str]]:
    """Copy and describe a pair: (entries of the manifest, alignment, problems)."""
    split, name, *files = pair
    entries, decoded, problems = [], [], []
    for domain, (source, file) in zip(('low', 'high'), files):
        path = '/'.join(filter(None, (split, domain, name + osp.splitext(file)[1].lower())))
        try:
            content = source.read(file)
            img = decode_image(content)
        except ValueError as error:
            problems.append(f'{source.path}: {file} cannot be read: {error}')
            continue
        decoded.append(img)
        entries.append(dataset.add(path, content, img, file, layout.roles.get(split)))
    if len(decoded) < 2:
        return entries, 1.0, problems
    if decoded[0].shape != decoded[1].shape:
        sizes = ['x'.join(map(str, entry['size'])) for entry in entries]
        problems.append(f'{files[0][0].path}: {files[0][1]} is {sizes[0]}, its high image {sizes[1]}')
        return entries, 1.0, problems
    return entries, aligned_correlation(*decoded), problems


def _make_lmdbs(target: str) -> None:
    """``low.lmdb`` and ``high.lmdb`` beside the folders, by BasicSR's own maker."""
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs
    images = [entry['path'] for entry in read_manifest(osp.join(target, MANIFEST))]
    for folder in sorted({name.rpartition('/')[0] for name in images}):
        names = sorted(name.rpartition('/')[2] for name in images if name.rpartition('/')[0] == folder)
        keys = [osp.splitext(name)[0] for name in names]
        source = osp.join(target, *folder.split('/'))
        if osp.isdir(f'{source}.lmdb'):
            print(f'complete {source}.lmdb')
            continue
        if not ''.join(keys).isascii():
            raise ValueError(f"{source}: BasicSR's LMDBs need names in ASCII")
        temporary = f'{source}.partial.lmdb'
        shutil.rmtree(temporary, ignore_errors=True)
        make_lmdb_from_imgs(source, temporary, names, keys)
        os.replace(temporary, f'{source}.lmdb')
        print(f'ready    {source}.lmdb')
