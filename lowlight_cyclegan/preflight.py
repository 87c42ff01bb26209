"""Checks of our models' options before a run touches anything: what is wrong is said at once, a line for each.

Keys of networks, losses, metrics, optimizers and schedules are compared with the signatures of what they go to. The
pictures themselves are decoded by the datasets, which name the files that cannot be read.
"""
import inspect
import os
import shutil
import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
from os import path as osp

from .archs.baseline_arch import Baseline
from .data.data_util import IMAGE_EXTENSIONS, read_name_list
from .messages import first_line, nearest
from .metrics.lpips_metric import build_lpips
from .metrics.metric_util import default_device
from .metrics.pyiqa_metric import build_pyiqa
from .models.exposure_jitter import ExposureJitter
from .models.lr_scheduler import LinearDecayLR

# Sections of each model: its networks, and in `train` its optimizers, losses, and keys that only it has.
MODELS = {
    'LowLightCycleGANModel': {
        'networks': ('network_g', 'network_f', 'network_d_a', 'network_d_b'),
        'optimizers': ('optim_g', 'optim_d'),
        'losses': ('gan_opt', 'cycle_opt', 'identity_opt', 'color_opt', 'tv_opt', 'feature_opt',
                   'distill_opt'),
        'train': {'pool_size', 'detach_exposure', 'cycle_jitter', 'cycle_low_weight', 'fixed_g', 'fixed_f',
                  'diff_augment', 'merge_g_calls', 'merge_d_calls', 'freeze_d'},
    },
    'ZeroReferenceModel': {
        'networks': ('network_g', ),
        'optimizers': ('optim_g', ),
        'losses': ('zero_reference_opt', ),
        'train': set(),
    },
}
OPTIONAL_LOSSES = {'identity_opt', 'color_opt', 'tv_opt', 'feature_opt', 'distill_opt'}
LOSS_OF = {'ZeroDCE': 'ZeroDCELoss', 'SCI': 'SCILoss'}
SCHEDULERS = {
    'LinearDecayLR': LinearDecayLR,
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}

# Known keys.
TOP = {'name', 'model_type', 'scale', 'num_gpu', 'manual_seed', 'amp', 'compile', 'channels_last', 'winograd',
       'datasets', 'path', 'train', 'val', 'logger', 'dist_params'}
PATH = {'resume_state', 'ignore_resume_networks', 'experiments_root', 'results_root'}
TRAIN = {'scheduler', 'total_iter', 'warmup_iter', 'ema_decay', 'nan_policy', 'nan_limit', 'foreach_averaging',
         'defer_losses'}
VAL = {'val_freq', 'save_img', 'suffix', 'pbar', 'metrics', 'self_ensemble'}
LOGGER = {'print_freq', 'save_checkpoint_freq', 'keep_last', 'keep_best', 'use_tb_logger', 'wandb'}

LOADER = {'num_worker_per_gpu', 'batch_size_per_gpu', 'dataset_enlarge_ratio', 'persistent_workers', 'prefetch_mode',
          'num_prefetch_queue', 'pin_memory'}
PAIRED = {'name', 'type', 'dataroot_lq', 'dataroot_gt', 'io_backend', 'filename_tmpl', 'mean', 'std', 'pin_memory'}
DATASETS = {
    'UnpairedImageDataset': LOADER | {
        'name', 'type', 'dataroot_lq', 'dataroot_gt', 'dataroot_teacher', 'io_backend', 'gt_size', 'use_hflip',
        'use_rot', 'resize', 'exclude_names', 'cache', 'cache_limit_gb', 'match_exposure', 'manual_seed'},
    'PairedNameListDataset': PAIRED | {'names', 'color'},
    'PairedImageDataset': PAIRED | {'meta_info_file', 'color'},
    'SingleImageDataset': PAIRED - {'dataroot_gt', 'filename_tmpl'} | {'meta_info_file', 'color'},
}

