"""Methods x datasets: measured, tabled and drawn."""
import json
import math
import os
import statistics
import torch
from os import path as osp
from tqdm import tqdm

from lowlight_cyclegan.data.data_util import decode_image, map_threaded
from lowlight_cyclegan.messages import fail, first_line, warn
from lowlight_cyclegan.metrics.lpips_metric import build_lpips
from lowlight_cyclegan.metrics.metric_util import default_device
from lowlight_cyclegan.prepare.layouts import write_atomically
from lowlight_cyclegan.prepare.fingerprint import find_matches, fingerprint
from .measure import HEADINGS, METRICS, Cache, Protocol, find_pairs, measure
from .methods import complexity, load_method
from lowlight_cyclegan.prepare.overlap import load_fingerprints
from .statistics import bootstrap_interval, mean_and_error
from .tables import Table, to_csv, to_latex, to_markdown, to_terminal

__all__ = ['clean_subsets', 'compare', 'difference_table', 'measure_all', 'quality_table']


def compare(args):
    """The command ``evaluate``: one table and its figures under ``args.output``.

    Raises:
        SystemExit: One line, before anything is measured where the command line is at fault.
    """
    protocol = Protocol(args.color, args.border, args.rounding, args.resize, args.metrics, args.ssim, args.lpips,
                        args.lpips_trunk)
    datasets = dict(find_pairs(text) for text in args.data)
    _check(args, datasets)
    device = args.device or default_device()
    methods = [load_method(text, device) for text in args.method]
    labels = [method.label for method in methods]
    baseline = args.baseline or labels[0]
    if protocol.lpips != 'none':
        build_lpips(protocol.lpips, protocol.lpips_trunk, default_device())  # what is amiss with it is said now
    train = [entry for path in args.train_manifest for entry in load_fingerprints(path, 'train')]

    cache = Cache(args.cache or osp.join(args.output, 'cache'))
    records, computed = measure_all(methods, datasets, protocol, cache, device)
    if records is None:  # another process has them
        return
    subsets, notes = {}, [protocol.describe(), f'computed {computed}, from the cache '
                          f'{sum(map(len, datasets.values())) * len(methods) - computed} of the images']
    for name, pairs in datasets.items():
        subsets[name], warnings = clean_subsets(name, pairs, train)
        notes += warnings
        for line in warnings:
            warn(line)
    size = protocol.resize[::-1] if protocol.resize else _image(next(iter(datasets.values()))[0].low).shape[:2]
    costs = {method.label: _cost(method, size, cache) for method in methods}
    machines = ' and '.join(sorted({record['machine'] for record in records}))
    notes.append(f'parameters: those that the output depends on; GMACs: multiply-accumulates for {size[1]}x{size[0]} '
                 f'pixels; ms: median over the images of the network alone, on {machines}, torch {torch.__version__}')
    tables = [quality_table(records, labels, subsets, costs, notes)]
    if len(labels) > 1:
        tables.append(difference_table(records, labels, baseline, subsets))
    _write(args.output, tables, records, protocol)
    if not args.no_figures:
        from .figures import draw_all
        draw_all(args.output, datasets, labels, records, baseline, args.figure_images, args.crop)
    _print(tables)
    print(f'written to {args.output}')


def _check(args, datasets):
    labels = [text.partition('=')[0] for text in args.method]
    names = [text.partition('=')[0] for text in args.data]
    for flag, values in (('--method', labels), ('--data', names)):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice:
            fail(f'{flag} {twice}: is there twice, give each its own name')
    if args.baseline and args.baseline not in labels:
        fail(f'--baseline {args.baseline}: is none of the methods: {", ".join(labels)}')
    unknown = set(args.figure_images or ()) - {pair.name for pairs in datasets.values() for pair in pairs}
    if unknown:
        fail(f'--figure-images {min(unknown)}: is in none of the datasets')
    try:
        torch.zeros(1, device=args.device)
    except (RuntimeError, AssertionError) as error:
        fail(f'--device {args.device}: {first_line(error)}')
    if args.lpips_trunk and not osp.isfile(args.lpips_trunk):
        fail(f'--lpips-trunk {args.lpips_trunk}: no such file')


def measure_all(methods, datasets, protocol, cache, device):
    """Measure everything, each process its share of the images.

    Args:
        methods (list[Method]): Loaded, on the device.
        datasets (dict[str, list[Pair]]): Name -> images.
        protocol (Protocol): How.
        cache (Cache): Shared by the processes.
        device (str): Where the methods are.

    Returns:
        tuple[list[dict] | None, int]: One record for each dataset, method and image in this order, with the keys
        ``data``, ``method``, ``image`` and those of `measure`; on rank 0 alone. Then how many were computed now.
    """
    from mmengine.dist import all_gather_object, get_dist_info
    rank, world_size = get_dist_info()
    protocol_fingerprint = protocol.fingerprint()
    places = [(name, method, pair) for name, pairs in datasets.items() for method in methods for pair in pairs]
    share = []
    indices = range(rank, len(places), world_size)
    for index in tqdm(indices, unit='image', disable=rank != 0 or None, leave=False):
        name, method, pair = places[index]
        record = measure(method, pair, protocol, protocol_fingerprint, cache, device)
        share.append((index, {'data': name, 'method': method.label, 'image': pair.name, **record}))
    records = [record for part in all_gather_object(share) for record in part]
    if rank != 0:
        return None, 0
    records = [record for _, record in sorted(records, key=lambda item: item[0])]
    computed = sum(not record.pop('cached') for record in records)
    return records, computed


