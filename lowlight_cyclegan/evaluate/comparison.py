"""Methods x datasets: measured, tabled and drawn."""
from __future__ import annotations

import json
import math
import numpy as np
import os
import torch
from collections.abc import Sequence
from os import path as osp
from tqdm import tqdm
from typing import Any

from lowlight_cyclegan.data.data_util import decode_image, map_threaded
from lowlight_cyclegan.files import atomic_write
from lowlight_cyclegan.messages import warn
from lowlight_cyclegan.metrics.lpips_metric import build_lpips
from lowlight_cyclegan.metrics.metric_util import default_device
from lowlight_cyclegan.prepare.fingerprint import find_matches, fingerprint
from lowlight_cyclegan.prepare.manifest import load_fingerprints
from .cache import Cache
from .measure import Meter
from .methods import Method, complexity, load_method
from .metrics import applicable
from .pairs import Pair, find_pairs
from .protocol import Protocol
from .tables import Table, difference_table, quality_table, show, to_csv, to_markdown

__all__ = ['clean_subsets', 'compare', 'measure_all']


def compare(methods: Sequence[str], data: Sequence[str], output: str, protocol: Protocol | None = None,
            baseline: str | None = None, train_manifests: Sequence[str] = (), cache: str | None = None,
            device: str | None = None, figures: bool = True) -> None:
    """Measure methods on datasets; tables and figures go to a folder, the tables to the terminal too.

    Args:
        methods: See :func:`~lowlight_cyclegan.evaluate.methods.load_method`.
        data: See :func:`~lowlight_cyclegan.evaluate.pairs.find_pairs`.
        output: Folder.
        protocol: How; None is its defaults.
        baseline: Method to which differences are taken; None takes the first.
        train_manifests: Training sets, see :func:`~lowlight_cyclegan.prepare.manifest.load_fingerprints`: images that
            they share with the data get a warning and rows without them.
        cache: Folder of what was measured before; None means ``output``/cache.
        device: None takes the GPU if there is one.
        figures: Draw them.

    Raises:
        ValueError: One line, before anything is measured where an argument is at fault.
        OSError: Something cannot be read or written.
    """
    protocol = protocol or Protocol()
    datasets = dict(find_pairs(text) for text in data)
    labels = [text.partition('=')[0] for text in methods]
    _check(labels, data, baseline, protocol)
    loaded = [load_method(text, device or default_device()) for text in methods]
    baseline = baseline or labels[0]
    if protocol.lpips != 'none':
        build_lpips(protocol.lpips, protocol.lpips_trunk, default_device())  # what is amiss with it is said now
    train = [entry for path in train_manifests for entry in load_fingerprints(path, 'train')]

    store = Cache(cache or osp.join(output, 'cache'))
    meter = Meter(protocol, store)
    kinds = [pair.high is not None for pairs in datasets.values() for pair in pairs[:1]]
    columns = {key: metric for key, metric in meter.metrics.items()
               if any(key in applicable(meter.metrics, kind) for kind in kinds)}
    records = measure_all(loaded, datasets, meter)
    cached = sum(record.pop('cached') for record in records)
    subsets, notes = {}, [protocol.describe(), f'computed {len(records) - cached}, from the cache {cached} of the '
                          'images']
    for name, pairs in datasets.items():
        subsets[name], warnings = clean_subsets(name, pairs, train)
        notes += warnings
        for line in warnings:
            warn(line)
    size = _image(next(iter(datasets.values()))[0].low).shape[:2]
    costs = {method.label: _cost(method, size, store) for method in loaded}
    machines = ' and '.join(sorted({record['machine'] for record in records}))
    notes.append(f'parameters: those that the output depends on; GMACs: multiply-accumulates for {size[1]}x{size[0]} '
                 f'pixels; ms: median over the images, on {machines}, torch {torch.__version__}')
    tables = [quality_table(records, labels, columns, subsets, costs, notes)]
    if len(labels) > 1:
        tables.append(difference_table(records, labels, columns, baseline, subsets))
    _write(output, tables, records, list(columns))
    if figures:
        from .figures import draw_all
        draw_all(output, datasets, labels, records)
    show(tables)
    print(f'written to {output}')


