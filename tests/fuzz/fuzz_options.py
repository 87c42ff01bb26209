"""Option files of a training that runs four iterations at toy size."""
from __future__ import annotations

import copy
import random
import shutil
import torch
import yaml
from pathlib import Path

from fuzz import Kind
from mutators import mutate_bytes, mutate_tree
from toys import OPTIONS, network, write_pictures

LONGEST = 12  # iterations; a mutated file may ask for more, which is no fault
ADAM = {'lr': 1e-3, 'weight_decay': 0, 'betas': [0.5, 0.9]}
# What people write, right or nearly so: alone each is taken or refused, together they meet in a run.
CHOICES = {
    'manual_seed': (None, 0, 2**32 - 1, 2**32, 1.5), 'num_gpu': (0, 'auto', 1), 'amp': (None, 'auto', 'bf16', 'fp16'),
    'channels_last': (True, 'auto'), 'val': (None, {'val_freq': 2}), 'dist_params': ({'backend': 'nccl', 'port': 1}, ),
    'network_g': ({**OPTIONS, 'head': 'exposure'}, {**OPTIONS, 'num_block': 0}, {**OPTIONS, 'ema_factor': 3},
                  {**OPTIONS, 'use_aspp': False, 'use_ema': False}, {'type': 'GammaCurve', 'gamma': 0.4}),
    'network_d_a': ({'type': 'PatchGANDiscriminator', 'num_feat': 4, 'num_layer': 5}, ),
    'datasets:train:gt_size': (16, 31, 33, [24, 32], 64, 7), 'datasets:train:batch_size_per_gpu': (1, 3, 5, 6),
    'datasets:train:dataset_enlarge_ratio': (3, 100), 'datasets:train:num_worker_per_gpu': (1, ),
    'datasets:train:cache': (False, ), 'datasets:train:resize': (36, 34, [40, 40]),
    'datasets:train:use_hflip': (False, ), 'datasets:train:prefetch_mode': ('cpu', 'cuda'),
    'datasets:train:crop_scale': ([0.5, 1], [1, 0.5], [0, 1]),
    'datasets:train:exclude_names': ('names.txt', ), 'datasets:val:type': ('PairedImageDataset', 'SingleImageDataset'),
    'datasets:val:filename_tmpl': ('{}_x', 'x'), 'datasets:val:names': (None, ),
    'path:experiments_root': ('elsewhere', 'case.yml'), 'path:pretrain_network_g': ('toy.pth', 'no.pth'),
    'path:param_key_g': ('params_ema', None), 'path:strict_load_g': (False, ),
    'train:total_iter': (1, 2, 7, 4.0), 'train:ema_decay': (0, 1), 'train:pool_size': (0, 1, 50),
    'train:clip_grad': (0, 0.01), 'train:warmup_iter': (2, 10), 'train:fixed_g': (['encoder'], ['nothing']),
    'train:optim_g': tuple({'type': name, **ADAM} for name in ('AdamW', 'Adamax', 'RAdam', 'adam')) +
                     ({'type': 'SGD', 'lr': 1e30}, {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'nesterov': True}),
    'train:scheduler': ({'type': 'MultiStepLR', 'milestones': [2, 3], 'gamma': 0.5},
                        {'type': 'LinearDecayLR', 'decay_start': 3},
                        {'type': 'CosineAnnealingRestartLR', 'periods': [2], 'restart_weights': [1]}),
    'train:gan_opt': tuple({'type': 'GANLoss', 'gan_type': name, 'loss_weight': 1}
                           for name in ('lsgan', 'wgan', 'wgan_softplus', 'hinge', 'lsgna')),
    'train:cycle_opt': ({'type': 'MSELoss', 'loss_weight': 1}, {'type': 'L1Loss', 'loss_weight': 0}),
    'train:identity_opt': (None, {'type': 'CharbonnierLoss', 'eps': 1e-6}), 'train:cycle_low_weight': (0, 2),
    'val:val_freq': (1, 2, 100), 'val:self_ensemble': (True, ), 'val:suffix': ('x', 'a/b'), 'val:pbar': (True, ),
    'val:metrics': (None, {}, *({name: {'type': f'calculate_{name}', 'crop_border': border}}
                                for name, border in (('ssim', 2), ('psnr', 40), ('niqe', 0)))),
    'logger:print_freq': (1, 100), 'logger:save_checkpoint_freq': (1, 3, 100), 'logger:keep_last': (1, 1.0, None),
    'logger:keep_best': (None, 'ssim'), 'logger:use_tb_logger': (True, ), 'logger:wandb': ({'project': 'x'}, ),
}


