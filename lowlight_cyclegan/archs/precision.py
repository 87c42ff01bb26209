"""Which precision suits a device."""
import torch

__all__ = ['has_bf16']


def has_bf16(device):
    """Whether a device has instructions for bf16: without them it is emulated, and slower than fp32.

    Args:
        device (torch.device): Of any type; devices other than CPUs and CUDA GPUs count as without.
    """
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    queries = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
    return device.type == 'cpu' and any(getattr(torch.cpu, query, bool)() for query in queries)
