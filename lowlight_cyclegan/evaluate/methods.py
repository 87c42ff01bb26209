"""What is compared: networks and classical methods, all called on (n, 3, h, w) in [-1, 1]."""
from __future__ import annotations

import hashlib
import inspect
import json
import math
import numpy as np
import re
import time
import torch
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import path as osp
from torch import nn

from lowlight_cyclegan import archs as networks
from lowlight_cyclegan.archs.self_ensemble_arch import FLIPS, self_ensemble
from lowlight_cyclegan.config import bundled
from lowlight_cyclegan.enhance import modes
from lowlight_cyclegan.enhance.denoise import denoise
from lowlight_cyclegan.enhance.enhancer import Enhancer
from lowlight_cyclegan.enhance.pretrained import load_pretrained
from lowlight_cyclegan.messages import nearest
from lowlight_cyclegan.registry import ARCH_REGISTRY
from .published import PUBLISHED, load_published

__all__ = ['Method', 'complexity', 'load_method']


@dataclass
class Method:
    """A method under its name in the table.

    Attributes:
        label: Name in the table.
        enhancer: Runs it.
        fingerprint: SHA-256 of its code, settings and weights.
    """
    label: str
    enhancer: Enhancer
    fingerprint: str

    def enhance(self, img: np.ndarray) -> tuple[np.ndarray, float]:
        """Enhance an image.

        Args:
            img: (h, w, 3) uint8, BGR.

        Returns:
            (h, w, 3) float32 in [0, 255], BGR, unrounded, and the milliseconds that it took.
        """
        x = np.ascontiguousarray(img[..., ::-1], dtype=np.float32) / 255
        begin = self._now()
        y = self.enhancer.enhance(x)
        ms = 1000 * (self._now() - begin)
        return np.ascontiguousarray(y[..., ::-1]) * 255, ms

    def _now(self) -> float:
        if self.enhancer.device.type == 'cuda':
            torch.cuda.synchronize(self.enhancer.device)
        return time.perf_counter()


def load_method(text: str, device: str | torch.device | None = 'cpu') -> Method:
    """Load a method from ``NAME`` or ``NAME=[ARCH:]WEIGHTS[,WEIGHTS]``.

    - ``input``, archs that need no weights (``gamma``: GammaCurve, ``gain``: ExposureGain, ``gain+fusion``) and bundled
      weights (``lite``) by name alone;
    - the authors' published weights of zero_dce, sci, ruas, retinexnet, pairlie, iat or psenet; ARCH may be left out
      where NAME starts with it (``SCI-medium=medium.pt``);
    - weights of our generators, see :func:`~lowlight_cyclegan.enhance.pretrained.load_pretrained`.

    A NAME that ends in ``+flips`` (``lite+flips``) gives the mean over the four flips of an image; ``+denoise`` removes
    noise afterwards, see :func:`~lowlight_cyclegan.enhance.denoise.denoise`. A name can end in both.

    Images are enhanced in one piece and full precision.

    Raises:
        ValueError: The text has another form, or names nothing that can be loaded.
        FileNotFoundError: A file is missing.
    """
    label, _, value = text.partition('=')
    name = re.sub('([+](flips|denoise))*$', '', label)
    if not name:
        raise ValueError(f'--method {text}: write it as NAME or NAME=WEIGHTS')
    try:
        net = _load_network(name, value)
    except ValueError as error:
        raise ValueError(f'--method {label}: {error}') from error
    fingerprint = _fingerprint(net)
    enhancer = Enhancer(net.eval().requires_grad_(False), device, 'fp32', 'direct',
                        self_ensemble='+flips' in label[len(name):],
                        denoise=float('+denoise' in label[len(name):]))
    steps = [self_ensemble] * enhancer.self_ensemble + [denoise] * (enhancer.denoise > 0)
    return Method(label, enhancer, _digest(fingerprint, *_sources((Enhancer, modes, *steps)), len(steps)))


