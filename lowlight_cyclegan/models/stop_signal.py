import os
import signal
import threading

__all__ = ['StopSignal']


class StopSignal:
    """Remembers SIGTERM or Ctrl-C until the iteration is finished; the second one acts at once.

    Attributes:
        received (int): Number of the signal, 0 as long as there is none.
    """

    def __init__(self):
        self.received = 0
        self._pid = os.getpid()
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, self._handle)

    def _handle(self, signum, frame):
        if os.getpid() != self._pid:  # a forked data loader worker: its parent decides when it ends
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
            return
        self.received = signum
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
