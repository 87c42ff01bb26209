"""Resuming: the newest complete checkpoint, checked before anything of it is used, in the middle of an epoch."""
from __future__ import annotations

import os
import re
import torch
import torch.distributed as dist
from basicsr.utils.misc import check_resume
from os import path as osp
from typing import Any

from .files import file_sha256, remove_temporary
from .messages import fail, warn
from .schema import OUR_MODELS

__all__ = ['Resume', 'newest_state', 'read_state']


class Resume:
    """The two functions of a training script that know of resuming.

    Args:
        script: BasicSR's train.py.
    """

    def __init__(self, script: Any) -> None:
        self.state: dict[str, Any] | None = None
        self._create_dataloaders = script.create_train_val_dataloader
        script.load_resume_state = self.load_resume_state
        script.create_train_val_dataloader = self.create_train_val_dataloader

    def load_resume_state(self, opt: dict[str, Any]) -> dict[str, Any] | None:
        """The training state to continue from, on the CPU, or None. The networks' paths are put into ``opt``."""
        path = opt['path']
        self.state = None
        if opt['auto_resume']:
            found = [newest_state(opt) if opt['rank'] == 0 else None]
            if opt['dist']:
                dist.broadcast_object_list(found)
            path['resume_state'] = found[0]
        if path.get('resume_state'):
            try:
                self.state = read_state(path['resume_state'], opt)
            except ValueError as error:
                fail(f'cannot resume: {error}')
            for key in ('models', 'training_states', 'visualization'):
                os.makedirs(path[key], exist_ok=True)
                if opt['rank'] == 0:
                    remove_temporary(path[key])
            check_resume(opt, self.state['iter'])
        return self.state

    def create_train_val_dataloader(self, opt: dict[str, Any], logger: Any) -> tuple:
        """BasicSR's; the sampler continues inside the epoch."""
        result = self._create_dataloaders(opt, logger)
        if self.state is not None and opt['model_type'] in OUR_MODELS:
            # The epoch follows from the iteration: the batches of an epoch may be others than before.
            self.state['epoch'] = result[1].start_from(self.state['iter'])
        return result


def newest_state(opt: dict[str, Any]) -> str | None:
    """Path of the newest complete training state of the experiment, or None; names those it passes over."""
    folder = opt['path']['training_states']
    names = os.listdir(folder) if osp.isdir(folder) else []
    numbers = sorted((int(name[:-len('.state')]) for name in names if re.fullmatch(r'\d+\.state', name)), reverse=True)
    for number in numbers:
        path = osp.join(folder, f'{number}.state')
        try:
            read_state(path, opt)
        except ValueError as error:
            warn(f'skipped {error}')
        else:
            return path
    if numbers:
        warn(f'no complete checkpoint in {folder}: starting anew, the old experiment is kept under another name')
    return None


def read_state(path: str, opt: dict[str, Any]) -> dict[str, Any]:
    """Load a training state to the CPU and see that its networks are there, whole where it knows their hashes.

    Raises:
        ValueError: Path and what is wrong.
    """
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise ValueError(f'{path}: no such file') from None
    except Exception as error:  # torch.load answers a broken file with many kinds
        raise ValueError(f'{path}: not a readable training state ({type(error).__name__})') from None
    if not isinstance(state, dict) or not {'epoch', 'iter', 'optimizers', 'schedulers'} <= state.keys():
        raise ValueError(f'{path}: not a training state')
    if opt['model_type'] in OUR_MODELS:
        missing = {'best_metric_results', 'world_size', 'pools'} - state.keys()
        if missing:
            raise ValueError(f'{path}: was saved by another version or program, it holds no {", no ".join(missing)}')
        networks = [key[len('network_'):] for key in opt if key.startswith('network_')]
        files = state.get('files') or {f"net_{name}_{state['iter']}.pth": None for name in networks}
        for name, sha256 in files.items():
            file = osp.join(opt['path']['models'], name)
            if not osp.isfile(file):
                raise ValueError(f'{path}: its network {file} is missing')
            if sha256 and file_sha256(file) != sha256:
                raise ValueError(f'{path}: its network {file} is not the one saved with it')
        for rank in range(1, state['world_size']):
            file = f"{path.removesuffix('.state')}_rank{rank}.pth"
            if not osp.isfile(file):
                raise ValueError(f'{path}: its part {file} is missing')
    return state