# Keys that a section needs once it is there; values where not every one makes sense.
NEEDED = {
    'train': ('scheduler', 'total_iter'),
    'logger': ('print_freq', 'save_checkpoint_freq', 'use_tb_logger'),
    'datasets:train': ('num_worker_per_gpu', 'batch_size_per_gpu', 'gt_size', 'use_hflip'),
    'val': ('val_freq', 'save_img'),
}
ONE_OF = {
    'amp': ('auto', 'bf16'), 'compile': (False, True), 'channels_last': ('auto', False, True),
    'winograd': ('auto', False, True), 'train:nan_policy': ('stop', 'skip'), 'val:self_ensemble': (False, True),
    **dict.fromkeys(('train:merge_g_calls', 'train:merge_d_calls', 'train:freeze_d', 'train:foreach_averaging',
                     'train:defer_losses'), (False, True))}
AT_LEAST = {
    'manual_seed': 0, 'train:total_iter': 1, 'train:pool_size': 0, 'train:nan_limit': 0, 'train:cycle_low_weight': 0,
    'logger:print_freq': 1, 'logger:save_checkpoint_freq': 1, 'logger:keep_last': 1, 'val:val_freq': 1,
    'datasets:train:num_worker_per_gpu': 0, 'datasets:train:batch_size_per_gpu': 1,
    'datasets:train:dataset_enlarge_ratio': 1, 'datasets:train:cache_limit_gb': 0, 'datasets:train:match_exposure': 0,
}


def check(opt, is_train):
    """Check the options of one of our models.

    Args:
        opt (dict): Options as the file and ``--force_yml`` give them.
        is_train (bool): For training or for testing.

    Raises:
        ValueError: One line for each problem.
    """
    problems = list(_problems(opt, is_train)) or [*_value_problems(opt, is_train), *_metric_problems(opt)]
    if problems:
        raise ValueError('\n'.join(dict.fromkeys(problems)))


