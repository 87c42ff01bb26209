"""How a picture is run: in one piece or on a reduced copy, by its size and the memory there is."""
from __future__ import annotations

import torch
from collections.abc import Callable
from torch import Tensor, nn

from lowlight_cyclegan import files
from lowlight_cyclegan.archs.ema_resnet_arch import EMAResNetGenerator
from lowlight_cyclegan.messages import is_out_of_memory, warn
from .guided import SIZE, enhance_guided, reduced_size

__all__ = ['DIRECT_PIXELS', 'MODES', 'available_memory', 'choose_mode', 'enhance_with_fallback', 'memory_needed',
           'run_steps']

MODES = ('direct', 'guided')
# What 'auto' runs in one piece. Beyond it guided is several times as fast, and sees a scale the network has learned.
DIRECT_PIXELS = {'cpu': 10**6, 'cuda': 4 * 10**6}


def available_memory(device: str | torch.device) -> int:
    """Bytes that can be allocated on a device now."""
    device = torch.device(device)
    if device.type == 'cuda':
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return files.available_memory()


def memory_needed(mode: str, height: int, width: int, precision: str = 'fp32', net: nn.Module | None = None,
                  size: int = SIZE) -> int:
    """Estimated bytes that a mode takes beyond its input, for one image.

    Fitted from above to the measured peaks of EMAResNetGenerator with num_feat 8 (413 bytes a pixel in fp32, 265 in
    bf16) and 64 (1208 and 908); other networks count as one with num_feat 64.
    """
    net = getattr(net, '_orig_mod', net)
    num_feat = net.encoder.num_out_ch // 4 if isinstance(net, EMAResNetGenerator) else 64
    pixel = 180 + 12 * num_feat if precision == 'bf16' else 310 + 15 * num_feat
    pixels = height * width
    if mode == 'direct':
        return pixels * pixel
    low_h, low_w = reduced_size(height, width, size)
    return pixels * 12 + 2 * 12 * 4 * low_h * width + low_h * low_w * pixel


def choose_mode(height: int, width: int, device: str | torch.device = 'cpu', precision: str = 'fp32',
                max_memory: float | None = None, net: nn.Module | None = None, copies: int = 0) -> tuple[str, str]:
    """How to enhance an image: 'direct' or 'guided'.

    Images of up to 1 megapixel (4 on a GPU) run directly if that fits in memory. All others are guided, which takes
    seconds where the network would take minutes.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        device: Where the network runs.
        precision: 'fp32' or 'bf16'.
        max_memory: Bytes to plan with. None means 80 % of what is free.
        net: The network; None plans for the paper's generator.
        copies: Of the image, that are held beside what the mode takes.

    Returns:
        The mode, and the reason in a line.
    """
    device = torch.device(device)
    budget = 0.8 * available_memory(device) if max_memory is None else max_memory
    pixels, limit = height * width, DIRECT_PIXELS.get(device.type, DIRECT_PIXELS['cpu'])
    if pixels > limit:
        return 'guided', f'{pixels / 1e6:.1f} megapixels are more than the {limit / 1e6:g} that run in one piece'
    need = 12 * copies * pixels + memory_needed('direct', height, width, precision, net)
    room = f'{_size(need)} of {_size(budget)} memory'
    return ('direct', f'needs {room}') if need <= budget else ('guided', f'in one piece it would need {room}')


def _size(size: float) -> str:
    return f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.0f} MB'


def run_steps(net: nn.Module, x: Tensor, adapt: Callable | None = None, strength: float = 1.0) -> Tensor:
    """A generator's three steps, with what it predicts exchanged on the way.

    Args:
        net: With ``thumbnail``, ``predict`` and ``apply``.
        x: (n, 3, h, w) in [-1, 1].
        adapt: ``adapt(thumbnail, curve)`` gives the curve to apply.
        strength: For ``apply``.

    Returns:
        (n, 3, h, w) in [-1, 1].
    """
    thumbnail = net.thumbnail(x)
    curve = net.predict(thumbnail)
    return net.apply(x, adapt(thumbnail, curve) if adapt else curve, strength)


def enhance_with_fallback(net: nn.Module, x: Tensor, mode: str, size: int = SIZE, say: Callable[[str], None] = warn,
                          adapt: Callable | None = None) -> tuple[Tensor, str]:
    """Run ``mode``, and guided where memory runs out.

    Args:
        net: In evaluation mode.
        x: (n, 3, h, w) in [-1, 1]. Mode guided writes its output there.
        mode: 'direct' or 'guided'.
        size: For :func:`~lowlight_cyclegan.enhance.guided.enhance_guided`.
        say: Takes the line that says what is done.
        adapt: See :func:`run_steps`.

    Returns:
        (n, 3, h, w) in [-1, 1], and the mode that it came from.

    Raises:
        MemoryError: If memory does not suffice for mode guided either.
    """

    def network(x: Tensor) -> Tensor:
        return net(x) if adapt is None else run_steps(net, x, adapt)

    h, w = x.shape[2:]
    for current in MODES[MODES.index(mode):]:
        if current != mode:
            say(f'{w}x{h}: not enough memory for mode {mode}, going on with mode {current}')
        try:
            with torch.no_grad():
                return network(x) if current == 'direct' else enhance_guided(network, x, size, out=x), current
        except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not is_out_of_memory(error):
                raise
        # Past the handler, so that nothing holds on to the tensors of the failed attempt.
        if x.is_cuda:
            torch.cuda.empty_cache()
    raise MemoryError(f'{w}x{h}: not enough memory for mode {current}')