def _load_network(label: str, value: str) -> nn.Module:
    if not value:
        net = load_pretrained(label)[0] if label in bundled() else _weightless(label)
    else:
        arch, _, paths = value.rpartition(':')
        arch = arch or next((name for name in PUBLISHED if _plain(label).startswith(_plain(name))), '')
        files = [osp.expanduser(file) for file in paths.split(',')]
        for file in files:
            if not osp.exists(file):
                raise FileNotFoundError(f'--method {label}: no such file: {file}')
        if not arch:
            net = load_pretrained(files[0])[0]
        elif arch in PUBLISHED:
            net = load_published(arch, files if len(files) > 1 else files[0])
        else:
            raise ValueError(f'no published weights are known for {arch!r}{nearest(arch, PUBLISHED)}')
    return net


def _plain(name: str) -> str:
    return re.sub('[-_+]', '', name.lower())


def _weightless(name: str) -> nn.Module:
    if _plain(name) == 'input':
        return nn.Identity()
    for each in networks.__all__:  # they are imported, and registered, when they are asked for
        getattr(networks, each)
    archs = {_plain(key): arch for key, arch in ARCH_REGISTRY.objects.items()}
    near = [key for key in archs if key.startswith(_plain(name)) or key.endswith(_plain(name))]  # gamma is GammaCurve
    arch = archs.get(near[0]) if len(near) == 1 else archs.get(_plain(name))
    if arch is None:
        raise ValueError(f'is not known{nearest(_plain(name), ["input", *bundled(), *archs])}')
    try:
        net = arch()
    except TypeError:  # a building block
        raise ValueError('is no method') from None
    if next(net.parameters(), None) is not None:
        raise ValueError(f'needs weights, write {name}=FILE')
    return net


def _fingerprint(net: nn.Module) -> str:
    """SHA-256 of the source files, plain settings and weights of a network."""
    parts = _sources([type(module) for module in net.modules()])
    for name, module in net.named_modules():
        settings = {key: value for key, value in vars(module).items()
                    if not key.startswith('_') and isinstance(value, (int, float, str, tuple, list, type(None)))}
        parts.append(json.dumps([name, type(module).__name__, settings], sort_keys=True, default=str).encode())
    for name, value in sorted(net.state_dict().items()):
        parts.append(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        parts.append(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return _digest(*parts)


def _sources(objects: Sequence) -> list[bytes]:
    """Contents of the files that define classes, functions or modules, torch's own left out."""
    contents = []
    torch_folder = osp.join(osp.dirname(osp.abspath(torch.__file__)), '')
    for file in sorted({inspect.getsourcefile(item) or '' for item in objects}):
        if file and not file.startswith(torch_folder):
            with open(file, 'rb') as f:
                contents.append(f.read())
    return contents


def _digest(*parts: bytes | str | int) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else str(part).encode())
    return digest.hexdigest()


def complexity(enhancer: Enhancer, size: tuple[int, int]) -> tuple[float, float]:
    """Millions of parameters that the output depends on, and GMACs (multiply-accumulates, 1e9) for an image.

    Networks only used in training, like the calibrator of SCI, do not count. mmengine counts one operation for a
    multiply and add; attention products and resampling are included as far as it knows them.

    Args:
        enhancer: Runs the method.
        size: (h, w).

    Returns:
        Both nan for a method without parameters.
    """
    net = enhancer.network
    parameters = list(net.parameters())
    if not parameters:
        return math.nan, math.nan
    from mmengine.analysis import get_model_complexity_info
    from mmengine.logging import MMLogger
    x = torch.zeros(1, 3, 64, 64, device=parameters[0].device)
    with torch.enable_grad():
        net.requires_grad_(True)
        gradients = torch.autograd.grad(net(x).sum(), parameters, allow_unused=True)
        net.requires_grad_(False)
    used = sum(p.numel() for p, g in zip(parameters, gradients) if g is not None)
    x = torch.zeros(1, 3, *size, device=parameters[0].device)
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')  # it lists the elementwise operations that it does not count
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # tracing warns of Python values in the forward
        flops = get_model_complexity_info(net, inputs=x, show_table=False, show_arch=False)['flops']
    logger.setLevel(level)
    return used / 1e6, flops * (len(FLIPS) if enhancer.self_ensemble else 1) / 1e9
