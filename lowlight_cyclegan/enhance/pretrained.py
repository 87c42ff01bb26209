"""Networks with their weights: bundled ones, from files that say what they hold, from training runs, from the hub."""
from __future__ import annotations

import contextlib
import glob
import json
import os
import torch
from collections.abc import Callable, Iterable
from os import path as osp
from torch import Tensor, nn

from lowlight_cyclegan import archs
from lowlight_cyclegan.config import OPTIONS_USED, bundled, load_options
from lowlight_cyclegan.files import atomic_write
from lowlight_cyclegan.messages import nearest
from lowlight_cyclegan.registry import ARCH_REGISTRY
from .inference import without_subnormals

__all__ = ['build_network', 'infer_options', 'load_pretrained', 'load_state', 'save_pretrained']

CHECKPOINTS = ('params_ema', 'params')  # the averaged weights are those a training run validates
CONFIG, WEIGHTS = 'config.json', 'model.safetensors'  # a folder as the Hugging Face hub has it


def load_pretrained(name_or_path: str | os.PathLike, options: str | os.PathLike | dict | None = None,
                    hub: dict | None = None) -> tuple[nn.Module, dict, str]:
    """Build a generator and load its weights.

    Args:
        name_or_path: One of

            - a name of bundled weights (:func:`~lowlight_cyclegan.config.bundled`);
            - a ``.safetensors`` file of ours, which says what it holds;
            - a ``.pth`` file of BasicSR's format or of the original CycleGAN; averaged weights are preferred;
            - a folder with config.json and model.safetensors, as the Hugging Face hub has it;
            - ``user/name`` on that hub.
        options: Option file with a ``network_g``, or the options of network_g themselves, for files
            that do not say what they hold. Without them, those of the training run that the file lies in are taken, and
            else they are inferred from the shapes.
        hub: Arguments of ``huggingface_hub.snapshot_download``.

    Returns:
        The network on the CPU, fp32, in evaluation mode without gradients; the options
            that build it; the file its weights come from.

    Raises:
        ValueError: One line: what was asked for, what was found, what to do.
    """
    path = bundled().get(str(name_or_path)) or osp.expanduser(str(name_or_path))
    if not osp.exists(path):
        # user/name on the hub; three parts, a dot or a leading slash can only be a path
        if path.count('/') != 1 or path.startswith(('.', '/')) or osp.splitext(path)[1]:
            raise ValueError(f'{name_or_path}: no such file, and no bundled weights have that name'
                             f'{nearest(name_or_path, bundled())}')
        path = _from_hub(path, hub or {})
    if osp.isdir(path):
        path = osp.join(path, WEIGHTS)
        if not osp.exists(path):
            raise ValueError(f'{osp.dirname(path)}: holds no {WEIGHTS}: give a file, or a folder that holds one')
    state, known = (_from_safetensors if path.endswith('.safetensors') else _from_checkpoint)(path)
    if isinstance(options, (str, os.PathLike)):
        options = _network_options(str(options))
    options = options or known or infer_options(state, path)
    try:
        network = build_network(options)
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f'{path}: its options build no network ({_line(error)})') from error
    try:
        network.load_state_dict({key: without_subnormals(value.float()) for key, value in state.items()})
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f'{path}: does not fit the network of its options ({_line(error)})') from error
    broken = [key for key, value in network.state_dict().items() if not value.isfinite().all()]  # in fp32 by now
    if broken:
        raise ValueError(f'{path}: holds values that are not finite, in {broken[0]}')
    return network.eval().requires_grad_(False), dict(options), path


def build_network(options: dict) -> nn.Module:
    """A network from options with a ``type``. One of ours needs no BasicSR, and loads no other.

    Raises:
        KeyError: No type, or an unknown one.
        TypeError, ValueError: The network refuses its arguments.
    """
    arguments = dict(options)
    return _arch(arguments.pop('type'))(**arguments)


def _arch(name: str) -> Callable[..., nn.Module]:
    if name in archs.HOMES:
        getattr(archs, name)  # its module registers it
    if name in ARCH_REGISTRY:
        return ARCH_REGISTRY.get(name)
    import basicsr.archs  # noqa: F401  (fills the registry)
    from basicsr.utils import registry
    return registry.ARCH_REGISTRY.get(name)


def save_pretrained(path: str | os.PathLike, network: nn.Module, options: dict, half: bool = False,
                    **metadata: str) -> None:
    """Write a generator's weights with what is needed to build it; each file is complete or as it was before.

    Args:
        path: A ``.safetensors`` file, or a folder for the Hugging Face hub's layout.
        network: Generator.
        options: What builds it: ``network_g`` of its option file.
        half: Store floating point as fp16, which halves the file and rounds the weights.
        metadata: Further entries of the file's header.

    Raises:
        OSError: It cannot be written.
    """
    from safetensors.torch import save
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    if half:
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    data = save(tensors, metadata={'network_g': json.dumps(options), **metadata})
    if not str(path).endswith('.safetensors'):
        os.makedirs(path, exist_ok=True)
        atomic_write(osp.join(path, CONFIG), json.dumps(options, indent=2).encode())
        path = osp.join(path, WEIGHTS)
    atomic_write(path, data)


