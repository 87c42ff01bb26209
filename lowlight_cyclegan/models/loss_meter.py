"""Means of the losses between two lines of the log."""
import torch
from collections import OrderedDict

__all__ = ['LossMeter']


class LossMeter:
    """Adds up losses on their device and notices the first one that is not finite.

    On a GPU nothing is read back before :meth:`take` or :meth:`check`: reading makes the CPU wait for the GPU.

    Args:
        device (torch.device): Device of the losses.
        states (str): Folder of the training states, for the message.
    """

    def __init__(self, device, states):
        self.states = states
        self.deferred = device.type != 'cpu'
        self.names, self.total, self.count = [], None, 0
        self.bad_iteration = torch.zeros((), dtype=torch.int64, device=device)  # first one with a loss not finite

    def add(self, losses, iteration):
        """Count the losses of an iteration, a dict of scalars.

        Raises:
            ValueError: One of them is not finite, unless it is left to a later :meth:`check`.
        """
        values = torch.stack([v.detach() for v in losses.values()])
        bad = ~values.isfinite().all() & (self.bad_iteration == 0)
        self.bad_iteration = torch.where(bad, iteration, self.bad_iteration)
        self.names = list(losses)
        self.total = values if self.total is None else self.total + values
        self.count += 1
        if not self.deferred:
            self._refuse(values)

    def check(self):
        """Raises ValueError: a loss so far was not finite."""
        self._refuse(torch.zeros(0) if self.total is None else self.total)

    def take(self):
        """Means since the last call, a dict of scalars on the device.

        Raises:
            ValueError: A loss so far was not finite.
        """
        mean = self.total / self.count
        self._refuse(mean)
        self.total, self.count = None, 0
        return OrderedDict(zip(self.names, mean.unbind()))

    def _refuse(self, values):
        iteration = int(self.bad_iteration)
        if iteration:
            report = ', '.join(f'{name}: {value:.4g}' for name, value in zip(self.names, values.tolist()))
            raise ValueError(f'Loss is not finite at iteration {iteration} ({report}). The run stops without saving; '
                             f'the last checkpoint in {self.states} is good: lower the learning rates, or set amp: ~, '
                             'and start again with --auto_resume.')
