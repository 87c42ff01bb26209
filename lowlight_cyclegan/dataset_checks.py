"""Checks of the section ``datasets`` before a run: folders, lists, pairs and, where the datasets do not, the pictures.

``UnpairedImageDataset`` and ``PairedNameListDataset`` decode their pictures themselves when they are built. BasicSR's
own datasets would stumble over a broken or odd one in the middle of a validation.
"""
from __future__ import annotations

import os
from basicsr.utils.registry import DATASET_REGISTRY
from collections import Counter
from collections.abc import Iterable, Iterator
from os import path as osp
from typing import Any

from .data.data_util import IMAGE_EXTENSIONS, decode_image, map_threaded, read_name_list
from .messages import nearest
from .schema import DATASETS

__all__ = ['dataset_problems', 'picture_problems']

BASICSRS = ('PairedImageDataset', 'SingleImageDataset')
PAIRED = ('PairedNameListDataset', 'PairedImageDataset')
Options = dict[str, Any]
Problems = Iterator[str]


def dataset_problems(opt: Options, is_train: bool) -> Problems:
    """A line for each thing that is wrong with the datasets, their pictures apart."""
    datasets = opt.get('datasets')
    if not isinstance(datasets, dict) or not datasets or is_train and 'train' not in datasets:
        yield f"datasets{':train' if is_train and datasets else ''}: is missing"
        return
    for phase, dataset in datasets.items():
        where, kind = f'datasets:{phase}', dataset.get('type') if isinstance(dataset, dict) else None
        first = str(phase).split('_')[0]
        if first not in (('train', 'val') if is_train else ('val', 'test')) or str(phase).startswith('train_'):
            yield f'{where}: no such phase here{nearest(phase, ("train", "val") if is_train else ("test", "val"))}'
        elif not isinstance(dataset, dict):
            yield f'{where}: is no section, found {dataset!r}'
        elif not isinstance(kind, str) or kind not in DATASET_REGISTRY:
            yield f'{where}:type: {kind!r} is not known{nearest(kind, DATASETS)}'
        elif first == 'train' and kind in (*PAIRED, 'SingleImageDataset'):
            yield f'{where}:type: {kind} gives whole pictures, training takes the crops of UnpairedImageDataset'
        elif first != 'train' and kind == 'UnpairedImageDataset':
            yield f'{where}:type: {kind} gives random crops for training; use {", ".join((*PAIRED, BASICSRS[1]))}'
        elif kind in DATASETS:
            yield from _file_problems(where, dataset)
    measured = {phase: dataset for phase, dataset in datasets.items()
                if phase != 'train' and isinstance(dataset, dict) and dataset.get('name')}
    yield from _same_names(measured)
    yield from _shared_lmdbs(datasets)


def _same_names(measured: dict[str, Options]) -> Problems:
    """Tables and pictures of two sets would overwrite each other."""
    seen: dict[str, str] = {}
    for phase, dataset in measured.items():
        name = str(dataset['name'])
        if name in seen:
            yield f'datasets:{phase}:name: {name} is the name of datasets:{seen[name]} too: give each its own'
        seen.setdefault(name, phase)


def _shared_lmdbs(datasets: Options) -> Problems:
    """LMDB forbids opening a file twice in one process; our own datasets share what they open, BasicSR's do not."""
    roots = {f'datasets:{phase}:{key}': osp.realpath(osp.expanduser(dataset[key]))
             for phase, dataset in datasets.items()
             if isinstance(dataset, dict) and _backend(dataset).get('type') == 'lmdb'
             for key in ('dataroot_lq', 'dataroot_gt') if isinstance(dataset.get(key), str)}
    uses = Counter(roots.values())
    for where, root in roots.items():
        kind = datasets[where.split(':')[1]].get('type')
        if uses[root] > 1 and kind in BASICSRS:
            yield (f'{where}: another dataset opens this LMDB too, which {kind} cannot share: use '
                   'PairedNameListDataset, or a copy')


def _backend(dataset: Options) -> Options:
    io_backend = dataset.get('io_backend', {'type': 'disk'})
    return io_backend if isinstance(io_backend, dict) else {}


def _file_problems(where: str, dataset: Options) -> Problems:
    """Missing folders, folders without images, lists that cannot be read, names without a file."""
    backend = _backend(dataset).get('type')
    if backend not in ('disk', 'lmdb'):
        yield f'{where}:io_backend: needs type: disk or type: lmdb'
        return
    if backend == 'disk':
        for key in _backend(dataset).keys() - {'type'}:
            yield f'{where}:io_backend:{key}: unknown key, type: disk has no others'
    files: dict[str, list[str]] = {}
    for key in ('lq', 'gt', 'teacher'):
        label = f'{where}:dataroot_{key}'
        for folder in _folders(dataset.get(f'dataroot_{key}')):
            if not osp.isdir(osp.expanduser(folder)):
                yield f'{label}: no such folder: {folder}'
            elif backend == 'disk':
                files[key] = sorted(entry.name for entry in os.scandir(osp.expanduser(folder))
                                    if entry.is_file() and not entry.name.startswith('.'))
                if not any(map(_is_image, files[key])):
                    yield f'{label}: no image ({", ".join(IMAGE_EXTENSIONS)}) in {folder}'
            elif dataset['type'] in BASICSRS:
                yield from _lmdb_problems(label, folder)
    lists: dict[str, list[str]] = {}
    for key in ('names', 'exclude_names', 'meta_info_file'):
        # (A key that belongs to another dataset is said to be unknown, elsewhere.)
        if isinstance(dataset.get(key), str) and key in DATASETS.get(dataset['type'], (key, )):
            try:
                lists[key] = read_name_list(dataset[key], f'{where}:{key}')
            except ValueError as error:
                yield str(error)
    if {'lq', 'teacher'} <= files.keys():
        untaught = _stems(files['lq']) - _stems(files['teacher']) - set(lists.get('exclude_names', ()))
        yield from _missing(f'{where}:dataroot_teacher', untaught, dataset)
    if dataset['type'] in BASICSRS:
        for key in files:
            others = [name for name in files[key] if not _is_image(name)]
            if others and 'meta_info_file' not in lists:
                yield (f'{where}:dataroot_{key}: {others[0]} is no image, and {dataset["type"]} reads every file: '
                       f'remove {"it" if len(others) == 1 else f"these {len(others)} files"} from '
                       f'{dataset[f"dataroot_{key}"]}')
    if dataset['type'] in PAIRED and {'lq', 'gt'} <= files.keys():
        yield from _pair_problems(where, dataset, files, lists)


