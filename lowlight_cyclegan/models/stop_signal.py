"""SIGTERM and Ctrl-C at the end of an iteration, not in its middle."""
import os
import signal
import threading
import torch
import torch.distributed as dist

__all__ = ['StopSignal']


class StopSignal:
    """Remembers SIGTERM or Ctrl-C until the iteration is finished; the second one acts at once.

    Args:
        distributed (bool): Whether other ranks may receive it as well. Default: False.

    Attributes:
        received (int): Number of the signal that this process got, 0 as long as there is none.
    """

    def __init__(self, distributed=False):
        self.received = 0
        self._pid = os.getpid()
        # Agreed on between CPUs, so that no rank waits for its GPU.
        self._group = dist.new_group(backend='gloo') if distributed else None
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, self._handle)

    def on_any_rank(self):
        """Number of the signal that some rank has received, 0 for none: the same answer on all of them."""
        if self._group is None:
            return self.received
        received = torch.tensor(self.received)
        dist.all_reduce(received, dist.ReduceOp.MAX, group=self._group)
        return int(received)

    def _handle(self, signum, frame):
        if os.getpid() != self._pid:  # a forked data loader worker: its parent decides when it ends
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
            return
        self.received = signum
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
