from torch.optim.lr_scheduler import LambdaLR

__all__ = ['LinearDecayLR']


class LinearDecayLR(LambdaLR):
    """Constant rate up to ``decay_start``, then linear to zero at ``total_iter`` (CycleGAN's schedule, per iteration).

    The last iteration runs at 1 / (total_iter - decay_start) of the initial rate; after it, the rate is zero.

    Args:
        optimizer (torch.optim.Optimizer): Optimizer.
        total_iter (int): Iterations of the run.
        decay_start (int | None): Iterations at the full rate; None means half of the run. Default: None.
    """

    def __init__(self, optimizer, total_iter, decay_start=None):
        decay_start = total_iter // 2 if decay_start is None else decay_start
        if not 0 <= decay_start < total_iter:
            raise ValueError(f'decay_start must be in [0, total_iter = {total_iter}), got {decay_start}.')
        super().__init__(optimizer, lambda it: min(1.0, max(0.0, (total_iter - it) / (total_iter - decay_start))))
