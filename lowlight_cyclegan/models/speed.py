"""Options that change the speed of training, not its aim."""
import torch
from basicsr.utils import get_root_logger

from lowlight_cyclegan.archs.precision import has_bf16

__all__ = ['at_least_fp32', 'speed_options']

AMP_DTYPES = {'bf16': torch.bfloat16, None: None}


def at_least_fp32(x):
    """The tensor in fp32 or more: losses are never taken in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def speed_options(opt, device):
    """What suits the device where ``amp`` and ``channels_last`` are auto or absent, with a line in a training's log.

    Returns:
        tuple[torch.dtype | None, torch.memory_format]: Type for autocast, None for none; layout of convolutions.

    Raises:
        ValueError: amp is neither auto nor bf16 nor None.
    """
    best = {'amp': 'bf16' if has_bf16(device) else None, 'channels_last': device.type != 'cpu'}
    options = {key: opt.get(key, 'auto') for key in best}
    chosen = {key: best[key] for key, value in options.items() if value == 'auto'}
    if chosen and opt['is_train']:
        text = ', '.join(f"{key}: {'~' if value is None else str(value).lower()}" for key, value in chosen.items())
        get_root_logger().info(f'auto on this {device.type} is {text}.')
    options.update(chosen)
    if options['amp'] not in AMP_DTYPES:
        raise ValueError(f"amp: {options['amp']!r} is not supported, use auto, bf16 or leave it out (~).")
    return AMP_DTYPES[options['amp']], torch.channels_last if options['channels_last'] else torch.contiguous_format
