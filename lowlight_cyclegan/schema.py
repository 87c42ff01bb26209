"""Every option of a run in one place: what it may be, what it is where a file leaves it out, what it does.

Checks (``preflight``), defaults (``config.complete_options``) and the tables of ``options/README.md`` come from here:

    python -m lowlight_cyclegan.option_tables    # writes the tables anew

Keys inside networks, losses, optimizers, schedules and metrics are the arguments of what their ``type`` names, and are
checked against its signature. Imports neither torch nor basicsr.
"""
from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from .messages import nearest

__all__ = ['DATASETS', 'NETWORKS', 'OUR_MODELS', 'Option', 'SECTIONS', 'TRAIN', 'fill_in', 'sections_of', 'shown']

OUR_MODELS = ('LowLightCycleGANModel', )
NETWORKS = ('network_g', 'network_f', 'network_d_a', 'network_d_b')
Table = dict[str, 'Option']


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        kind: 'text', 'name' (text, or a number that is read as text), 'folders' (one, or a list), 'flag', 'whole'
            (number), 'number', 'size' (pixels, or [height, width]), 'shares' (smallest and largest), 'counts' (a
            list), 'texts' (a list), 'section' (checked by the class that it is for) or 'any'.
        text: What it does, in a sentence.
        default: Where the file leaves it out.
        choices: All values that it may have, besides ``~`` where it is optional.
        least: Smallest number.
        most: Largest number.
        required: There is no default.
        optional: ``~`` means something else than the default.
    """
    kind: str
    text: str
    default: Any = None
    choices: tuple = ()
    least: float | None = None
    most: float | None = None
    required: bool = False
    optional: bool = False

    def wrong(self, value: Any) -> str | None:
        """What is wrong with a value, as 'must be ..., found ...'; None if it is right."""
        if value is None:
            return None
        if self.choices:
            known = any(value is choice or type(value) is type(choice) and value == choice for choice in self.choices)
            return None if known else f'{value!r} is not known{nearest(value, self.choices)}'
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        right = {
            'text': isinstance(value, str),
            'name': isinstance(value, (str, int, float)) and not isinstance(value, bool),
            'folders': isinstance(value, str) or isinstance(value, list) and all(map(_is_folder, value)),
            'flag': isinstance(value, bool),
            'whole': number and value == value // 1 and abs(value) < float('inf'),
            'number': number and abs(value) < float('inf'),
            'size': _is_size(value),
            'shares': _are_shares(value),
            'counts': isinstance(value, list) and all(type(item) is int and item > 0 for item in value),
            'texts': isinstance(value, list) and all(isinstance(item, str) for item in value),
            'section': isinstance(value, dict),
        }.get(self.kind, True)
        if right and number and self.least is not None:
            right = value >= self.least
        if right and number and self.most is not None:
            right = value <= self.most
        return None if right else f'must be {self.describe()}, found {value!r}'

    def describe(self) -> str:
        """The values that it may have, in words."""
        if self.choices:
            return ', '.join(map(shown, self.choices))
        words = {'text': 'text', 'name': 'text', 'folders': 'a folder, or a list of {folder, weight}',
                 'flag': 'true or false', 'whole': 'a whole number', 'number': 'a number',
                 'size': 'pixels or [height, width]', 'shares': '[smallest, largest], both above 0 and up to 1',
                 'counts': 'a list of whole numbers from 1', 'texts': 'a list of names', 'section': 'a section'}
        bounds = [f'{word} {bound}' for word, bound in (('at least', self.least), ('at most', self.most))
                  if bound is not None]
        return words.get(self.kind, 'any') + (f' of {" and ".join(bounds)}' if bounds else '')


def _is_folder(value: Any) -> bool:
    return isinstance(value.get('folder') if isinstance(value, dict) else value, str)


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(type(side) is int and side > 0 for side in sides)


def _are_shares(value: Any) -> bool:
    return (isinstance(value, list) and len(value) == 2 and all(type(item) in (int, float) for item in value)
            and 0 < value[0] <= value[1] <= 1)


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    if isinstance(value, dict):
        return '{' + ', '.join(f'{key}: {shown(item)}' for key, item in value.items()) + '}'
    if isinstance(value, (list, tuple)):
        return '[' + ', '.join(map(shown, value)) + ']'
    return {True: 'true', False: 'false', None: '~'}[value] if value is None or isinstance(value, bool) else f'{value}'


ADAM = {'type': 'Adam', 'lr': 1e-4, 'betas': [0.5, 0.999]}

TOP: Table = {
    'name': Option('name', "Name of the run and its folder. Default: the option file's name."),
    'model_type': Option('any', 'The model.', required=True, choices=OUR_MODELS),
    'scale': Option('whole', 'Size of the output over that of the input.', 1, least=1),
    'num_gpu': Option('any', 'auto: one GPU for each process where there is one, else the CPU. 0: the CPU.', 'auto'),
    'manual_seed': Option('whole', 'Weights, data order, augmentation and image pools follow from it.', 0, least=0,
                          most=2**32 - 1),
    'amp': Option('any', 'Precision of the networks; losses and weights stay fp32. auto: bf16 where the device has '
                  'instructions for it; ~: fp32.', 'auto', choices=('auto', 'bf16'), optional=True),
    'compile': Option('flag', 'torch.compile: faster steps after minutes of compiling.', False, choices=(False, True)),
    'channels_last': Option('any', 'Memory format of convolutions. auto: true on a GPU.', 'auto',
                            choices=('auto', False, True)),
    'datasets': Option('section', 'The datasets: train, val, val_2 ...; in a test file test, test_2 ...'),
    **{key: Option('section', text) for key, text in zip(NETWORKS, (
        'G: low to normal.', 'F: normal to low.', 'D_A: judges low images.', 'D_B: judges normal images.'))},
    'path': Option('section', 'Weights to start from, and where results go.', {}),
    'train': Option('section', 'Training.'),
    'val': Option('section', 'Validation and testing; without it a training is not validated.', optional=True),
    'logger': Option('section', 'Logs and checkpoints.', {}),
    'dist_params': Option('section', 'Arguments of the process group, for --launcher slurm.', optional=True),
}

PATH: Table = {
    **{f'pretrain_{key}': Option('text', f'Weights that {key} starts from.', optional=True) for key in NETWORKS},
    **{f'strict_load_{key[8:]}': Option('flag', f'Refuse weights that do not fit {key}; false leaves them out.', True)
       for key in NETWORKS},
    **{f'param_key_{key[8:]}': Option('text', f'Entry of that file for {key}; params_ema: averaged weights.', 'params')
       for key in NETWORKS},
    'resume_state': Option('text', 'Training state to continue from; --auto_resume finds the newest.', optional=True),
    'ignore_resume_networks': Option('texts', 'Networks that a resumed run takes from pretrain_network_*.',
                                     optional=True),
    'experiments_root': Option('text', 'Folder that takes the runs, each under its name. Default: experiments.',
                               optional=True),
    'results_root': Option('text', 'The same for tests. Default: results.', optional=True),
}

TRAIN: Table = {
    'total_iter': Option('whole', 'Iterations of the run.', required=True, least=1),
    'optim_g': Option('section', 'Optimizer of both generators.', ADAM),
    'optim_d': Option('section', 'Optimizer of both discriminators.', ADAM),
    'scheduler': Option('section', 'Learning rates over the run. LinearDecayLR: constant, then linear to 0.',
                        {'type': 'LinearDecayLR'}),
    'warmup_iter': Option('whole', 'Iterations over which the rates rise from 0; -1: none.', -1, least=-1),
    'ema_decay': Option('number', 'Weight averaging of G, which is then what is validated; 0: off, 0.999: over about '
                        '1,000 iterations.', 0, least=0, most=1),
    'clip_grad': Option('number', "Largest norm of G's and F's gradients; ~: any.", least=0, optional=True),
    'pool_size': Option('whole', 'Generated images kept for each discriminator.', 50, least=0),
    'gan_opt': Option('section', 'Adversarial loss, eqs. 1 and 2.',
                      {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 1}),
    'cycle_opt': Option('section', 'Cycle loss, eq. 3.', {'type': 'L1Loss', 'loss_weight': 10}),
    'identity_opt': Option('section', 'Identity loss, eq. 4; ~: none.', {'type': 'L1Loss', 'loss_weight': 5},
                           optional=True),
    'distill_opt': Option('section', "Loss of G's pictures against a teacher's (datasets: train: dataroot_teacher).",
                          optional=True),
    'detach_exposure': Option('flag', "G's tone curve learns from the cycle alone, not from fooling D_B.", False),
    'cycle_jitter': Option('section', "Exposure, highlights and noise drawn for F's pictures on their way back to G.",
                           optional=True),
    'camera': Option('section', 'Takes a share of the normal images anew in the dark, instead of F.', optional=True),
    'cycle_low_weight': Option('number', "Factor of the low images' half of eq. 3.", 1, least=0),
    'fixed_g': Option('texts', 'Parameters of G that are not trained, by the beginning of their names.', optional=True),
    'fixed_f': Option('texts', 'The same for F.', optional=True),
}

VAL: Table = {
    'val_freq': Option('whole', 'Iterations between validations.', 1000, least=1),
    'save_img': Option('flag', 'Write the pictures.', False),
    'suffix': Option('name', "Added to the names of a test's pictures. Default: the name of the run.", optional=True),
    'pbar': Option('flag', 'Show progress.', False),
    'metrics': Option('section', 'Metrics by name; each has a type and its arguments.', optional=True),
    'self_ensemble': Option('flag', 'Mean over the four flips, at four times the cost.', False, choices=(False, True)),
}

LOGGER: Table = {
    'print_freq': Option('whole', 'Iterations between lines of the log.', 50, least=1),
    'save_checkpoint_freq': Option('whole', 'Iterations between checkpoints.', 1000, least=1),
    'keep_last': Option('whole', 'Checkpoints that are kept; ~: all.', least=1, optional=True),
    'keep_best': Option('text', 'Metric by which net_g_best.pth is chosen; ~: none.', optional=True),
    'use_tb_logger': Option('flag', 'Write TensorBoard files.', False),
    'wandb': Option('section', 'Project and resume_id of Weights & Biases.', optional=True),
}

NAMED: Table = {
    'name': Option('name', 'Name of the dataset, in logs and tables.', required=True),
    'type': Option('text', 'Its class.', required=True),
    'dataroot_lq': Option('text', 'Folder or LMDB of low images.', required=True),
    'io_backend': Option('section', 'type: disk, or lmdb with folders that end in .lmdb.', {'type': 'disk'}),
}
GT: Table = {'dataroot_gt': Option('text', 'Folder or LMDB of normal images.', required=True)}
TEMPLATE: Table = {'filename_tmpl': Option('text', 'Name of a low image, {} being that of its normal one.', '{}')}
MEASURED: Table = {
    'mean': Option('any', 'Subtracted from the images.', optional=True),
    'std': Option('any', 'Divides the images.', optional=True),
    'pin_memory': Option('flag', 'Pages that a GPU reads directly.', False),
}
LIST: Table = {
    'meta_info_file': Option('text', 'List of the pictures.', optional=True),
    'color': Option('text', 'y: the brightness alone.', optional=True),
}

DATASETS: dict[str, Table] = {
    'UnpairedImageDataset': {
        **NAMED, **GT,
        'dataroot_lq': Option('folders', 'Folder or LMDB of low images, or a list of folders.', required=True),
        'dataroot_gt': Option('folders', 'Folder or LMDB of normal images, or a list of folders.', required=True),
        'weights_lq': Option('counts', 'How often a pass shows each image of those folders, a list.', optional=True),
        'weights_gt': Option('counts', 'The same for the normal images.', optional=True),
        'dataroot_teacher': Option('text', 'What a teacher made of the low images, under their names.', optional=True),
        'exclude_names': Option('text', 'List of names, without extension, that are left out.', optional=True),
        'cache': Option('flag', 'Decode every image once, into memory shared by the workers.', True),
        'cache_limit_gb': Option('number', 'Largest cache; ~: half of the free memory. Beyond it, files are read.',
                                 least=0, optional=True),
        'resize': Option('size', 'Images are reduced to it (shorter side, or [height, width]) before cropping.',
                         optional=True),
        'gt_size': Option('size', 'Random crops; smaller images are padded by reflection.', 256),
        'crop_scale': Option('shares', 'Crops of any size are resized to gt_size: [smallest, largest] share of what '
                             'fits.', optional=True),
        'use_hflip': Option('flag', 'Horizontal flips.', True),
        'num_worker_per_gpu': Option('whole', 'Processes that crop; they pay off without the cache.', 0, least=0),
        'batch_size_per_gpu': Option('whole', 'Images of each domain in a step, for each process.', 8, least=1),
        'dataset_enlarge_ratio': Option('whole', 'Epochs that are one pass of the loader, which drops the last batch.',
                                        1, least=1),
        'persistent_workers': Option('flag', 'Keep the workers from one pass to the next.', False),
        'prefetch_mode': Option('text', 'cpu or cuda: batches are prepared ahead.', choices=('cpu', 'cuda'),
                                optional=True),
        'num_prefetch_queue': Option('whole', 'Batches prepared ahead.', 1, least=1),
        'pin_memory': Option('flag', 'Pages that a GPU reads directly.', False),
        'manual_seed': Option('whole', 'Set from the top level.', 0, least=0),
    },
    'PairedNameListDataset': {
        **NAMED, **GT, **TEMPLATE, **MEASURED,
        'names': Option('text', 'List of names, without extension. Default: all that both folders have.',
                        optional=True),
        'color': LIST['color'],
    },
    'PairedImageDataset': {**NAMED, **GT, **TEMPLATE, **MEASURED, **LIST},
    'SingleImageDataset': {**NAMED, **MEASURED, **LIST},
}

SECTIONS: dict[str, Table] = {'': TOP, 'path': PATH, 'train': TRAIN, 'val': VAL, 'logger': LOGGER}

def sections_of(opt: Mapping[str, Any]) -> dict[str, tuple[Any, Table]]:
    """The sections that have a table: by their path ('' is the top level), what the options have there, the table."""
    found: dict[str, tuple[Any, Table]] = {key: (opt.get(key) if key else opt, table)
                                           for key, table in SECTIONS.items()}
    datasets = opt.get('datasets')
    for phase, section in datasets.items() if isinstance(datasets, dict) else ():
        if isinstance(section, dict) and isinstance(section.get('type'), str) and section['type'] in DATASETS:
            found[f'datasets:{phase}'] = section, DATASETS[section['type']]
    return found


def fill_in(opt: dict[str, Any], is_train: bool) -> None:
    """Put the defaults into options; whole numbers that are written as 1e5 become ints, names text.

    Args:
        opt: Options, changed in place. Sections that are no sections stay as they are.
        is_train: A test needs neither ``train`` nor ``logger``, a training no ``val``.
    """
    for key in ('path', 'logger') if is_train else ('path', 'val'):
        if opt.get(key) is None:
            opt[key] = {}
    for path, (section, table) in sections_of(opt).items():
        if not isinstance(section, dict) or not is_train and path in ('train', 'logger'):
            continue
        for key, option in table.items():
            value = section.get(key)
            if value is None and option.default is not None and not (option.optional and key in section):
                section[key] = deepcopy(option.default)
            elif option.kind == 'whole' and isinstance(value, float) and option.wrong(value) is None:
                section[key] = int(value)
            elif option.kind == 'name' and value is not None and option.wrong(value) is None:
                section[key] = str(value)
