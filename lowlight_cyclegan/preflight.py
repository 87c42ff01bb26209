"""Checks of our models' options before a run touches anything: what is wrong is said at once, a line for each.

Keys, values and defaults are those of ``schema``. Keys of networks, losses, metrics, optimizers and schedules are
compared with the signatures of what they go to. The pictures themselves are decoded by the datasets, which name the
files that cannot be read.
"""
from __future__ import annotations

import inspect
import os
import shutil
import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from os import path as osp
from typing import Any

from .archs.baseline_arch import Baseline
from .config import get
from .data.data_util import IMAGE_EXTENSIONS, read_name_list
from .messages import first_line, nearest
from .metrics.lpips_metric import build_lpips
from .metrics.metric_util import default_device
from .metrics.pyiqa_metric import build_pyiqa
from .models.exposure_jitter import ExposureJitter
from .models.lr_scheduler import LinearDecayLR
from .schema import DATASETS, NETWORKS, REMOVED, Option, sections_of

LOSSES = ('gan_opt', 'cycle_opt', 'identity_opt', 'distill_opt')
SCHEDULERS = {
    'LinearDecayLR': LinearDecayLR,
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}
Options = dict[str, Any]
Problems = Iterator[str]


def check(opt: Options, is_train: bool) -> None:
    """Check the options of one of our models.

    Args:
        opt: Options as the file and ``--force_yml`` give them, with or without the defaults.
        is_train: For training or for testing.

    Raises:
        ValueError: One line for each problem.
    """
    problems = list(_problems(opt, is_train)) or [*_value_problems(opt, is_train), *_metric_problems(opt)]
    if problems:
        raise ValueError('\n'.join(dict.fromkeys(problems)))


def _problems(opt: Options, is_train: bool) -> Problems:
    if is_train and opt.get('train') is None:
        yield 'train: the section is missing'
    for path, (section, table) in sections_of(opt).items():
        if isinstance(section, dict):
            yield from _section_problems(path, section, table, is_train)
        elif section is not None:
            yield f'{path}: is no section, found {section!r}'
    if is_train and opt.get('compile') and not shutil.which(os.environ.get('CXX', 'g++')):
        yield 'compile: needs a C++ compiler (g++, or the one that CXX names): install one, or set compile: false'
    keep_best = get(opt, 'logger:keep_best')
    if keep_best and keep_best not in (get(opt, 'val:metrics') or ()):
        yield f'logger:keep_best: {keep_best!r} is no metric of val:metrics'

    for key in NETWORKS if is_train else NETWORKS[:1]:
        yield from _built(opt, key, ARCH_REGISTRY, needed=True)
    if is_train and isinstance(opt.get('train'), dict):
        yield from _training_problems(opt)
    for name in get(opt, 'val:metrics') or ():
        yield from _built(opt, f'val:metrics:{name}', METRIC_REGISTRY, needed=True, given={'img', 'img2'},
                          also={'better'})

    for key in NETWORKS:
        file = get(opt, f'path:pretrain_{key}')
        if file and not osp.isfile(osp.expanduser(file)):
            yield f'path:pretrain_{key}: no such file: {file}'
    if not is_train and not get(opt, 'path:pretrain_network_g') and not _is_classical(opt):
        yield 'path:pretrain_network_g: is missing, there is nothing to test'
    yield from _dataset_problems(opt, is_train)


def _section_problems(path: str, section: Options, table: Mapping[str, Option], is_train: bool) -> Problems:
    """Keys that are not known, removed or missing, and values of another kind or out of range."""
    prefix = f'{path}:' if path else ''
    yield from _unknown(path, section, {*table, 'phase', 'scale'} if path.startswith('datasets') else table)
    for key, option in table.items():
        value = section.get(key)
        if value is None and option.required and (is_train or path != 'train'):
            yield f'{prefix}{key}: is missing'
        reason = option.wrong(value)
        if reason is not None:
            yield f'{prefix}{key}: {reason}' if option.kind != 'section' else \
                f'{prefix}{key}: is no section, found {value!r}'


