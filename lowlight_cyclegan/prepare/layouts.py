"""From what people download to ``datasets/<NAME>/<split>/{low,high}``: checked, named alike, with a manifest.

manifest.json: ``dataset``, ``notes``, ``warnings``, ``duplicates`` (path: the first path with the same pixels) and
``images``, a list of ``path`` (relative to the manifest), ``source`` (its name in the download), ``role`` (train, test
or none), ``sha256`` of the file, ``size`` (width and height) and its fingerprint (see ``fingerprint.py``).
"""
import errno
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from os import path as osp

from lowlight_cyclegan.data.data_util import IMAGE_EXTENSIONS, decode_image, map_threaded
from lowlight_cyclegan.messages import fail
from lowlight_cyclegan.models.checkpoint import file_sha256
from .archive import open_source
from .fingerprint import aligned_correlation, find_matches, fingerprint

__all__ = ['LAYOUTS', 'prepare', 'write_atomically']

MANIFEST = 'manifest.json'
MIN_ALIGNMENT = 0.7  # of the reduced log-gray images; LOL's 141, 142 and 648 are below
MAX_LINES = 10
LSRW_SEED = 2024
LSRW_TEST = 30


@dataclass(frozen=True)
class Layout:
    """How a dataset is downloaded and what it must hold.

    Attributes:
        name (str): Folder under the output.
        folders (tuple): (split, folder of low images, folder of normal images, prefix of the names), the folders as
            regular expressions for the end of a path in lower case.
        counts (dict[str, int]): Pairs of each split, as published.
        roles (dict[str, str]): Split -> train or test.
        strip (str): Regular expression of what is taken off the names, so that the two of a pair are equal.
        num_test (int): Pairs to pick for a split ``test``, where the dataset has no split of its own.
        notes (tuple[str]): For the manifest and the terminal.
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


def prepare(layout, sources, output, partial=False, lmdb=False):
    """Lay out a dataset; an interrupted run is repeated with the same command.

    Files gather in ``<output>/.<name>.partial`` and appear under their final name all at once.

    Args:
        layout (Layout): What to look for.
        sources (list[str]): Zip archives or folders; for a layout without folders the low and the normal one.
        output (str): Folder for the datasets.
        partial (bool): Accept other numbers of pairs than the published ones. Default: False.
        lmdb (bool): Make BasicSR's LMDBs beside the folders. Default: False.

    Returns:
        str: Folder of the dataset.

    Raises:
        SystemExit: One line for each thing that is wrong; nothing is laid out then.
    """
    target = osp.join(osp.expanduser(output), layout.name)
    if osp.lexists(target):
        _check_complete(target)
        print(f'complete {target}')
    else:
        pairs = _find_pairs(layout, [open_source(source) for source in sources], partial)
        _lay_out(layout, pairs, target)
    if lmdb:
        _make_lmdbs(target)
    return target


# ------------------------------------------------------------------- finding


def _find_pairs(layout, sources, partial):
    """[(split, name, low, high)], sorted; low and high are (source, file)."""
    found = {}  # (split, name) -> {'low': (source, file), 'high': ...}
    problems = []
    for number, source in enumerate(sources):
        for file in source.files:
            place = _place(layout, file, number)
            if place is None or not file.lower().endswith(IMAGE_EXTENSIONS):
                continue
            split, domain, name = place
            files = found.setdefault((split, name), {})
            if domain in files:
                problems.append(f'{source.path}: {file} and {files[domain][1]} have the same name')
            files[domain] = (source, file)
    where = ', '.join(source.path for source in sources)
    if not found:
        looked_for = ' and '.join(f'{low} with {high}' for _, low, high, _ in layout.folders) or 'them'
        fail(f'{where}: no images found, looked for {looked_for}')
    for _, files in sorted(found.items()):
        for domain in {'low', 'high'} - files.keys():
            there = next(iter(files.values()))[1]
            problems.append(f'{where}: {there} has no {domain} image of that name')
    counts = {}
    for split, _ in found:
        counts[split] = counts.get(split, 0) + 1
    for split, count in layout.counts.items():
        if counts.get(split, 0) != count and not partial:
            problems.append(f'{where}: {counts.get(split, 0)} pairs{f" in {split}" if split else ""}, {count} are '
                            'published: the download is not complete (--partial accepts it)')
    _fail_if(problems)
    test = set()
    if layout.num_test:
        names = sorted(found, key=lambda key: hashlib.sha256(f'{LSRW_SEED}:{key[1]}'.encode()).hexdigest())
        test = set(names[:layout.num_test])
    pairs = []
    for key, files in found.items():
        split = key[0] if not layout.num_test else 'test' if key in test else 'train'
        pairs.append((split, key[1], files['low'], files['high']))
    return sorted(pairs, key=lambda pair: pair[:2])


def _place(layout, file, number):
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


def _fail_if(problems):
    if problems:
        more = [f'... and {len(problems) - MAX_LINES} more'] if len(problems) > MAX_LINES else []
        fail(*problems[:MAX_LINES], *more)


# -------------------------------------------------------------------- laying out


def _lay_out(layout, pairs, target):
    staging = osp.join(osp.dirname(target), f'.{osp.basename(target)}.partial')
    images, problems, alignment = [], [], {}
    print(f'reading  {len(pairs)} pairs')
    for pair, result in zip(pairs, map_threaded(lambda pair: _lay_out_pair(layout, pair, staging), pairs)):
        entries, score, errors = result
        images += entries
        problems += errors
        alignment[f'{pair[0]}/{pair[1]}'.lstrip('/')] = score
    _fail_if(problems)

    warnings = [f'{name}: low and high image correlate by {score:.2f} only, they may be misaligned'
                for name, score in alignment.items() if score < MIN_ALIGNMENT]
    duplicates = _duplicates(images)
    if duplicates:
        warnings.append(f'{len(duplicates)} images repeat another of their kind pixel by pixel, such as '
                        f'{" and ".join(next(iter(duplicates.items())))}: see duplicates in {MANIFEST}')
    warnings += _shared_views(images)
    wanted = {osp.join(staging, *entry['path'].split('/')) for entry in images}
    for folder, _, names in os.walk(staging):  # left by a run with another source
        for name in names:
            if osp.join(folder, name) not in wanted:
                os.remove(osp.join(folder, name))
    manifest = {'dataset': layout.name, 'notes': layout.notes, 'warnings': warnings, 'duplicates': duplicates,
                'images': images}
    write_atomically(osp.join(staging, MANIFEST), json.dumps(manifest, indent=1).encode())
    os.replace(staging, target)
    for line in (*layout.notes, *warnings):
        print(f'NOTE     {line}' if line in layout.notes else f'WARNING  {line}')
    counts = {}
    for split, *_ in pairs:
        counts[split] = counts.get(split, 0) + 1
    summary = ', '.join(f'{count} pairs{f" in {split}" if split else ""}' for split, count in counts.items())
    print(f'ready    {target}: {summary}')


def _lay_out_pair(layout, pair, staging):
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
        write_atomically(osp.join(staging, *path.split('/')), content)
        entries.append({'path': path, 'source': file, 'role': layout.roles.get(split),
                        'sha256': hashlib.sha256(content).hexdigest(), 'size': [img.shape[1], img.shape[0]],
                        **fingerprint(img)})
    if len(decoded) < 2:
        return entries, 1.0, problems
    if decoded[0].shape != decoded[1].shape:
        sizes = ['x'.join(map(str, entry['size'])) for entry in entries]
        problems.append(f'{files[0][0].path}: {files[0][1]} is {sizes[0]}, its high image {sizes[1]}')
        return entries, 1.0, problems
    return entries, aligned_correlation(*decoded), problems


def write_atomically(path, content):
    """Write bytes under another name, then rename: the file is whole or absent. What is there already stays.

    Raises:
        SystemExit: It cannot be written.
    """
    try:
        if osp.isfile(path) and osp.getsize(path) == len(content):
            with open(path, 'rb') as f:
                if f.read() == content:
                    return
        os.makedirs(osp.dirname(path) or '.', exist_ok=True)
        temporary = f'{path}.{os.getpid()}.tmp'
        with open(temporary, 'wb') as f:
            f.write(content)
        os.replace(temporary, path)
    except OSError as error:
        room = ': make room and give the same command again' if error.errno == errno.ENOSPC else ''
        fail(f'cannot write {path}: {error.strerror}{room}')


def _duplicates(images):
    """{path: path of the first image with the same pixels}, low and normal images apart."""
    first, duplicates = {}, {}
    for entry in images:
        key = (entry['path'].rsplit('/', 2)[-2], entry['pixels'])
        if first.setdefault(key, entry['path']) != entry['path']:
            duplicates[entry['path']] = first[key]
    return duplicates


def _shared_views(images):
    """Test images whose view is among the training images."""
    train, test = ([e for e in images if e['role'] == role and '/low/' in e['path']] for role in ('train', 'test'))
    matches = find_matches(train, test)
    if not matches:
        return []
    identical = sum(kind == 'identical' for kind, _, _ in matches.values())
    return [f'{len(matches)} of {len(test)} test inputs show a view that is among the training inputs '
            f'({identical} of them identical)']


# ----------------------------------------------------------------- repeating


def _check_complete(target):
    """End with a line where the dataset's folder is not as its manifest says."""
    path = osp.join(target, MANIFEST)
    try:
        with open(path, encoding='utf-8') as f:
            images = [(entry['path'], entry['sha256']) for entry in json.load(f)['images']]
    except (OSError, ValueError, KeyError, TypeError):
        fail(f'{target}: is there and has no readable {MANIFEST}: move it away or give another --output')
    for name, sha256 in images:
        file = osp.join(target, *name.split('/'))
        if not osp.isfile(file) or file_sha256(file) != sha256:
            fail(f'{file}: is missing or not what the manifest says: remove {target} and give the same command again')


def _make_lmdbs(target):
    """``low.lmdb`` and ``high.lmdb`` beside the folders, by BasicSR's own maker."""
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs
    with open(osp.join(target, MANIFEST), encoding='utf-8') as f:
        images = [entry['path'] for entry in json.load(f)['images']]
    for folder in sorted({name.rpartition('/')[0] for name in images}):
        names = sorted(name.rpartition('/')[2] for name in images if name.rpartition('/')[0] == folder)
        keys = [osp.splitext(name)[0] for name in names]
        source = osp.join(target, *folder.split('/'))
        if osp.isdir(f'{source}.lmdb'):
            print(f'complete {source}.lmdb')
            continue
        if not ''.join(keys).isascii():
            fail(f"{source}: BasicSR's LMDBs need names in ASCII")
        temporary = f'{source}.partial.lmdb'
        shutil.rmtree(temporary, ignore_errors=True)
        make_lmdb_from_imgs(source, temporary, names, keys)
        os.replace(temporary, f'{source}.lmdb')
        print(f'ready    {source}.lmdb')