def _folders(value: Any) -> list[str]:
    """Folders of an option: one, or several with their weights."""
    entries = value if isinstance(value, list) else [value]
    folders = [entry.get('folder') if isinstance(entry, dict) else entry for entry in entries]
    return [folder for folder in folders if isinstance(folder, str)]


def _lmdb_problems(label: str, folder: str) -> Problems:
    if not folder.endswith('.lmdb'):
        yield f'{label}: the name of an LMDB ends in .lmdb, found {folder}'
    for name in ('data.mdb', 'meta_info.txt'):
        if not osp.isfile(osp.join(osp.expanduser(folder), name)):
            yield f'{label}: {folder} holds no {name}, it is no LMDB of BasicSR'


def _pair_problems(where: str, dataset: Options, files: dict[str, list[str]], lists: dict[str, list[str]]) -> Problems:
    """Pictures without a counterpart. PairedImageDataset compares whole names, the other one leaves extensions out."""
    template = dataset.get('filename_tmpl') or '{}'
    try:
        low_name = {name: str(template).format(name) for name in lists.get('names', _stems(files['gt']))}
    except (IndexError, KeyError, ValueError):
        yield f'{where}:filename_tmpl: is a name with one {{}} in it, found {template!r}'
        return
    low, normal = _stems(files['lq']), _stems(files['gt'])
    if dataset['type'] == 'PairedNameListDataset' and 'names' not in lists or 'meta_info_file' in lists:
        return  # the first takes what the folders have in common
    yield from _missing(f'{where}:dataroot_gt', [name for name in low_name if name not in normal], dataset)
    yield from _missing(f'{where}:dataroot_lq', [name for name in low_name.values() if name not in low], dataset)
    if dataset['type'] == 'PairedImageDataset':
        yield from _missing(f'{where}:dataroot_gt', low - set(low_name.values()), dataset)
        for file in filter(_is_image, files['gt']):
            stem, extension = osp.splitext(file)
            wanted = low_name[stem] + extension
            if low_name[stem] in low and wanted not in files['lq']:
                yield (f'{where}:dataroot_lq: no {wanted} in {dataset["dataroot_lq"]}, which has the name with another '
                       'extension: PairedNameListDataset pairs them')
                return


def _missing(label: str, names: Iterable[str], dataset: Options) -> Problems:
    missing = sorted(names)
    if missing:
        shown = ', '.join(missing[:5]) + (f' and {len(missing) - 5} more' if len(missing) > 5 else '')
        yield f"{label}: no picture named {shown} in {dataset[label.split(':')[-1]]}, so the pairs are incomplete"


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_EXTENSIONS)


def _stems(files: Iterable[str]) -> set[str]:
    return {osp.splitext(name)[0] for name in files if _is_image(name)}


def picture_problems(opt: Options) -> Problems:
    """Pictures that BasicSR's datasets cannot read, and pairs of different sizes: every one is decoded once."""
    for phase, dataset in opt['datasets'].items():
        if dataset['type'] not in BASICSRS or _backend(dataset)['type'] != 'disk' or dataset.get('meta_info_file'):
            continue
        roots = {key: osp.expanduser(dataset[f'dataroot_{key}'])
                 for key in ('lq', 'gt') if f'dataroot_{key}' in dataset}
        names = [name for name in sorted(os.listdir(roots['lq'])) if _is_image(name) and not name.startswith('.')]
        paths = {'lq': [osp.join(roots['lq'], name) for name in names]}
        if 'gt' in roots:
            template = str(dataset.get('filename_tmpl') or '{}')
            high = {template.format(osp.splitext(name)[0]) + osp.splitext(name)[1]: name
                    for name in os.listdir(roots['gt']) if _is_image(name)}
            paths['gt'] = [osp.join(roots['gt'], high[name]) for name in names]
        sizes: dict[str, list[Any]] = {}
        for key in paths:
            sizes[key] = list(map_threaded(_size, paths[key]))
            yield from (f'datasets:{phase}:dataroot_{key}: {size}' for size in sizes[key] if isinstance(size, str))
        scale = opt.get('scale') or 1
        for path, low, normal in zip(paths.get('gt', ()), sizes['lq'], sizes.get('gt', ())):
            if not isinstance(low, str) and not isinstance(normal, str) and normal != (low[0] * scale, low[1] * scale):
                yield (f'datasets:{phase}:dataroot_gt: {path} is {normal[1]}x{normal[0]}, its low image '
                       f'{low[1]}x{low[0]}' + (f' and scale is {scale}' if scale != 1 else ''))


def _size(path: str) -> tuple[int, int] | str:
    """(height, width), or why there is none."""
    try:
        with open(path, 'rb') as f:
            height, width = decode_image(f.read()).shape[:2]
        return height, width
    except (OSError, ValueError) as error:
        return f'{path} cannot be read ({error})'
