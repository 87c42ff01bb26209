"""Brightens pictures: what the commands, the page and Python programs call."""
import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from torch.nn import functional as F

from lowlight_cyclegan.messages import nearest, warn
from .large import choose_mode, enhance_with_fallback, prepare_for_inference
from .pretrained import load_pretrained, save_pretrained

__all__ = ['Enhancer', 'blend']

MODES = ('auto', 'direct', 'exact', 'guided')
PRECISIONS = ('auto', 'fp32', 'bf16')
MIN_SIZE = 32  # of the generator's input; smaller pictures are extended
LUMA = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709


class Enhancer(ModelHubMixin, library_name='lowlight_cyclegan', pipeline_tag='image-to-image',
               tags=['low-light-image-enhancement']):
    """Enhance low-light pictures with a generator. ``push_to_hub`` is the Hugging Face hub's.

    Args:
        network (nn.Module): Called on (n, 3, h, w) in [-1, 1], gives the same shape and range.
        device (str | torch.device | None): None takes the GPU if there is one.
        precision (str): 'fp32', 'bf16' (mixed precision) or 'auto'.
        mode (str): How large pictures are handled: 'direct' (in one piece), 'exact' (in tiles that share the statistics
            of the whole picture), 'guided' (the effect on a reduced copy is transferred), or 'auto' (by size and
            memory).
        max_memory (float | None): Bytes that 'auto' may plan with. None means what is free.

    Raises:
        ValueError: If precision or mode is none of these.
    """

    def __init__(self, network, device=None, precision='auto', mode='auto', max_memory=None):
        for name, value, known in (('mode', mode, MODES), ('precision', precision, PRECISIONS)):
            if value not in known:
                raise ValueError(f'{name} {value!r} is not known{nearest(value, known)}')
        self.device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        self.precision = _best_precision(self.device) if precision == 'auto' else precision
        self.network = prepare_for_inference(network, self.device, self.precision)
        self.mode, self.max_memory = mode, max_memory
        self.options, self.source = None, None
        self.last_mode, self.last_reason = None, None

    @classmethod
    def from_pretrained(cls, name_or_path='lite', options=None, hub=None, **kwargs):
        """Load weights, see :func:`~lowlight_cyclegan.enhance.pretrained.load_pretrained`.

        Args:
            name_or_path (str): Name in the box, file, folder or repository of the Hugging Face hub. Default: 'lite'.
            options (str | dict | None): Option file for weights that do not say what they are.
            hub (dict | None): Arguments of ``huggingface_hub.snapshot_download``, for example revision and token.
            kwargs: Arguments of the class.

        Raises:
            ValueError: If the weights cannot be had, or an argument is not known.
        """
        network, options, source = load_pretrained(name_or_path, options, hub)
        enhancer = cls(network, **kwargs)
        enhancer.options, enhancer.source = options, source
        return enhancer

    def save_pretrained(self, path, **kwargs):
        """Write the weights as a ``.safetensors`` file, or as a folder in the layout of the Hugging Face hub.

        Args:
            path (str): File or folder.
            kwargs: For a folder, arguments of ``huggingface_hub.ModelHubMixin.save_pretrained``.

        Raises:
            ValueError: If the network was not loaded by :meth:`from_pretrained`, so that its options are not known.
        """
        if self.options is None:
            raise ValueError('the options of a network that from_pretrained did not load are not known')
        if str(path).endswith('.safetensors'):
            self._save_pretrained(path)
        else:
            super().save_pretrained(path, **kwargs)

    def _save_pretrained(self, save_directory):
        save_pretrained(save_directory, self.network, self.options)

    def enhance(self, image, strength=1.0, mode=None):
        """Enhance a picture, or several.

        Args:
            image (ndarray | PIL.Image | Tensor | list): One of

                - array (h, w), (h, w, c) or (n, h, w, c), uint8, uint16, or floating point in [0, 1], RGB order;
                - PIL image: L, LA, RGB and RGBA keep their mode, others become RGB or RGBA;
                - tensor (c, h, w) or (n, c, h, w), uint8 or floating point in [0, 1], RGB order;
                - list of these.

                With c = 1 or 3, or 2 or 4 with alpha last, which is passed through. Gray gives gray (BT.709 luma).
            strength (float): 0 gives the input, 1 the network's picture, in between a blend in linear light.
            mode (str | None): Instead of the enhancer's.

        Returns:
            The same type, dtype, size and device.

        Raises:
            TypeError: If it is none of these.
            ValueError: If its shape, strength or mode is not among these.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f'strength is from 0 to 1, got {strength}')
        if isinstance(image, (list, tuple)):
            return [self.enhance(single, strength, mode) for single in image]
        if isinstance(image, np.ndarray):
            return self._enhance_array(image, strength, mode)
        if isinstance(image, torch.Tensor):
            return self._enhance_any_tensor(image, strength, mode)
        from PIL import Image
        if not isinstance(image, Image.Image):
            raise TypeError(f'an image is an array, PIL image, tensor or a list of them, got {type(image).__name__}')
        if image.mode.startswith('I'):  # 16 bits to a pixel
            values = np.asarray(image).clip(0, 65535).astype(np.uint16)
            return Image.fromarray(self._enhance_array(values, strength, mode)).convert(image.mode)
        if image.mode not in ('L', 'LA', 'RGB', 'RGBA'):
            image = image.convert('RGBA' if image.has_transparency_data else 'RGB')
        return Image.fromarray(self._enhance_array(np.asarray(image), strength, mode), image.mode)

    __call__ = enhance

    def enhance_tensor(self, x, mode=None):
        """Run the network: (n, 3, h, w) float32 in [0, 1] -> the same shape and range, on the device of x."""
        mode = mode or self.mode
        if mode not in MODES:
            raise ValueError(f'mode {mode!r} is not known{nearest(mode, MODES)}')
        h, w = x.shape[2:]
        pad = (0, max(0, MIN_SIZE - w), 0, max(0, MIN_SIZE - h))
        y = x.to(self.device) * 2 - 1
        if any(pad):
            y = F.pad(y, pad, mode='replicate')
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, self.precision == 'bf16'):
            y = self._run(y, mode)
        y = ((y[:, :, :h, :w].float() + 1) / 2).clamp_(0, 1).to(x.device)
        if not torch.isfinite(y).all():
            raise ValueError('the network gave values that are not finite: its weights do not suit this picture')
        return y

    def _run(self, x, mode):
        reason = 'asked for'
        if mode == 'auto':
            mode, reason = choose_mode(*x.shape[2:], self.device, self.precision, self.max_memory, self.network)
        y, self.last_mode = enhance_with_fallback(self.network, x, mode, say=warn)
        self.last_reason = reason if self.last_mode == mode else f'memory ran out in mode {mode}'
        return y

    def _enhance_array(self, image, strength, mode):
        scale = {'u1': 255, 'u2': 65535}.get(image.dtype.str[1:]) or (1 if image.dtype.kind == 'f' else None)
        if scale is None:
            raise TypeError(f'an array holds uint8, uint16 or floating point, got {image.dtype}')
        if image.ndim not in (2, 3, 4):
            raise ValueError(f'an array is (h, w), (h, w, c) or (n, h, w, c), got {image.shape}')
        pixels = image[..., None] if image.ndim == 2 else image
        x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3), dtype=np.float32)) / scale
        y = np.moveaxis(self._enhance_channels(x, strength, mode).numpy(), -3, -1)
        if pixels.shape[-1] in (2, 4):  # alpha as it was, not rounded twice
            y = np.concatenate([y, np.zeros_like(y[..., :1])], axis=-1)
        result = (y * scale).round().astype(image.dtype) if scale > 1 else y.astype(image.dtype)
        if pixels.shape[-1] in (2, 4):
            result[..., -1] = pixels[..., -1]
        return result.reshape(image.shape)

    def _enhance_any_tensor(self, image, strength, mode):
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise TypeError(f'a tensor holds uint8 or floating point, got {image.dtype}')
        if image.dim() not in (3, 4):
            raise ValueError(f'a tensor is (c, h, w) or (n, c, h, w), got {tuple(image.shape)}')
        scale = 255 if image.dtype == torch.uint8 else 1
        y = self._enhance_channels(image.float() / scale, strength, mode)
        y = (y * scale).round().to(image.dtype) if scale > 1 else y.to(image.dtype)
        return torch.cat([y, image[..., -1:, :, :]], dim=-3) if image.shape[-3] in (2, 4) else y

    def _enhance_channels(self, image, strength, mode):
        """(..., c, h, w) in [0, 1] with any number of channels -> the same without alpha."""
        channels = image.shape[-3]
        if channels not in (1, 2, 3, 4) or not image.numel():
            raise ValueError(f'an image has 1 or 3 channels, 2 or 4 with alpha, and pixels; got {tuple(image.shape)}')
        colour = image[..., :1 if channels < 3 else 3, :, :]
        x = colour.reshape(-1, *colour.shape[-3:]).expand(-1, 3, -1, -1)
        if not torch.isfinite(x).all():
            raise ValueError('the image holds values that are not finite')
        x = x.clamp(0, 1)
        y = blend(x, self.enhance_tensor(x, mode) if strength else x, strength)
        if channels < 3:
            y = (y * y.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        return y.reshape(colour.shape)


def blend(low, enhanced, strength):
    """Blend in linear light (sRGB decoded): (..., h, w) in [0, 1] each -> the same; strength from 0 to 1."""
    if strength in (0, 1):
        return enhanced if strength else low
    light = torch.lerp(_to_linear(low), _to_linear(enhanced), float(strength))
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(0.0031308)**(1 / 2.4) - 0.055)


def _to_linear(x):
    # IEC 61966-2-1
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055)**2.4)


def _best_precision(device):
    return 'fp32' if device.type == 'cpu' else 'bf16'