def _problems(opt, is_train):
    model = MODELS[opt['model_type']]
    networks = model['networks']
    names = [network[len('network_'):] for network in networks]
    path_keys = PATH | {f'pretrain_{network}' for network in networks}
    path_keys |= {f'{key}_{name}' for name in names for key in ('strict_load', 'param_key')}
    train_keys = TRAIN | {*model['optimizers'], *model['losses'], *model['train']}
    yield from _unknown('', opt, TOP | {*networks})
    for key, known in (('path', path_keys), ('train', train_keys), ('val', VAL), ('logger', LOGGER)):
        section = opt.get(key)
        if isinstance(section, dict):
            yield from _unknown(key, section, known)
        elif section is not None:
            yield f'{key}: is no section, found {section!r}'
        elif key == 'path' or key in (('train', 'logger') if is_train else ('val', )):
            yield f'{key}: the section is missing'
    for section, keys in NEEDED.items():
        if section == 'train':
            keys = (*model['optimizers'], *keys, *(key for key in model['losses'] if key not in OPTIONAL_LOSSES))
        for key in keys:
            if isinstance(_get(opt, section), dict) and _get(opt, f'{section}:{key}') is None:
                if is_train or (section, key) == ('val', 'save_img'):
                    yield f'{section}:{key}: is missing'
    for key, values in ONE_OF.items():
        if _get(opt, key) not in (None, *values):
            yield f'{key}: {_get(opt, key)!r} is not known{nearest(_get(opt, key), values)}'
    if is_train and opt.get('compile') and not shutil.which(os.environ.get('CXX', 'g++')):
        yield 'compile: needs a C++ compiler (g++, or the one that CXX names): install one, or set compile: false'
    keep_best = _get(opt, 'logger:keep_best')
    if keep_best and keep_best not in (_get(opt, 'val:metrics') or ()):
        yield f'logger:keep_best: {keep_best!r} is no metric of val:metrics'
    for key, least in AT_LEAST.items():
        value = _get(opt, key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < least):
            yield f'{key}: must be a number of at least {least}, found {value!r}'

    for key in networks if is_train else networks[:1]:
        yield from _built(opt, key, ARCH_REGISTRY, needed=True)
    if is_train:
        for key in model['losses']:
            yield from _built(opt, f'train:{key}', LOSS_REGISTRY)
            weight = _get(opt, f'train:{key}:loss_weight')
            weights = [weight] if not isinstance(weight, list) else weight if len(weight) == 2 else ['']
            if weight is not None and any(isinstance(w, bool) or not isinstance(w, (int, float)) for w in weights):
                yield f'train:{key}:loss_weight: must be a number, or [first, last], found {weight!r}'
        optimizers = {k: v for k, v in vars(torch.optim).items() if inspect.isclass(v)}
        for key in model['optimizers']:
            yield from _built(opt, f'train:{key}', optimizers, given={'params'})
        jitter = _get(opt, 'train:cycle_jitter')
        if isinstance(jitter, dict):
            yield from _unknown('train:cycle_jitter', jitter, inspect.signature(ExposureJitter).parameters)
        elif jitter is not None:
            yield f'train:cycle_jitter: is no section, found {jitter!r}'
        yield from _built(opt, 'train:scheduler', SCHEDULERS, given={'optimizer', 'total_iter', 'last_epoch'})
        if _get(opt, 'datasets:train:type') == 'UnpairedImageDataset':
            distill, teacher = _get(opt, 'train:distill_opt'), _get(opt, 'datasets:train:dataroot_teacher')
            if distill and not teacher:
                yield 'datasets:train:dataroot_teacher: is missing, train:distill_opt compares with its pictures'
            elif teacher and not distill:
                yield 'datasets:train:dataroot_teacher: is not used, there is no train:distill_opt: write ~'
        if opt['model_type'] == 'ZeroReferenceModel':
            yield from _zero_reference_problems(opt)
    for name in _get(opt, 'val:metrics') or ():
        yield from _built(opt, f'val:metrics:{name}', METRIC_REGISTRY, needed=True, given={'img', 'img2'},
                          also={'better'})

    for key in networks:
        path = _get(opt, f'path:pretrain_{key}')
        if path and not osp.isfile(osp.expanduser(path)):
            yield f'path:pretrain_{key}: no such file: {path}'
    load_path = _get(opt, 'network_g:load_path')
    for path in [load_path] if isinstance(load_path, str) else load_path or ():
        if not osp.exists(osp.expanduser(path)):
            yield f'network_g:load_path: no such file: {path}'
    if not is_train and not _get(opt, 'path:pretrain_network_g') and not load_path and not _is_classical(opt):
        yield 'path:pretrain_network_g: is missing, there is nothing to test'
    yield from _dataset_problems(opt, is_train)


def _zero_reference_problems(opt):
    """A network that cannot be trained so, the loss of another network, normal-light images that would lie idle."""
    network, loss = _get(opt, 'network_g:type'), _get(opt, 'train:zero_reference_opt:type')
    if network in ARCH_REGISTRY and not hasattr(ARCH_REGISTRY.get(network), 'enhance_for_loss'):
        yield f"network_g:type: {network} cannot be trained without references, use {' or '.join(LOSS_OF)}"
    elif network in LOSS_OF and loss in LOSS_REGISTRY and loss != LOSS_OF[network]:
        yield f'train:zero_reference_opt:type: {loss} does not fit {network}, use {LOSS_OF[network]}'
    if _get(opt, 'datasets:train:dataroot_gt') is not None:
        yield 'datasets:train:dataroot_gt: is not used, training sees low-light images alone: write ~'


def _value_problems(opt, is_train):
    """What networks, losses and augmentations refuse when they are built, weights that cannot be had."""
    model = MODELS[opt['model_type']]
    for key in model['networks'] if is_train else model['networks'][:1]:
        if not opt[key].get('load_path'):
            with torch.device('meta'):
                yield from _refused(key, ARCH_REGISTRY.get(opt[key]['type']), **opt[key])
    if not is_train:
        return
    for key in model['losses']:
        loss = opt['train'].get(key)
        if loss:
            weight = loss.get('loss_weight')
            first = {'loss_weight': weight[0]} if isinstance(weight, list) else {}
            yield from _refused(f'train:{key}', LOSS_REGISTRY.get(loss['type']), **{**loss, **first})