def clean_subsets(name, pairs, train):
    """Names of the images that are not in the training set, in two degrees, and a warning where some are.

    Args:
        name (str): Of the dataset, for the warning.
        pairs (list[Pair]): Its images; one is in the training set where its low image or its reference is.
        train (list[dict]): Fingerprints.

    Returns:
        tuple[dict[str, list[str]], list[str]]: Title of a subset -> image names, without those that are the whole
        set; lines.
    """
    if not train:
        return {}, []
    prints = list(map_threaded(lambda path: fingerprint(_image(path)), [f for p in pairs for f in (p.low, p.high)]))
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


def _image(path):
    with open(path, 'rb') as f:
        return decode_image(f.read())


def _cost(method, size, cache):
    """:func:`complexity`, remembered."""
    key = f'cost_{method.fingerprint}_{size[1]}x{size[0]}'
    cost = cache.read(key)
    if not isinstance(cost, list) or len(cost) != 2:
        cost = complexity(method.net, size)
        cache.write(key, cost)
    return tuple(cost)


def _groups(records, subsets):
    """(data, subset's title, {method: its records}) for whole datasets and their clean subsets."""
    for name in dict.fromkeys(record['data'] for record in records):
        for title, images in {'': None, **subsets.get(name, {})}.items():
            group = {}
            for record in records:
                if record['data'] == name and (images is None or record['image'] in images):
                    group.setdefault(record['method'], []).append(record)
            yield name, title, group


def quality_table(records, labels, subsets, costs, notes):
    """Mean and standard error of each metric, cost of each method; clean subsets below their dataset.

    Args:
        records (list[dict]): See :func:`measure_all`.
        labels (list[str]): Methods in the table's order.
        subsets (dict[str, dict[str, list[str]]]): Dataset -> title -> images, see :func:`clean_subsets`.
        costs (dict[str, tuple[float, float]]): Method -> parameters in millions, GMACs.
        notes (list[str]): For below the table.
    """
    columns = [('data', 'data', None, 0), ('method', 'method', None, 0), ('n', 'n', None, 0)]
    columns += [(key, HEADINGS[key][0], better, HEADINGS[key][1]) for key, better in METRICS.items()]
    columns += [('params', 'params (M)', None, 4), ('gmacs', 'GMACs', None, 2), ('ms', 'ms', None, 1)]
    rows = []
    for name, title, group in _groups(records, subsets):
        for label in labels:
            images = group.get(label, [])
            row = {'data': f'{name}, {title}' if title else name, 'method': label, 'n': len(images),
                   'params': costs[label][0], 'gmacs': costs[label][1]}
            row['ms'] = statistics.median(r['ms'] for r in images) if images else None
            for key in METRICS:
                row[key] = mean_and_error([r[key] for r in images])[:2]
            rows.append(row)
    return Table('Mean ± standard error over images', columns, rows, notes)


def difference_table(records, labels, baseline, subsets):
    """Mean paired difference of each metric to the baseline, with its bootstrap interval."""
    columns = [('data', 'data', None, 0), ('method', 'method', None, 0)]
    columns += [(key, f'Δ {HEADINGS[key][0]}', better, HEADINGS[key][1]) for key, better in METRICS.items()]
    rows = []
    for name, title, group in _groups(records, subsets):
        for label in labels:
            if label == baseline or not group:
                continue
            row = {'data': f'{name}, {title}' if title else name, 'method': label}
            for key in METRICS:
                row[key] = bootstrap_interval([r[key] for r in group[label]], [r[key] for r in group[baseline]])
            rows.append(row)
    return Table(f'Difference to {baseline}: mean [95% bootstrap interval over images]', columns, rows)


def _write(output, tables, records, protocol):
    """table.md, table.tex, table.json, table.csv, differences.csv and per_image.csv."""
    columns = [(key, key, None, 0) for key in ('data', 'method', 'image', *METRICS, 'ms')]
    files = {'table.md': to_markdown(tables), 'table.tex': to_latex(tables), 'table.csv': to_csv(tables[0]),
             'per_image.csv': to_csv(Table('', columns, records))}
    if len(tables) > 1:
        files['differences.csv'] = to_csv(tables[1])
    content = {'protocol': protocol.describe(), 'notes': tables[0].notes,
               'tables': [{'title': table.title, 'rows': table.rows} for table in tables], 'images': records}
    files['table.json'] = json.dumps(_finite(content), indent=1, ensure_ascii=False)
    for name, text in files.items():
        write_atomically(osp.join(output, name), text.encode())


def _finite(value):
    """JSON knows neither nan nor infinity."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(tables):
    from rich.console import Console
    # a table is for reading across: in a file or a pipe it takes the width that it needs
    console = Console(width=None if os.isatty(1) else 240)
    for table in tables:
        console.print(to_terminal(table))
        for note in table.notes:
            console.print(note, highlight=False, soft_wrap=True)