def _training_problems(opt: Options) -> Problems:
    for key in LOSSES:
        yield from _built(opt, f'train:{key}', LOSS_REGISTRY)
        weight = get(opt, f'train:{key}:loss_weight')
        if weight is not None and (isinstance(weight, bool) or not isinstance(weight, (int, float))):
            yield f'train:{key}:loss_weight: must be a number, found {weight!r}'
    optimizers = {k: v for k, v in vars(torch.optim).items() if inspect.isclass(v)}
    for key in ('optim_g', 'optim_d'):
        yield from _built(opt, f'train:{key}', optimizers, given={'params'})
    jitter = get(opt, 'train:cycle_jitter')
    if isinstance(jitter, dict):
        yield from _unknown('train:cycle_jitter', jitter, inspect.signature(ExposureJitter).parameters)
    yield from _built(opt, 'train:scheduler', SCHEDULERS, given={'optimizer', 'total_iter', 'last_epoch'})
    if get(opt, 'datasets:train:type') == 'UnpairedImageDataset':
        distill, teacher = get(opt, 'train:distill_opt'), get(opt, 'datasets:train:dataroot_teacher')
        if distill and not teacher:
            yield 'datasets:train:dataroot_teacher: is missing, train:distill_opt compares with its pictures'
        elif teacher and not distill:
            yield 'datasets:train:dataroot_teacher: is not used, there is no train:distill_opt: write ~'


def _value_problems(opt: Options, is_train: bool) -> Problems:
    """What networks, losses and augmentations refuse when they are built."""
    for key in NETWORKS if is_train else NETWORKS[:1]:
        with torch.device('meta'):
            yield from _refused(key, ARCH_REGISTRY.get(opt[key]['type']), **opt[key])
    for key in LOSSES if is_train else ():
        loss = opt['train'].get(key)
        if loss:
            yield from _refused(f'train:{key}', LOSS_REGISTRY.get(loss['type']), **loss)


def _refused(key: str, build: Callable, type: str | None = None, **values: Any) -> Problems:
    """The error of building a section, if it is one of its values."""
    try:
        build(**values)
    except (TypeError, ValueError, OSError) as error:
        yield f'{key}: {first_line(error)}'
    except RuntimeError:
        pass  # a foreign network that cannot be built without memory


def _metric_problems(opt: Options) -> Problems:
    """Weights of metrics that cannot be had: found now, not at the first validation."""
    for name, metric in (get(opt, 'val:metrics') or {}).items():
        options = {k: v for k, v in metric.items() if k not in ('type', 'better', 'crop_border', 'input_order')}
        try:
            if metric['type'] == 'calculate_lpips':
                build_lpips(options.get('net', 'alex'), options.get('trunk'), default_device())
            elif metric['type'] == 'calculate_pyiqa':
                build_pyiqa(options.pop('metric', 'psnr'), default_device(), **options)
        except (ValueError, OSError, SystemExit) as error:
            yield f'val:metrics:{name}: {error}'


def _is_classical(opt: Options) -> bool:
    """Whether G is a method without anything to learn."""
    name = get(opt, 'network_g:type')
    arch = ARCH_REGISTRY.get(name) if name in ARCH_REGISTRY else None
    return inspect.isclass(arch) and issubclass(arch, Baseline) and not hasattr(arch, 'convert')


def _dataset_problems(opt: Options, is_train: bool) -> Problems:
    datasets = opt.get('datasets')
    if not isinstance(datasets, dict) or not datasets or is_train and 'train' not in datasets:
        yield f"datasets{':train' if is_train and datasets else ''}: is missing"
        return
    for phase, dataset in datasets.items():
        where = f'datasets:{phase}'
        if phase.split('_')[0] not in (('train', 'val') if is_train else ('val', 'test')) or phase.startswith('train_'):
            yield f'{where}: no such phase here{nearest(phase, ("train", "val") if is_train else ("test", "val"))}'
        elif not isinstance(dataset, dict):
            yield f'{where}: is no section, found {dataset!r}'
        elif dataset.get('type') not in DATASET_REGISTRY:
            yield f"{where}:type: {dataset.get('type')!r} is not known{nearest(dataset.get('type'), DATASETS)}"
        elif dataset['type'] in DATASETS:
            yield from _file_problems(where, dataset)


