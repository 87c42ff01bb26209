"""The four rows of the paper's table 5 from one option file: the plain generator, with EMA, with ASPP, with both."""
from __future__ import annotations

import csv
import json
import os
import re
import statistics
import subprocess
import sys
import time
import torch
import yaml
from collections.abc import Callable, Sequence
from copy import deepcopy
from os import path as osp

from lowlight_cyclegan.config import find_file, find_lists, force_option, get, load_options, options_dir
from lowlight_cyclegan.evaluate.tables import Table, show, to_csv, to_markdown
from lowlight_cyclegan.files import atomic_write
from .budget import iterations_within, signals_for

__all__ = ['ROWS', 'ablate', 'parse_budget', 'row_options', 'run_training', 'summary_table']

ROWS = {'plain': (False, False), 'ema': (True, False), 'aspp': (False, True), 'ema_aspp': (True, True)}
TITLES = {'plain': 'CycleGAN', 'ema': 'with EMA', 'aspp': 'with ASPP', 'ema_aspp': 'with EMA and ASPP'}


def parse_budget(text: str) -> tuple[int | None, float | None]:
    """``500it`` -> (500, None), ``10min`` -> (None, 10.0).

    Raises:
        ValueError: Another form.
    """
    match = re.fullmatch(r'(\d+(?:\.\d+)?)(it|min)', text)
    if not match or float(match[1]) <= 0 or match[2] == 'it' and '.' in match[1]:
        raise ValueError(f'--budget {text}: write it as 500it or 10min')
    return (int(match[1]), None) if match[2] == 'it' else (None, float(match[1]))


def ablate(opt_file: str, budget: str, seeds: Sequence[int], output: str,
           train: Callable[[str, str], int] | None = None, force_yml: Sequence[str] = ()) -> None:
    """Train the four variants with each seed and tabulate their last validation. Finished runs are not repeated.

    With a budget in minutes, a short trial of each variant on this machine turns it into iterations, once; the learning
    rate's schedule spans them.

    Args:
        opt_file: Base option file; its network_g and network_f take use_ema and use_aspp.
        budget: Of each run, ``500it`` or ``10min``.
        seeds: Each is a ``manual_seed``.
        output: Folder for options, experiments and tables.
        train: Trains an option file in a folder and returns the exit code; None takes :func:`run_training`.
        force_yml: Entries ``section:key=value`` that override options of the base.

    Raises:
        ValueError: Wrong options, or an output that belongs to another ablation.
        ChildProcessError: A run failed.
    """
    count, minutes = parse_budget(budget)
    opt_file = find_file(opt_file, [options_dir()])
    base = load_options(opt_file)
    for entry in force_yml:
        force_option(base, entry)
    _check(opt_file, base)
    if len(set(seeds)) < len(seeds):
        raise ValueError('--seeds: give each seed once')
    find_lists(base, opt_file)
    # runs are told apart by seed and row: another base or budget must not be taken for a finished one
    plan_file = osp.join(output, 'plan.json')
    plan = {'base': base, 'budget': budget}
    old = _read_json(plan_file)
    if old is not None and {key: old.get(key) for key in plan} != plan:
        raise ValueError(f'{output}: holds an ablation of other options or another budget: give another --output')
    iterations = (old or {}).get('iterations') or {
        row: count or iterations_within(row_options(base, row, 0, 1), minutes or 0) for row in ROWS}
    os.makedirs(osp.join(output, 'options'), exist_ok=True)
    atomic_write(plan_file, json.dumps({**plan, 'iterations': iterations}, indent=1).encode())

    results = []
    for number, (seed, row) in enumerate([(seed, row) for seed in seeds for row in ROWS], 1):
        opt = row_options(base, row, seed, iterations[row])
        opt['path']['experiments_root'] = osp.join(output, 'experiments')
        table = _validation_file(output, opt)
        state = 'finished'
        if not osp.isfile(table):
            file = osp.join(output, 'options', f'{opt["name"]}.yml')
            atomic_write(file, yaml.safe_dump(opt, sort_keys=False).encode())
            print(f'{number}/{len(seeds) * len(ROWS)} {opt["name"]}: {iterations[row]} iterations', flush=True)
            begin = time.monotonic()
            code = (train or run_training)(file, output)
            if code or not osp.isfile(table):
                raise ChildProcessError(f'{opt["name"]}: training ended with code {code}, see '
                                        f'{osp.join(output, opt["name"])}.log; the same command continues')
            state = f'{time.monotonic() - begin:.0f} s'
        results.append({'row': row, 'seed': seed, 'iterations': iterations[row], **_read_means(table)})
        values = ', '.join(f'{key} {value:.4f}' for key, value in results[-1].items() if isinstance(value, float))
        print(f'{number}/{len(seeds) * len(ROWS)} {opt["name"]}: {state}, {values}', flush=True)
    _report(base, budget, results, output)


def _check(path: str, base: dict) -> None:
    if base.get('model_type') != 'LowLightCycleGANModel':
        raise ValueError(f'{path}: model_type: an ablation needs LowLightCycleGANModel, '
                         f'found {base.get("model_type")!r}')
    for key in ('network_g', 'network_f'):
        if get(base, f'{key}:type') != 'EMAResNetGenerator':
            raise ValueError(f'{path}: {key}: an ablation needs type EMAResNetGenerator')
    for key, needed in (('datasets:val', 'datasets:val:name'), ('val:metrics', 'val:metrics')):
        if not get(base, needed):
            raise ValueError(f'{path}: {key}: is missing, there is nothing to judge the rows by')
    for key in ('train', 'logger', 'path'):
        if not isinstance(base.get(key), dict):
            raise ValueError(f'{path}: {key}: the section is missing')


