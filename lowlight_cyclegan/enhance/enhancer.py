"""Brightens pictures: what the commands, the page and Python programs call."""
import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from torch.nn import functional as F

from lowlight_cyclegan.archs.self_ensemble import self_ensemble
from lowlight_cyclegan.messages import first_line, nearest, warn
from .large import DIRECT_PIXELS, choose_mode, denoise, enhance_with_fallback, prepare_for_inference
from .pretrained import load_pretrained, save_pretrained

__all__ = ['Enhancer', 'blend']

MODES = ('auto', 'direct', 'exact', 'guided')
PRECISIONS = ('auto', 'fp32', 'bf16')
MIN_SIZE = 32  # of the generator's input; smaller pictures are extended
ROWS = 256  # of a picture that are blended at a time: linear light takes several copies
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
        self_ensemble (bool): Give the mean over the four flips of a picture: a little better, four times slower, and
            the memory of two more copies of it.
        denoise (float): From 0 to 1, strength of :func:`~lowlight_cyclegan.enhance.large.denoise` afterwards, for noise
            that the network leaves; fine texture suffers. Takes the memory of another copy of a picture.

    Raises:
        ValueError: If precision, mode or denoise is none of these, or the device cannot be had.
    """

    def __init__(self, network, device=None, precision='auto', mode='auto', max_memory=None,
                 self_ensemble=False, denoise=0.0):
        for name, value, known in (('mode', mode, MODES), ('precision', precision, PRECISIONS)):
            if value not in known:
                raise ValueError(f'{name} {value!r} is not known{nearest(value, known)}')
        if not 0 <= denoise <= 1:
            raise ValueError(f'denoise is from 0 to 1, got {denoise}')
        try:
            self.device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
            self.precision = _best_precision(self.device) if precision == 'auto' else precision
            self.network = prepare_for_inference(network, self.device, self.precision)
        except (RuntimeError, AssertionError) as error:  # torch's, of a device that is not known or not there
            raise ValueError(f'device {device}: {first_line(error)}') from error
        self.mode, self.max_memory, self.self_ensemble = mode, max_memory, self_ensemble
        self.denoise = denoise
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
            return self._enhance_any_tensor(image.detach(), strength, mode)
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
        # Pictures do not depend on each other: as many at once as 'auto' runs in one piece.
        count = max(1, DIRECT_PIXELS.get(self.device.type, DIRECT_PIXELS['cpu']) // (h * w))
        if len(x) > count:
            return torch.cat([self.enhance_tensor(part, mode) for part in x.split(count)])
        pad = (0, max(0, MIN_SIZE - w), 0, max(0, MIN_SIZE - h))
        y = (x.to(self.device) * 2).sub_(1)
        if any(pad):
            y = F.pad(y, pad, mode='replicate')
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, self.precision == 'bf16'):
            y = self._run(y, mode)
            # A large picture is changed where it lies, here and below: each copy takes 12 bytes a pixel.
            y = y[:, :, :h, :w].float().add_(1).mul_(0.5).clamp_(0, 1).to(x.device)
        if not y.sum().isfinite():
            raise ValueError('the network gave values that are not finite: its weights do not suit this picture')
        return y

    def _run(self, x, mode):
        reason = 'asked for'
        if mode == 'auto':
            height = len(x) * x.shape[2]  # the memory of a batch is that of one picture of its size
            mode, reason = choose_mode(height, x.shape[3], self.device, self.precision, self.max_memory, self.network)
        self.last_mode = mode
        low = x.clone() if self.denoise else None  # mode guided writes to x
        y = self_ensemble(self._run_once, x) if self.self_ensemble else self._run_once(x)
        self.last_reason = reason if self.last_mode == mode else f'memory ran out in mode {mode}'
        return denoise(y, low, self.denoise) if self.denoise else y

    def _run_once(self, x):
        y, self.last_mode = enhance_with_fallback(self.network, x, self.last_mode, say=warn)
        return y

    def _enhance_array(self, image, strength, mode):
        scale = {'u1': 255, 'u2': 65535}.get(image.dtype.str[1:]) or (1 if image.dtype.kind == 'f' else None)
        if scale is None:
            raise TypeError(f'an array holds uint8, uint16 or floating point, got {image.dtype}')
        if image.ndim not in (2, 3, 4):
            raise ValueError(f'an array is (h, w), (h, w, c) or (n, h, w, c), got {image.shape}')
        pixels = image[..., None] if image.ndim == 2 else image
        x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3), dtype=np.float32))
        if scale > 1:  # then it is no view of the caller's array
            x.div_(scale)
        y = self._enhance_channels(x, strength, mode)
        del x
        if scale > 1:
            y.mul_(scale).round_()
        result = np.empty(pixels.shape, image.dtype)
        result[..., :y.shape[-3]] = np.moveaxis(y.numpy(), -3, -1)
        if pixels.shape[-1] in (2, 4):  # alpha as it was, not rounded twice
            result[..., -1] = pixels[..., -1]
        return result.reshape(image.shape)

    def _enhance_any_tensor(self, image, strength, mode):
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise TypeError(f'a tensor holds uint8 or floating point, got {image.dtype}')
        if image.dim() not in (3, 4):
            raise ValueError(f'a tensor is (c, h, w) or (n, c, h, w), got {tuple(image.shape)}')
        scale = 255 if image.dtype == torch.uint8 else 1
        y = self._enhance_channels(image.float() / scale, strength, mode)
        y = (y.mul_(scale).round_() if scale > 1 else y).to(image.dtype)
        return torch.cat([y, image[..., -1:, :, :]], dim=-3) if image.shape[-3] in (2, 4) else y

    def _enhance_channels(self, image, strength, mode):
        """(..., c, h, w) in [0, 1] with any number of channels -> the same without alpha, in memory of its own."""
        channels = image.shape[-3]
        if channels not in (1, 2, 3, 4) or not image.numel():
            raise ValueError(f'an image has 1 or 3 channels, 2 or 4 with alpha, and pixels; got {tuple(image.shape)}')
        colour = image[..., :1 if channels < 3 else 3, :, :]
        x = colour.reshape(-1, *colour.shape[-3:]).expand(-1, 3, -1, -1)
        low, high = colour.aminmax()
        if not (low.isfinite() and high.isfinite()):
            raise ValueError('the image holds values that are not finite')
        if not strength:
            return colour.clone()
        if low < 0 or high > 1:
            x = x.clamp(0, 1)
        y = self.enhance_tensor(x, mode)
        y = blend(x, y, strength, out=y)
        if channels < 3:
            y = (y * y.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        return y.reshape(colour.shape)


def blend(low, enhanced, strength, out=None):
    """Blend in linear light (sRGB decoded): (..., h, w) in [0, 1] each -> the same; strength from 0 to 1.

    ``out``, which may be ``enhanced``, takes what is neither of them."""
    if strength in (0, 1):
        return enhanced if strength else low
    out = torch.empty_like(enhanced) if out is None else out
    for x, y, rows in zip(*(picture.split(ROWS, -2) for picture in (low, enhanced, out))):
        light = torch.lerp(_to_linear(x), _to_linear(y), float(strength))
        bright = 1.055 * light.clamp_min(0.0031308)**(1 / 2.4) - 0.055
        rows.copy_(torch.where(light <= 0.0031308, light * 12.92, bright))
    return out


def _to_linear(x):
    # IEC 61966-2-1
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055)**2.4)


def _best_precision(device):
    return 'fp32' if device.type == 'cpu' else 'bf16'
