"""Checks of our models' options before a run touches anything: what is wrong is said at once, a line for each.

Keys, values and defaults are those of ``schema``. Keys of networks, losses, metrics, optimizers and schedules are
compared with the signatures of what they go to; then all of these are built and tried, without memory or on a small
picture: what they refuse would otherwise end a run that has begun.
"""
from __future__ import annotations

import inspect
import os
import numpy as np
import shutil
import torch
import warnings
from basicsr.metrics import calculate_metric
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from importlib.util import find_spec
from os import path as osp
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from typing import Any

from .archs.baseline_arch import Baseline
from .config import get
from .data.camera import Camera
from .dataset_checks import dataset_problems, picture_problems
from .messages import first_line, nearest
from .metrics.lpips_metric import build_lpips
from .metrics.metric_util import default_device
from .metrics.pyiqa_metric import build_pyiqa
from .models.exposure_jitter import ExposureJitter
from .models.lr_scheduler import SCHEDULES, build_schedule
from .schema import NETWORKS, TRAIN, Option, sections_of, shown

OPTIMIZERS = ('optim_g', 'optim_d')
LOSSES = [key for key in TRAIN if key.endswith('_opt')]
Options = dict[str, Any]
Problems = Iterator[str]


def check(opt: Options, is_train: bool) -> None:
    """Check the options of one of our models.

    Args:
        opt: Options, with the defaults.
        is_train: For training or for testing.

    Raises:
        ValueError: One line for each problem.
    """
    problems = list(_problems(opt, is_train)) or [
        *_network_problems(opt, is_train), *(_step_problems(opt) if is_train else ()), *_metric_problems(opt),
        *picture_problems(opt)]
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
    yield from _logger_problems(opt)
    metrics = get(opt, 'val:metrics')
    metrics = metrics if isinstance(metrics, dict) else {}
    keep_best = get(opt, 'logger:keep_best')
    if isinstance(keep_best, str) and keep_best and keep_best not in metrics:
        yield f'logger:keep_best: {keep_best!r} is no metric of val:metrics'

    for key in NETWORKS if is_train else NETWORKS[:1]:
        yield from _built(opt, key, ARCH_REGISTRY, needed=True)
    if is_train and isinstance(opt.get('train'), dict):
        yield from _training_problems(opt)
    for name in metrics:
        yield from _built(opt, f'val:metrics:{name}', METRIC_REGISTRY, needed=True, given={'img', 'img2'},
                          also={'better'})

    for key in NETWORKS:
        file = get(opt, f'path:pretrain_{key}')
        if isinstance(file, str) and not osp.isfile(osp.expanduser(file)):
            yield f'path:pretrain_{key}: no such file: {file}'
    if not is_train and not get(opt, 'path:pretrain_network_g') and not _is_classical(opt):
        yield 'path:pretrain_network_g: is missing, there is nothing to test'
    yield from dataset_problems(opt, is_train)


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
    for key in OPTIMIZERS:
        yield from _built(opt, f'train:{key}', optimizers, given={'params'})
    camera = get(opt, 'train:camera')
    if isinstance(camera, dict):
        yield from _unknown('train:camera', camera, {'share', *inspect.signature(Camera).parameters})
        share, folders = camera.get('share'), get(opt, 'datasets:train:dataroot_gt')
        count = len(folders) if isinstance(folders, list) else 1
        if isinstance(share, list) and len(share) != count:
            yield f'train:camera:share: has {len(share)} numbers for {count} folders of datasets:train:dataroot_gt'
    jitter = get(opt, 'train:cycle_jitter')
    if isinstance(jitter, dict):
        yield from _unknown('train:cycle_jitter', jitter, inspect.signature(ExposureJitter).parameters)
        for key, value in jitter.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float('inf'):
                yield f'train:cycle_jitter:{key}: must be a number of at least 0, found {value!r}'
    yield from _built(opt, 'train:scheduler', SCHEDULES, given={'optimizer', 'total_iter', 'last_epoch'})
    if get(opt, 'datasets:train:type') == 'UnpairedImageDataset':
        distill, teacher = get(opt, 'train:distill_opt'), get(opt, 'datasets:train:dataroot_teacher')
        if distill and not teacher:
            yield 'datasets:train:dataroot_teacher: is missing, train:distill_opt compares with its pictures'
        elif teacher and not distill:
            yield 'datasets:train:dataroot_teacher: is not used, there is no train:distill_opt: write ~'


def _logger_problems(opt: Options) -> Problems:
    """Packages and sections of the loggers."""
    use_tb_logger, wandb = get(opt, 'logger:use_tb_logger'), get(opt, 'logger:wandb')
    if use_tb_logger is True and find_spec('tensorboard') is None:
        yield 'logger:use_tb_logger: needs tensorboard: pip install tensorboard, or set it to false'
    if isinstance(wandb, dict):
        yield from _unknown('logger:wandb', wandb, ('project', 'resume_id'))
        if wandb.get('project') is not None and use_tb_logger is not True:
            yield 'logger:wandb:project: needs logger:use_tb_logger: true, whose figures it takes'
        elif wandb.get('project') is not None and find_spec('wandb') is None:
            yield 'logger:wandb:project: needs wandb: pip install wandb, or write ~'
    dist_params = opt.get('dist_params')
    if isinstance(dist_params, dict):
        yield from _unknown('dist_params', dist_params, ('backend', 'port'))


