"""Option files of a training that runs four iterations at toy size."""
from __future__ import annotations

import random
import torch
import yaml
from pathlib import Path

from fuzz import Kind
from mutators import mutate_bytes, mutate_tree
from toys import OPTIONS, network, write_pictures

LONGEST = 12  # iterations; a mutated file may ask for more, which is no fault


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
        if rng.random() < 0.2:
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
            Path('case.yml').write_bytes(mutate_bytes(text.encode(), rng))
        else:
            Path('case.yml').write_text(yaml.safe_dump(mutate_tree(tree, rng), sort_keys=False))
        limit_iterations()
        return [command, '-opt', 'case.yml']


KIND = Options()