def options(data: str) -> dict:
    """A valid option file as a tree."""
    discriminator = {'type': 'PatchGANDiscriminator', 'num_feat': 4, 'num_layer': 2}
    adam = {'type': 'Adam', 'lr': 1e-3, 'betas': [0.5, 0.999]}
    dataset = {'dataroot_lq': f'{data}/low', 'dataroot_gt': f'{data}/high', 'io_backend': {'type': 'disk'}}
    return {
        'name': 'toy', 'model_type': 'LowLightCycleGANModel', 'scale': 1, 'num_gpu': 0, 'manual_seed': 3,
        'datasets': {
            'train': {**dataset, 'name': 'train', 'type': 'UnpairedImageDataset', 'gt_size': 32, 'use_hflip': True,
                      'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2},
            'val': {**dataset, 'name': 'val', 'type': 'PairedNameListDataset', 'names': f'{data}/names.txt'},
        },
        'network_g': OPTIONS, 'network_f': OPTIONS, 'network_d_a': discriminator, 'network_d_b': discriminator,
        'path': {'pretrain_network_g': None, 'resume_state': None},
        'train': {
            'optim_g': adam, 'optim_d': adam, 'scheduler': {'type': 'LinearDecayLR'}, 'total_iter': 4,
            'ema_decay': 0.9, 'pool_size': 3, 'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 1},
            'cycle_opt': {'type': 'L1Loss', 'loss_weight': 10}, 'identity_opt': {'type': 'L1Loss', 'loss_weight': 5},
        },
        'val': {'val_freq': 3, 'save_img': True, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
        'logger': {'print_freq': 2, 'save_checkpoint_freq': 2, 'keep_last': 2, 'keep_best': 'psnr',
                   'use_tb_logger': False},
    }


def choose(tree: dict, rng: random.Random) -> None:
    """Put one to five of ``CHOICES`` into options, where their sections are."""
    for path in rng.sample(sorted(CHOICES), rng.randint(1, 5)):
        *sections, key = path.split(':')
        holder = tree
        for name in sections:
            holder = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder[key] = copy.deepcopy(rng.choice(CHOICES[path]))


def write_data() -> None:
    """Pictures and names for :func:`options`, in the current folder."""
    write_pictures('low', 5, 60)
    write_pictures('high', 5, 250)
    Path('names.txt').write_text('0\n1\n')


def limit_iterations() -> None:
    """End this process's training early, as if it were done."""
    from lowlight_cyclegan.models import LowLightCycleGANModel
    step = LowLightCycleGANModel.optimize_parameters

    def optimize_parameters(self, current_iter):
        if current_iter > LONGEST:
            raise SystemExit(0)
        step(self, current_iter)

    LowLightCycleGANModel.optimize_parameters = optimize_parameters


class Options(Kind):

    def make(self) -> None:
        write_data()
        torch.save({'params': network().state_dict()}, 'toy.pth')

    def mutate(self, valid: Path, rng: random.Random) -> list[str]:
        command, tree = rng.choice(('train', 'train', 'train', 'test')), options(str(valid))
        if command == 'test':
            tree['datasets'] = {'test': tree['datasets']['val']}
            keys = ('name', 'model_type', 'scale', 'num_gpu', 'datasets', 'network_g', 'val')
            tree = {key: tree[key] for key in keys}
            tree['path'] = {'pretrain_network_g': str(valid / 'toy.pth'), 'strict_load_g': True}
        way = rng.random()
        if way < 0.5:
            choose(tree, rng)
        if way < 0.2:
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
            Path('case.yml').write_bytes(mutate_bytes(text.encode(), rng))
        elif way < 0.4:
            Path('case.yml').write_text(yaml.safe_dump(tree, sort_keys=False))
        else:
            Path('case.yml').write_text(yaml.safe_dump(mutate_tree(tree, rng), sort_keys=False))
        for name in ('toy.pth', 'names.txt'):
            shutil.copy(valid / name, name)
        limit_iterations()
        return [command, '-opt', 'case.yml']


KIND = Options()