def row_options(base: dict, row: str, seed: int, iterations: int) -> dict:
    """Options of a run: the base with the row's switches, seed and length, validated once, at its end.

    Args:
        base: Options.
        row: One of `ROWS`.
        seed: ``manual_seed``.
        iterations: ``total_iter``.
    """
    opt = deepcopy(base)
    opt.update(name=f'{row}_seed{seed}', manual_seed=seed)
    for key in ('network_g', 'network_f'):
        opt[key].update(zip(('use_ema', 'use_aspp'), ROWS[row]))
    opt['train']['total_iter'] = iterations
    opt['val'].update(val_freq=iterations, save_img=False)
    opt['logger']['save_checkpoint_freq'] = min(opt['logger'].get('save_checkpoint_freq') or iterations, iterations)
    opt['logger'].setdefault('keep_last', 1)
    opt['logger']['use_tb_logger'] = False  # TensorBoard's files would lie beside other runs'
    return opt


def run_training(opt_file: str, folder: str) -> int:
    """Train in a process of its own, with ``<name>.log`` of its output in the folder; its exit code."""
    log = osp.join(folder, osp.splitext(osp.basename(opt_file))[0] + '.log')
    command = [sys.executable, '-m', 'lowlight_cyclegan.train', '-opt', opt_file, '--auto_resume']
    with open(log, 'a') as f, subprocess.Popen(command, stdout=f, stderr=subprocess.STDOUT) as process, \
            signals_for(process):
        return process.wait()


def _validation_file(output: str, opt: dict) -> str:
    """The table that a run's last validation writes."""
    name = f"{opt['datasets']['val']['name']}_{opt['train']['total_iter']}.csv"
    return osp.join(output, 'experiments', opt['name'], 'metrics', name)


def _read_means(path: str) -> dict[str, float]:
    """Mean of each metric over the images for which it is finite."""
    with open(path, newline='') as f:
        rows = list(csv.DictReader(f))
    means = {}
    for key in [key for key in rows[0] if key != 'image']:
        values = [float(row[key]) for row in rows]
        values = [v for v in values if abs(v) < float('inf')]
        means[key] = statistics.fmean(values) if values else float('nan')
    return means


def _read_json(path: str) -> dict | None:
    try:
        with open(path, encoding='utf-8') as f:
            return json.load(f)
    except OSError:
        return None
    except ValueError:
        raise ValueError(f'{path}: is damaged: remove it, finished runs are kept') from None


def summary_table(results: list[dict], metrics: dict[str, str], notes: Sequence[str] = ()) -> Table:
    """One row for each variant: mean and standard deviation over the seeds, and each seed by itself where there are
    several.

    Args:
        results: ``row``, ``seed``, ``iterations`` and the metrics of each run.
        metrics: Name -> 'higher' or 'lower'.
        notes: For below the table.
    """
    seeds = list(dict.fromkeys(result['seed'] for result in results))
    columns: list[tuple] = [('variant', 'variant', None, 0), ('iterations', 'iterations', None, 0)]
    for key, better in metrics.items():
        columns.append((key, key, better, 4))
        columns += [(f'{key}_seed{seed}', f'{key}, seed {seed}', better, 4) for seed in seeds] if len(seeds) > 1 else []
    rows = []
    for row in dict.fromkeys(result['row'] for result in results):
        runs = {result['seed']: result for result in results if result['row'] == row}
        cells = {'variant': TITLES[row], 'iterations': next(iter(runs.values()))['iterations']}
        for key in metrics:
            values = [run[key] for run in runs.values()]
            cells[key] = (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float('nan'))
            cells.update({f'{key}_seed{seed}': run[key] for seed, run in runs.items()})
        rows.append(cells)
    spread = f'mean ± standard deviation over seeds {", ".join(map(str, seeds))}' if len(seeds) > 1 else \
        f'seed {seeds[0]} alone: no spread'
    return Table(f'Ablation, {spread}', columns, rows, notes)


def _report(base: dict, budget: str, results: list[dict], output: str) -> None:
    metrics = {name: opt.get('better', 'higher') for name, opt in base['val']['metrics'].items()}
    notes = [f'budget {budget} for each run; last validation on {base["datasets"]["val"]["name"]}; torch '
             f'{torch.__version__}, {torch.get_num_threads()} threads']
    table = summary_table(results, metrics, notes)
    runs = [{'row': r['row'], 'seed': str(r['seed']), **{k: r[k] for k in ('iterations', *metrics)}} for r in results]
    columns = [(key, key, None, 0) for key in ('row', 'seed', 'iterations', *metrics)]
    for name, text in {'ablation.md': to_markdown([table]), 'ablation.csv': to_csv(Table('', columns, runs))}.items():
        atomic_write(osp.join(output, name), text.encode())
    show([table])
    print(f'written to {output}. On a test set: lowlight-cyclegan evaluate --method '
          f'NAME={osp.join(output, "experiments", "RUN", "models", "net_g_latest.pth")} --data NAME=LOW:HIGH')