def load_state(path: str | os.PathLike, keys: Iterable[str] = CHECKPOINTS) -> dict[str, Tensor]:
    """State dict from a file of BasicSR's format (the first of the keys it has), a plain or a ``.safetensors`` one.

    Raises:
        ValueError: If it is no such file.
    """
    try:
        if str(path).endswith('.safetensors'):
            from safetensors.torch import load_file
            state = load_file(path)
        else:
            state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # both answer a broken file with many kinds
        raise ValueError(f'{path}: cannot be loaded as weights ({_line(error)})') from error
    if isinstance(state, dict):
        state = next((state[key] for key in keys if key in state), state)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f'{path}: holds no weights of a network')
    return {key.removeprefix('module.'): value for key, value in state.items()}


def infer_options(state: dict[str, Tensor], path: str | os.PathLike = 'the state dict') -> dict:
    """Options of an :class:`EMAResNetGenerator` from the shapes of its weights.

    Shapes do not tell ema_position, nor the dilations: the paper's are taken.

    Raises:
        ValueError: If they are not those of such a generator, or of one with ``head: gain``, whose two constants shapes
            do not tell.
    """
    try:
        num_feat = len(state['encoder.stem.1.weight'])
        channels = len(state['transformer.0.body.1.weight'])
        options = {
            'type': 'EMAResNetGenerator',
            'num_in_ch': state['encoder.stem.1.weight'].shape[1],
            'num_feat': num_feat,
            'num_block': len({key.split('.')[1] for key in state if key.startswith('transformer.')}),
            'use_ema': 'transformer.0.ema.gn.weight' in state,
            'use_aspp': 'encoder.aspp.pool.0.weight' in state,
        }
        if 'exposure.picture.0.weight' in state:  # its encoder sees a picture twice, and its gain
            options.update(head='exposure', num_in_ch=(options['num_in_ch'] - 1) // 2)
        else:
            options['upsample'] = 'deconv' if 'decoder.0.weight' in state else 'resize'
        if options['use_ema']:
            options['ema_factor'] = channels // len(state['transformer.0.ema.gn.weight'])
        if options['use_aspp']:
            options['aspp_width'] = len(state['encoder.aspp.pool.0.weight'])
    except KeyError as error:
        raise ValueError(f'{path}: is none of our generators (no {error}): give its option file') from error
    except (IndexError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f'{path}: is none of our generators (a weight has other dimensions): give its option '
                         'file') from error
    if 'exposure.linear.weight' in state:
        raise ValueError(f'{path}: the constants of its head (gain) are not among its weights: give its option file')
    return options


def _from_safetensors(path: str) -> tuple[dict[str, Tensor], dict | None]:
    from safetensors import safe_open
    try:
        with safe_open(path, 'pt') as f:
            state, text = {key: f.get_tensor(key) for key in f.keys()}, (f.metadata() or {}).get('network_g')
        return state, json.loads(text) if text else _beside(path)
    except (OSError, ValueError) as error:
        raise ValueError(f'{path}: cannot be read ({_line(error)})') from error
    except Exception as error:  # SafetensorError derives from Exception alone
        raise ValueError(f'{path}: is no safetensors file ({_line(error)})') from error


def _beside(path: str) -> dict | None:
    config = osp.join(osp.dirname(path), CONFIG)
    if not osp.exists(config):
        return None
    with open(config, encoding='utf-8') as f:
        return json.load(f)


def _from_checkpoint(path: str) -> tuple[dict[str, Tensor], dict | None]:
    state = load_state(path)
    if any('.conv_block.' in key for key in state):
        state = archs.convert_cyclegan_generator(state)
        return state, infer_options(state, path)
    return state, _options_of_run(osp.dirname(osp.dirname(osp.abspath(path))))


def _options_of_run(folder: str) -> dict | None:
    """``network_g`` as the run in a folder used it, else of the newest option file there that has one, else None."""
    used = osp.join(folder, OPTIONS_USED)
    if osp.exists(used):  # what --force_yml changed is in this one alone
        return _network_options(used)
    for path in sorted(glob.glob(osp.join(glob.escape(folder), '*.yml')), key=osp.getmtime, reverse=True):
        with contextlib.suppress(ValueError):  # another program's file
            return _network_options(path)
    return None


def _network_options(path: str) -> dict:
    options = load_options(path).get('network_g')
    try:
        _arch(options['type'])  # type: ignore[index]
    except (KeyError, TypeError):
        raise ValueError(f'{path}: network_g: needs a type that is registered') from None
    return options  # type: ignore[return-value]


def _from_hub(name: str, arguments: dict) -> str:
    from huggingface_hub import snapshot_download
    try:
        return snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS], **arguments)
    except Exception as error:  # no network, no such repository, no access: the hub's errors share no base
        raise ValueError(f'{name}: no such file, and the Hugging Face hub gives none ({_line(error)})') from error


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if len(lines) == 1 else ' '.join(lines[:2]) if lines else type(error).__name__