def _file_problems(where: str, dataset: Options) -> Problems:
    """Missing folders, folders without images, lists that cannot be read, names without a file."""
    kind = dataset['type']
    io_backend = dataset.get('io_backend') or {'type': 'disk'}
    if not isinstance(io_backend, dict) or io_backend.get('type') not in ('disk', 'lmdb'):
        yield f'{where}:io_backend: needs type: disk or type: lmdb'
        return
    stems: dict[str, set[str]] = {}
    for key in ('lq', 'gt', 'teacher'):
        folder = dataset.get(f'dataroot_{key}')
        label = f'{where}:dataroot_{key}'
        if not isinstance(folder, str):
            continue
        if not osp.isdir(osp.expanduser(folder)):
            yield f'{label}: no such folder: {folder}'
        elif io_backend['type'] == 'disk':
            names = os.listdir(osp.expanduser(folder))
            stems[key] = {osp.splitext(name)[0] for name in names
                          if name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith('.')}
            if not stems[key]:
                yield f'{label}: no image ({", ".join(IMAGE_EXTENSIONS)}) in {folder}'
    lists: dict[str, list[str]] = {}
    for key in {'names', 'exclude_names', 'meta_info_file'} & dataset.keys():
        if dataset[key] is not None:
            try:
                lists[key] = read_name_list(dataset[key], f'{where}:{key}')
            except (ValueError, OSError, SystemExit) as error:
                yield str(error)
    if {'lq', 'teacher'} <= stems.keys():
        untaught = stems['lq'] - stems['teacher'] - set(lists.get('exclude_names', ()))
        yield from _missing(f'{where}:dataroot_teacher', untaught, dataset)
    if kind in ('PairedNameListDataset', 'PairedImageDataset') and 'meta_info_file' not in lists and len(stems) == 2:
        lq_names = {name: dataset.get('filename_tmpl', '{}').format(name) for name in lists.get('names', stems['gt'])}
        if kind == 'PairedNameListDataset' and 'names' not in lists:
            return  # takes what the folders have in common
        yield from _missing(f'{where}:dataroot_gt', [n for n in lq_names if n not in stems['gt']], dataset)
        yield from _missing(f'{where}:dataroot_lq', [n for n in lq_names.values() if n not in stems['lq']], dataset)
        if kind == 'PairedImageDataset':
            yield from _missing(f'{where}:dataroot_gt', stems['lq'] - set(lq_names.values()), dataset)


def _missing(label: str, names: Iterable[str], dataset: Options) -> Problems:
    missing = sorted(names)
    if missing:
        shown = ', '.join(missing[:5]) + (f' and {len(missing) - 5} more' if len(missing) > 5 else '')
        yield f"{label}: no picture named {shown} in {dataset[label.split(':')[-1]]}, so the pairs are incomplete"


def _built(opt: Options, key: str, registry: Iterable, needed: bool = False, given: Set[str] = frozenset(),
           also: Set[str] = frozenset()) -> Problems:
    """Problems of a section whose ``type`` names something to call with its other keys."""
    section = get(opt, key)
    if section is None:
        if needed:
            yield f'{key}: the section is missing'
        return
    if not isinstance(section, dict) or 'type' not in section:
        yield f'{key}: needs a type'
        return
    names = dict(registry) if isinstance(registry, dict) else dict(iter(registry))
    name = section['type']
    if name not in names:
        yield f'{key}:type: {name!r} is not known{nearest(name, names)}'
        return
    parameters = inspect.signature(names[name]).parameters
    known = {p.name for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - given
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    # BasicSR's metrics take **kwargs and drop them: only calculate_pyiqa does something with them.
    if not passes_on or registry is METRIC_REGISTRY and name != 'calculate_pyiqa':
        yield from _unknown(key, section, known | also | {'type'})
    for parameter in parameters.values():
        if parameter.name in known - section.keys() and parameter.default is parameter.empty:
            yield f'{key}:{parameter.name}: is missing'
    lr = section.get('lr')
    if lr is not None and (isinstance(lr, bool) or not isinstance(lr, (int, float))):
        yield f'{key}:lr: must be a number, found {lr!r}'


def _unknown(where: str, section: Options, known: Iterable[str]) -> Problems:
    known = set(known)
    for key in section:
        path = f'{where}:{key}'.lstrip(':')
        if path in REMOVED:
            yield f'{path}: was removed; leave it out'
        elif key not in known:
            yield f'{path}: unknown key{nearest(key, known)}'
