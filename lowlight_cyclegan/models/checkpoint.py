"""Checkpoints of a run: files that are either complete or absent."""
import hashlib
import io
import os
import re
import torch
import torch.distributed as dist
from basicsr.utils import get_root_logger
from collections import OrderedDict
from os import path as osp

from lowlight_cyclegan.files import atomic_write

__all__ = ['Checkpoints', 'atomic_save']


def atomic_save(obj, path):
    """``torch.save`` into a file that a kill or a power cut leaves as it was or complete.

    Args:
        obj (object): What to save.
        path (str): Final name.

    Returns:
        str: SHA-256 of the file, in hexadecimal.

    Raises:
        OSError: If the file cannot be written (disk full, no permission); what was there before is untouched.
    """
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    data = buffer.getbuffer()
    try:
        atomic_write(path, data)
    except OSError as error:
        raise OSError(error.errno, f'cannot be saved ({error.strerror}); the run stops here, older checkpoints are '
                      'whole', path) from error
    return hashlib.sha256(data).hexdigest()


class Checkpoints:
    """The checkpoints of one run.

    Each consists of ``net_<name>_<iteration>.pth`` for each network, ``<iteration>_rank<r>.pth`` of each rank but the
    first and, written last, ``<iteration>.state``, which names the networks with their hashes: a checkpoint counts
    once its state is there.

    Args:
        opt (dict): The run's options: ``path: models, training_states``, ``rank`` and ``logger: keep_last``.
    """

    def __init__(self, opt):
        self.models, self.states = opt['path']['models'], opt['path']['training_states']
        self.dist, self.rank, self.world_size = opt['dist'], opt['rank'], opt['world_size']
        self.keep_last = opt['logger'].get('keep_last')

    def save(self, networks, state, rank_state, iteration):
        """Save a checkpoint, together with the other ranks; the oldest ones beyond ``keep_last`` are removed.

        Args:
            networks (dict[str, dict[str, nn.Module]]): What to store of each network, by name and key.
            state (dict): Training state that all ranks have alike.
            rank_state (dict): Training state of this rank.
            iteration (int): Its number.

        Raises:
            OSError: A file cannot be written.
        """
        if self.rank > 0:
            atomic_save(rank_state, self._rank_path(iteration))
        files = self._save_networks(networks, iteration)
        if self.dist:
            dist.barrier()  # the state comes last
        if self.rank == 0:
            state = {**state, 'world_size': self.world_size, 'files': files, **rank_state}
            atomic_save(state, osp.join(self.states, f'{iteration}.state'))
            if self.keep_last:
                self._remove_old(iteration)

    def save_latest(self, networks):
        """Save the networks alone, as the last ones of the run."""
        self._save_networks(networks, 'latest')

    def _save_networks(self, networks, suffix):
        """Networks of the first rank; returns the files' SHA-256 by name."""
        if self.rank > 0:
            return {}
        return {f'net_{name}_{suffix}.pth': self.save_network(f'net_{name}_{suffix}', nets)
                for name, nets in networks.items()}

    def save_network(self, label, nets):
        """Save the weights of a network under one or several keys into ``<label>.pth``.

        Args:
            label (str): For example 'net_g_1000'.
            nets (dict[str, nn.Module]): By key, such as 'params' and 'params_ema'.

        Returns:
            str: SHA-256 of the file.
        """
        states = {}
        for key, net in nets.items():
            states[key] = OrderedDict((k, v.cpu().contiguous()) for k, v in net.state_dict().items())
        return atomic_save(states, osp.join(self.models, f'{label}.pth'))

    def load_rank(self, state):
        """This rank's state of a checkpoint, given what all share; None on a rank that was not there."""
        if state['world_size'] != self.world_size:
            get_root_logger().warning(
                f"This checkpoint was saved by {state['world_size']} processes and is resumed by {self.world_size}: "
                'what a rank keeps for itself starts empty on new ones, and batches differ from here on.')
        if self.rank == 0:
            return state
        path = self._rank_path(state['iter'])
        return torch.load(path, map_location='cpu', weights_only=True) if osp.exists(path) else None

    def _rank_path(self, iteration):
        return osp.join(self.states, f'{iteration}_rank{self.rank}.pth')

    def _remove_old(self, iteration):
        """Remove all but the newest checkpoints, the state first: a checkpoint is never half there.

        Higher numbers than ``iteration``, the one just saved, are not this run's and do not count.
        """
        states = sorted(int(name[:-6]) for name in os.listdir(self.states) if re.fullmatch(r'\d+\.state', name))
        states = [state for state in states if state <= iteration]
        for old in states[:-self.keep_last]:
            os.remove(osp.join(self.states, f'{old}.state'))
        # All that is older, not only what these states named: a kill between the two leaves files without a state.
        for folder, pattern in ((self.models, r'net_\w+_(\d+)\.pth'), (self.states, r'(\d+)_rank\d+\.pth')):
            for name in os.listdir(folder):
                match = re.fullmatch(pattern, name)
                if match and int(match[1]) < states[-self.keep_last:][0]:
                    os.remove(osp.join(folder, name))
