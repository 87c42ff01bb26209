"""Brightens pictures in memory: what the commands, the page and Python programs call."""
from __future__ import annotations

import hashlib
import json
import os
import tempfile
import torch
from collections.abc import Callable
from dataclasses import replace
from torch import Tensor, nn
from torch.nn import functional as F
from typing import Any

from lowlight_cyclegan.archs.precision import has_bf16
from lowlight_cyclegan.archs.self_ensemble_arch import self_ensemble
from lowlight_cyclegan.config import DEFAULT_MODEL
from lowlight_cyclegan.messages import first_line, nearest
from . import modes
from .blend import blend
from .denoise import denoise
from .inference import prepare_for_inference
from .pictures import Result, enhance_picture
from .pretrained import load_pretrained, save_pretrained

__all__ = ['Enhancer', 'Result', 'blend']

MODES = ('auto', *modes.MODES)
PRECISIONS = ('auto', 'fp32', 'bf16')
MIN_SIZE = 32  # of the generator's input; smaller pictures are extended
ANY_SIZE = 'the network takes any size'
LUMA = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709


class Enhancer:
    """Enhances low-light pictures with a generator. Threads may share one.

    Args:
        network: Called on (n, 3, h, w) in [-1, 1], gives the same shape and range. The enhancer works on a copy. One
            with an attribute ``handles_any_size`` that is true bounds its memory itself and takes the strength, and
            uint8: it always runs in one piece.
        device: None takes the GPU if there is one.
        precision: 'fp32', 'bf16' (mixed precision) or 'auto': fp32 on CPUs, where pictures are the same on all of
            them, bf16 on GPUs that have instructions for it.
        mode: How large pictures are handled: 'direct' (in one piece), 'guided' (the effect on a reduced copy is
            transferred), or 'auto' (by size and memory).
        max_memory: Bytes that 'auto' may plan with. None means what is free.
        self_ensemble: Give the mean over the four flips of a picture: a little better, four times slower, and the
            memory of two more copies of it.
        denoise: From 0 to 1, strength of :func:`~lowlight_cyclegan.enhance.denoise.denoise` afterwards, for noise that
            the network leaves; fine texture suffers. Takes the memory of another copy of a picture.

    Attributes:
        max_strength: Of :meth:`enhance`: 2 for a network that takes the strength itself, else 1.
        options: What builds the network, where it is known: ``network_g`` of an option file.
        source: File that the weights come from.

    Raises:
        ValueError: If precision, mode or denoise is none of these, the device cannot be had, or weights are not finite.
    """

    def __init__(self, network: nn.Module, device: str | torch.device | None = None, precision: str = 'auto',
                 mode: str = 'auto', max_memory: float | None = None, self_ensemble: bool = False,
                 denoise: float = 0.0):
        _check('mode', mode, MODES)
        _check('precision', precision, PRECISIONS)
        if not 0 <= denoise <= 1:
            raise ValueError(f'denoise is from 0 to 1, got {denoise}')
        try:
            self.device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
            best = 'bf16' if self.device.type != 'cpu' and has_bf16(self.device) else 'fp32'
            self.precision = best if precision == 'auto' else precision
            self.network = prepare_for_inference(network, self.device, self.precision)
        except (RuntimeError, AssertionError) as error:  # torch's, of a device that is not known or not there
            raise ValueError(f'device {device}: {first_line(error)}') from error
        if not all(value.isfinite().all() for value in self.network.parameters()):
            raise ValueError('the weights hold values that are not finite')
        self.mode, self.max_memory, self.self_ensemble = mode, max_memory, self_ensemble
        self.denoise = denoise
        self.any_size = bool(getattr(self.network, 'handles_any_size', False))
        self.max_strength = 2.0 if self.any_size else 1.0
        # Without floating point copies of a large picture: a quarter of the memory.
        self._takes_uint8 = self.any_size and not self_ensemble and not denoise
        self.options: dict | None = None
        self.source: str | None = None

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike = DEFAULT_MODEL, options: str | dict | None = None,
                        hub: dict | None = None, **kwargs: Any) -> Enhancer:
        """Load weights, see :func:`~lowlight_cyclegan.enhance.pretrained.load_pretrained`.

        Args:
            name_or_path: Name of bundled weights, file, folder or repository of the Hugging Face hub.
            options: Option file for weights that do not say what they are.
            hub: Arguments of ``huggingface_hub.snapshot_download``, for example revision and token.
            kwargs: Arguments of the class.

        Raises:
            ValueError: If the weights cannot be had, or an argument is not known.
        """
        network, network_options, source = load_pretrained(name_or_path, options, hub)
        enhancer = cls(network, **kwargs)
        enhancer.options, enhancer.source = network_options, source
        return enhancer

    def save_pretrained(self, path: str | os.PathLike) -> None:
        """Write the weights as a ``.safetensors`` file, or as a folder in the layout of the Hugging Face hub.

        Raises:
            ValueError: If the network was not loaded by :meth:`from_pretrained`, so that its options are not known.
        """
        if self.options is None:
            raise ValueError('the options of a network that from_pretrained did not load are not known')
        save_pretrained(path, self.network, self.options)

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> str:
        """Put the weights into a repository ``user/name`` of the Hugging Face hub, which is made where it is missing.

        Returns:
            Address of the commit.
        """
        from huggingface_hub import HfApi
        hub = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id  # a bare name gets its user
            return str(hub.upload_folder(repo_id=repo_id, folder_path=folder))

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the weights and of the options that the network is built with."""
        digest = hashlib.sha256(json.dumps(self.options, sort_keys=True, default=str).encode())
        for name, value in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def enhance(self, image: Any, strength: float = 1.0, mode: str | None = None) -> Any:
        """Enhance a picture, or several.

        Args:
            image: One of

                - array (h, w), (h, w, c) or (n, h, w, c), uint8, uint16, or floating point in [0, 1], RGB order;
                - PIL image: L, LA, RGB and RGBA keep their mode, others become RGB or RGBA;
                - tensor (c, h, w) or (n, c, h, w), uint8 or floating point in [0, 1], RGB order;
                - list of these.

                With c = 1 or 3, or 2 or 4 with alpha last, which is passed through. Gray gives gray (BT.709 luma).
            strength: 0 gives the input, 1 the network's picture, in between a blend in linear light or what the network
                makes of it; up to ``max_strength``.
            mode: Instead of the enhancer's.

        Returns:
            The same type, dtype, size and device.

        Raises:
            TypeError: If it is none of these.
            ValueError: If its shape, strength or mode is not among these.
        """
        if isinstance(image, (list, tuple)):
            return [self.enhance(single, strength, mode) for single in image]
        return self.enhance_with_report(image, strength, mode).image

    __call__ = enhance

    def enhance_with_report(self, image: Any, strength: float = 1.0, mode: str | None = None,
                            adapt: Callable[[Tensor, Any], Any] | None = None) -> Result:
        """Enhance one picture, or a batch in one array or tensor, and say how: see :meth:`enhance`.

        Args:
            image: As :meth:`enhance` takes it, but no list.
            strength: From 0 to ``max_strength``.
            mode: Instead of the enhancer's.
            adapt: Called as ``adapt(thumbnail, curve)`` with what the network's ``thumbnail`` and ``predict`` give,
                returns the curve that its ``apply`` takes; so a video smooths the curves of its frames. For networks
                that have these three steps.
        """
        if not 0 <= strength <= self.max_strength:
            raise ValueError(f'strength is from 0 to {self.max_strength:g}, got {strength}')
        mode = mode or self.mode
        _check('mode', mode, MODES)

        def run(channels: Tensor) -> Result:
            return self._enhance_channels(channels, strength, mode, adapt)

        return enhance_picture(image, run)

    def _enhance_channels(self, image: Tensor, strength: float, mode: str, adapt: Callable | None) -> Result:
        """(..., c, h, w) in [0, 1] or uint8, c from 1 to 4 -> the same without alpha, in memory of its own."""
        channels = image.shape[-3]
        if channels not in (1, 2, 3, 4) or not image.numel():
            raise ValueError(f'an image has 1 or 3 channels, 2 or 4 with alpha, and pixels; got {tuple(image.shape)}')
        suits = self._takes_uint8 and channels > 2 and min(image.shape[-2:]) >= MIN_SIZE
        if image.dtype == torch.uint8 and not suits:
            result = self._enhance_channels(image.float().div_(255), strength, mode, adapt)
            return replace(result, image=result.image.mul_(255).round_().to(image.dtype))
        colour = image[..., :1 if channels < 3 else 3, :, :]
        x = colour.reshape(-1, *colour.shape[-3:]).expand(-1, 3, -1, -1)
        low, high = colour.aminmax()
        if not (low.isfinite() and high.isfinite()):
            raise ValueError('the image holds values that are not finite')
        if not strength:
            return Result(colour.clone(), None, 'strength 0 is the input')
        if image.dtype != torch.uint8 and (low < 0 or high > 1):
            x = x.clamp(0, 1)
        # Pictures do not depend on each other: as many at once as 'auto' runs in one piece.
        count = max(1, modes.DIRECT_PIXELS.get(self.device.type, modes.DIRECT_PIXELS['cpu']) // x[0, 0].numel())
        parts = [self._run(part, strength, mode, adapt) for part in x.split(count)]
        last = max(parts, key=lambda part: modes.MODES.index(part.mode))
        y = parts[0].image if len(parts) == 1 else torch.cat([part.image for part in parts])
        if not self.any_size:
            y = blend(x, y, strength, out=y)
        if channels < 3:
            y = (y * y.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        return replace(last, image=y.reshape(colour.shape))

    def _run(self, x: Tensor, strength: float, mode: str, adapt: Callable | None) -> Result:
        """The network: (n, 3, h, w) float32 in [0, 1], or uint8 where it takes that -> the same."""
        if x.dtype == torch.uint8:
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, self.precision == 'bf16'):
                y = modes.run_steps(self.network, x.to(self.device), adapt, strength)
            return Result(y.to(x.device), 'direct', ANY_SIZE)
        h, w = x.shape[2:]
        pad = (0, max(0, MIN_SIZE - w), 0, max(0, MIN_SIZE - h))
        y = (x.to(self.device) * 2).sub_(1)
        if any(pad):
            y = F.pad(y, pad, mode='replicate')
        reason = 'asked for'
        if self.any_size:
            mode, reason = 'direct', ANY_SIZE
        elif mode == 'auto':
            height = len(y) * y.shape[2]  # the memory of a batch is that of one picture of its size
            mode, reason = modes.choose_mode(
                height, y.shape[3], self.device, self.precision, self.max_memory, self.network,
                copies=2 * self.self_ensemble + (self.denoise > 0))
        planned = mode

        def once(x: Tensor) -> Tensor:
            nonlocal mode
            if self.any_size:
                return modes.run_steps(self.network, x, adapt, strength)
            y, mode = modes.enhance_with_fallback(self.network, x, mode, adapt=adapt)
            return y

        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, self.precision == 'bf16'):
            low = y.clone() if self.denoise else None  # mode guided writes to y
            y = self_ensemble(once, y) if self.self_ensemble else once(y)
            if self.denoise:
                y = denoise(y, low, self.denoise)
            # A large picture is changed where it lies, here and below: each copy takes 12 bytes a pixel.
            y = y[:, :, :h, :w].float().add_(1).mul_(0.5).clamp_(0, 1).to(x.device)
        if not y.sum().isfinite():
            raise ValueError('the network gave values that are not finite: its weights do not suit this picture')
        return Result(y, mode, reason if mode == planned else f'memory ran out in mode {planned}')


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f'{name} {value!r} is not known{nearest(value, known)}')