def _network_problems(opt: Options, is_train: bool) -> Problems:
    """What networks refuse when they are built, and crops that they do not take; nothing of it takes memory."""
    sides = get(opt, 'datasets:train:gt_size')
    height, width = sides if isinstance(sides, list) else (sides, sides)
    for key in NETWORKS if is_train else NETWORKS[:1]:
        arch = ARCH_REGISTRY.get(opt[key]['type'])
        without_values = FakeTensorMode()
        with without_values:
            net, problem = _tried(key, arch, opt[key])
        if problem:
            yield problem
        ours = arch.__module__.startswith('lowlight_cyclegan.')
        if net is None or not is_train or not ours or not height:
            continue
        names = [name for name, _ in net.named_parameters()]
        if not names:
            yield f'{key}: {opt[key]["type"]} has no parameters, there is nothing to train'
            continue
        for prefix in get(opt, f'train:fixed_{key.removeprefix("network_")}') or ():
            if not any(name.startswith(prefix) for name in names):
                yield f'train:fixed_{key[8:]}: no parameter of {key} begins with {prefix!r}'
        try:
            with without_values:
                crop = torch.empty(1, 3, height, width)
                shape = net(crop).shape
        except Exception as error:  # anything else is no matter of the crop, but of trying without values
            if isinstance(error, ValueError) or 'size' in str(error):
                yield f'{key}: does not take crops of {height}x{width} (datasets:train:gt_size): {first_line(error)}'
            continue
        if key in NETWORKS[:2] and shape != crop.shape:
            yield f'{key}: makes {tuple(shape)} of {tuple(crop.shape)}, where the shape must stay'


def _tried(key: str, build: Callable, section: Options) -> tuple[nn.Module | None, str | None]:
    """What the section builds, or the line that says why it does not."""
    try:
        return build(**{name: value for name, value in section.items() if name != 'type'}), None
    except Exception as error:
        if isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError) and \
                not build.__module__.startswith('lowlight_cyclegan.'):
            return None, None  # a foreign network that cannot be built without memory
        other = None if isinstance(error, ValueError) else _of_another_kind(build, section)
        return None, f'{key}:{other}' if other else f'{key}: {first_line(error)}'


def _of_another_kind(build: Callable, section: Options) -> str | None:
    """The first argument whose value and default are of different kinds, which errors of Python do not name."""
    for name, parameter in inspect.signature(build).parameters.items():
        value, default = section.get(name), parameter.default
        kinds: dict[type, type | tuple] = {bool: bool, int: int, float: (int, float), str: str}
        kind = kinds.get(type(default))
        if name in section and kind and not (isinstance(value, kind) and (kind is bool) == isinstance(value, bool)):
            return f'{name}: found {shown(value)}, where the default is {shown(default)}'
    return None


def _step_problems(opt: Options) -> Problems:
    """What losses, optimizers and schedules refuse."""
    train = opt['train']
    for key in LOSSES:
        if train.get(key):
            problem = _tried(f'train:{key}', LOSS_REGISTRY.get(train[key]['type']), train[key])[1]
            if problem:
                yield problem
    for key in OPTIMIZERS:
        options = dict(train[key])
        kind = options.pop('type')
        try:
            optimizer = BaseModel.get_optimizer(None, kind, [nn.Parameter(torch.zeros(1))], **options)
        except NotImplementedError:
            yield f"train:{key}:type: {kind} is not among the optimizers that this BasicSR's models build; Adam is"
            continue
        except Exception as error:
            yield f'train:{key}: {first_line(error)}'
            continue
        try:
            built = build_schedule(optimizer, train['total_iter'], **train['scheduler'])
            built.last_epoch = int(train['total_iter']) - 1  # of the last iteration
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # that this is not a step
                built.get_lr()
        except Exception as error:
            yield (f'train:scheduler: {train["scheduler"]["type"]} does not last for {train["total_iter"]} iterations: '
                   f'{first_line(error)}')
            return


def _metric_problems(opt: Options) -> Problems:
    """Weights of metrics that cannot be had, and values that they do not take, by trying them on a small picture."""
    picture = np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    for name, metric in (get(opt, 'val:metrics') or {}).items():
        if metric.get('better', 'higher') not in ('higher', 'lower'):
            yield f"val:metrics:{name}:better: {metric['better']!r} is not known, known: higher, lower"
        options = {k: v for k, v in metric.items() if k not in ('type', 'better', 'crop_border', 'input_order')}
        try:
            if metric['type'] == 'calculate_lpips':
                build_lpips(options.get('net', 'alex'), options.get('trunk'), default_device())
            elif metric['type'] == 'calculate_pyiqa':
                build_pyiqa(options.pop('metric', 'psnr'), default_device(), **options)
            else:
                options = {key: value for key, value in metric.items() if key != 'better'}
                calculate_metric({'img': picture, 'img2': picture}, options)
        except Exception as error:
            yield f'val:metrics:{name}: {first_line(error)}'


def _is_classical(opt: Options) -> bool:
    """Whether G is a method without anything to learn."""
    name = get(opt, 'network_g:type')
    arch = ARCH_REGISTRY.get(name) if isinstance(name, str) and name in ARCH_REGISTRY else None
    return inspect.isclass(arch) and issubclass(arch, Baseline) and not hasattr(arch, 'convert')


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
    if not isinstance(name, str) or name not in names:
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
        if key not in known:
            yield f'{where}:{key}: unknown key{nearest(key, known)}'.lstrip(':')