def _check(labels: list[str], data: Sequence[str], baseline: str | None, protocol: Protocol) -> None:
    for flag, values in (('--method', labels), ('--data', [text.partition('=')[0] for text in data])):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice:
            raise ValueError(f'{flag} {twice}: is there twice, give each its own name')
    if baseline and baseline not in labels:
        raise ValueError(f'--baseline {baseline}: is none of the methods: {", ".join(labels)}')
    if protocol.lpips_trunk and not osp.isfile(protocol.lpips_trunk):
        raise FileNotFoundError(f'--lpips-trunk {protocol.lpips_trunk}: no such file')


def measure_all(methods: list[Method], datasets: dict[str, list[Pair]], meter: Meter) -> list[dict]:
    """One record for each dataset, method and image in this order: ``data``, ``method``, ``image`` and the keys of
    ``meter.measure``."""
    places = [(name, method, pair) for name, pairs in datasets.items() for method in methods for pair in pairs]
    return [{'data': name, 'method': method.label, 'image': pair.name, **meter.measure(method, pair)}
            for name, method, pair in tqdm(places, unit='image', disable=None, leave=False)]


def clean_subsets(name: str, pairs: list[Pair], train: list[dict]) -> tuple[dict[str, list[str]], list[str]]:
    """Names of the images that are not in the training set, in two degrees, and a warning where some are.

    Args:
        name: Of the dataset, for the warning.
        pairs: Its images; one is in the training set where its low image or its reference is.
        train: Fingerprints.

    Returns:
        Title of a subset -> image names, without those that are the whole set; lines.
    """
    if not train:
        return {}, []
    files = [file for pair in pairs for file in (pair.low, pair.high or pair.low)]
    prints = list(map_threaded(lambda path: fingerprint(_image(path)), files))
    matches = find_matches(train, prints)
    kinds = [{matches[i][0] for i in (2 * n, 2 * n + 1) if i in matches} for n in range(len(pairs))]
    different = [pair.name for pair, kind in zip(pairs, kinds) if 'identical' not in kind]
    unseen = [pair.name for pair, kind in zip(pairs, kinds) if not kind]
    identical, views = len(pairs) - len(different), len(different) - len(unseen)
    if len(unseen) == len(pairs):
        return {}, []
    subsets = {}
    if identical:
        subsets['no identical image in training'] = different
    if views:
        subsets['no view of it in training'] = unseen
    return subsets, [f'{name}: of its {len(pairs)} images {identical} are identical to training images and {views} '
                     f'more show the same view as one; {len(unseen)} remain']


def _image(path: str) -> np.ndarray:
    with open(path, 'rb') as f:
        return decode_image(f.read())


def _cost(method: Method, size: tuple[int, int], cache: Cache) -> tuple[float, float]:
    """:func:`complexity`, remembered."""
    key = f'cost_{method.fingerprint}_{size[1]}x{size[0]}'
    cost = cache.read(key)
    if not isinstance(cost, list) or len(cost) != 2:
        cost = complexity(method.enhancer, size)
        cache.write(key, cost)
    return tuple(cost)


def _write(output: str, tables: list[Table], records: list[dict], metrics: list[str]) -> None:
    """table.md, table.json, table.csv, differences.csv and per_image.csv."""
    columns = [(key, key, None, 0) for key in ('data', 'method', 'image', *metrics, 'ms')]
    files = {'table.md': to_markdown(tables), 'table.csv': to_csv(tables[0]),
             'per_image.csv': to_csv(Table('', columns, records))}
    if len(tables) > 1:
        files['differences.csv'] = to_csv(tables[1])
    content = {'protocol': tables[0].notes[0], 'notes': tables[0].notes,
               'tables': [{'title': table.title, 'rows': table.rows} for table in tables], 'images': records}
    files['table.json'] = json.dumps(_finite(content), indent=1, ensure_ascii=False)
    os.makedirs(output, exist_ok=True)
    for name, text in files.items():
        atomic_write(osp.join(output, name), text.encode())


def _finite(value: Any) -> Any:
    """JSON knows neither nan nor infinity."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
