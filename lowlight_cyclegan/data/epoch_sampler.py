"""Order of the training samples: seeded, in whole batches, able to start inside an epoch."""
import math
import numpy as np
from basicsr.data.data_sampler import EnlargedSampler

__all__ = ['EpochSampler', 'SampleIndex']


class SampleIndex(int):
    """A dataset index that knows when it was drawn.

    Attributes:
        epoch (int): Epoch of the draw.
        draw (int): Position in the epoch's permutation, 0 ... total_size - 1, unique over all ranks.
    """

    def __new__(cls, index, epoch, draw):
        self = super().__new__(cls, index)
        self.epoch = epoch
        self.draw = draw
        return self

    def __getnewargs__(self):  # worker processes receive pickled indices
        return int(self), self.epoch, self.draw


class EpochSampler(EnlargedSampler):
    """BasicSR's EnlargedSampler, seeded, with epochs of whole batches, that can start inside an epoch.

    - The order depends on ``manual_seed`` and the epoch, and yields SampleIndex.
    - An epoch is ``ceil(len(dataset) * ratio / (batch * num_replicas))`` batches for each replica, which is what
      BasicSR's trainer counts with. EnlargedSampler and ``drop_last`` together make one batch less, so that runs
      ended early and a dataset smaller than a batch gave nothing. The missing samples are drawn a second time.

    Args:
        dataset (torch.utils.data.Dataset): Its ``opt`` holds ``batch_size_per_gpu`` and ``manual_seed``.
        num_replicas (int): World size.
        rank (int): Rank of this process.
        ratio (int): Enlarging ratio. Default: 1.
    """

    def __init__(self, dataset, num_replicas, rank, ratio=1):
        super().__init__(dataset, num_replicas, rank, ratio)
        self.seed = dataset.opt['manual_seed']
        self.batch_size = dataset.opt['batch_size_per_gpu']
        self.num_batches = math.ceil(len(dataset) * ratio / (self.batch_size * num_replicas))
        self.num_samples = self.num_batches * self.batch_size
        self.total_size = self.num_samples * num_replicas
        self.first_epoch, self.first_batch = 0, 0

    def start_from(self, iteration):
        """Continue after ``iteration`` batches: earlier batches of its epoch are left out, once.

        Returns:
            int: The epoch to continue with.
        """
        self.first_epoch, self.first_batch = divmod(iteration, self.num_batches)
        return self.first_epoch

    def __iter__(self):
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.total_size) % len(self.dataset)
        skipped = self.first_batch * self.batch_size if self.epoch == self.first_epoch else 0
        draws = range(self.rank, self.total_size, self.num_replicas)[skipped:]
        return (SampleIndex(order[draw], self.epoch, draw) for draw in draws)
