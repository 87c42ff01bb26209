"""Sets a network up to run: precision of its layers, memory that is kept."""
from __future__ import annotations

import copy
import ctypes
import torch
from torch import Tensor, nn

from lowlight_cyclegan.archs.ema_resnet_arch import EMAResNetGenerator

__all__ = ['keep_freed_memory', 'prepare_for_inference', 'without_subnormals']


class _FullPrecision(nn.Sequential):
    """Layers that keep fp32 under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers in fp32 even under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def keep_freed_memory() -> None:
    """Tell glibc to keep up to 512 MB of freed memory for what is allocated next, in the whole process.

    The system would clear new pages for each layer, which takes up to 40 % of the time of a narrow network. This is for
    commands: a library leaves its caller's process as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    for name, value in ((-3, 64 * 2**20), (-1, 512 * 2**20)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        mallopt(name, value)


def without_subnormals(value: Tensor) -> Tensor:
    """Weights with zero in the place of those below the smallest normal fp32, which CPUs multiply very slowly.

    Args:
        value: Floating point, of any shape.
    """
    return value.masked_fill(value.abs() < torch.finfo(torch.float32).tiny, 0)


def prepare_for_inference(net: nn.Module, device: str | torch.device = 'cpu', precision: str = 'fp32') -> nn.Module:
    """Copy of a network in evaluation mode on a device, with the same names of weights.

    With bf16 the convolutions that reduce the image stay in fp32 where they see it as it is: in bf16 the shadows, near
    -1, have steps of half a grey level. Head 'gain' has lifted them before.
    """
    net = copy.deepcopy(net).eval().requires_grad_(False).to(device)
    for value in (*net.parameters(), *net.buffers()):
        if value.is_floating_point():
            value.copy_(without_subnormals(value))
    if precision == 'bf16' and isinstance(net, EMAResNetGenerator) and net.head != 'gain':
        net.encoder.stem, net.encoder.down = _FullPrecision(*net.encoder.stem), _FullPrecision(*net.encoder.down)
    return net