def _refused(key, build, type=None, **values):
    """The error of building a section, if it is one of its values."""
    try:
        build(**values)
    except (TypeError, ValueError, FileNotFoundError) as error:
        yield f'{key}: {first_line(error)}'
    except RuntimeError:
        pass  # a foreign network that cannot be built without memory


def _metric_problems(opt):
    """Weights of metrics that cannot be had: found now, not at the first validation."""
    for name, metric in (_get(opt, 'val:metrics') or {}).items():
        options = {k: v for k, v in metric.items() if k not in ('type', 'better', 'crop_border', 'input_order')}
        try:
            if metric['type'] == 'calculate_lpips':
                build_lpips(options.get('net', 'alex'), options.get('trunk'), default_device())
            elif metric['type'] == 'calculate_pyiqa':
                build_pyiqa(options.pop('metric', 'psnr'), default_device(), **options)
        except SystemExit as error:
            yield f'val:metrics:{name}: {error}'


def _is_classical(opt):
    """Whether G is a method without anything to learn."""
    name = _get(opt, 'network_g:type')
    arch = ARCH_REGISTRY.get(name) if name in ARCH_REGISTRY else None
    return inspect.isclass(arch) and issubclass(arch, Baseline) and not hasattr(arch, 'convert')


def _dataset_problems(opt, is_train):
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
            yield from _unknown(where, dataset, DATASETS[dataset['type']] | {'phase', 'scale'})
            if not dataset.get('name'):
                yield f'{where}:name: is missing'
            yield from _file_problems(where, dataset, opt['model_type'])


def _file_problems(where, dataset, model_type):
    """Missing folders, folders without images, lists that cannot be read, names without a file."""
    kind = dataset['type']
    io_backend = dataset.get('io_backend')
    if not isinstance(io_backend, dict) or io_backend.get('type') not in ('disk', 'lmdb'):
        yield f'{where}:io_backend: needs type: disk or type: lmdb'
        return
    stems = {}
    low_alone = 'dataroot_gt' not in DATASETS[kind] or (
        model_type == 'ZeroReferenceModel' and kind == 'UnpairedImageDataset' and 'dataroot_gt' in dataset)
    keys = ('lq', ) if low_alone else ('lq', 'gt')
    for key in (*keys, 'teacher') if dataset.get('dataroot_teacher') else keys:
        folder = dataset.get(f'dataroot_{key}')
        label = f'{where}:dataroot_{key}'
        if not isinstance(folder, str):
            yield f'{label}: is missing'
        elif not osp.isdir(osp.expanduser(folder)):
            yield f'{label}: no such folder: {folder}'
        elif io_backend['type'] == 'disk':
            names = os.listdir(osp.expanduser(folder))
            stems[key] = {osp.splitext(name)[0] for name in names
                          if name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith('.')}
            if not stems[key]:
                yield f'{label}: no image ({", ".join(IMAGE_EXTENSIONS)}) in {folder}'
    lists = {}
    for key in {'names', 'exclude_names', 'meta_info_file'} & dataset.keys():
        if dataset[key] is not None:
            try:
                lists[key] = read_name_list(dataset[key], f'{where}:{key}')
            except SystemExit as error:
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


def _missing(label, names, dataset):
    names = sorted(names)
    if names:
        shown = ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')
        yield f"{label}: no picture named {shown} in {dataset[label.split(':')[-1]]}, so the pairs are incomplete"


def _built(opt, key, registry, needed=False, given=frozenset(), also=frozenset()):
    """Problems of a section whose ``type`` names something to call with its other keys."""
    section = _get(opt, key)
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


def _unknown(where, section, known):
    for key in section:
        if key not in known:
            yield f'{where}:{key}: unknown key{nearest(key, known)}'.lstrip(':')


def _get(opt, path):
    for key in path.split(':'):
        opt = opt.get(key) if isinstance(opt, dict) else None
    return opt
