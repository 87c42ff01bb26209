"""What is compared: networks and classical methods, all called on (n, 3, h, w) in [-1, 1]."""
import hashlib
import inspect
import json
import math
import numpy as np
import os
import re
import time
import torch
import warnings
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from dataclasses import dataclass
from os import path as osp
from torch import nn

from lowlight_cyclegan.archs.baselines import PUBLISHED, load_published
from lowlight_cyclegan.archs.self_ensemble import SelfEnsemble
from lowlight_cyclegan.enhance.denoise import Denoised
from lowlight_cyclegan.enhance.pretrained import bundled, load_pretrained, load_state
from lowlight_cyclegan.messages import fail, nearest

__all__ = ['Method', 'complexity', 'enhance', 'load_method']


@dataclass
class Method:
    """A method under its name in the table.

    Attributes:
        label (str): Name in the table.
        net (nn.Module): In evaluation mode.
        fingerprint (str): SHA-256 of its code, settings and weights.
        source (str): Where its weights come from, for the table's notes.
    """
    label: str
    net: nn.Module
    fingerprint: str
    source: str


def load_method(text, device='cpu'):
    """Load a method from ``NAME``, ``NAME=[ARCH:]WEIGHTS[,WEIGHTS]`` or ``NAME=FILE.yml``.

    - ``input``, archs that need no weights (``gamma``: GammaCurve) and weights in the box (``lite``) by name alone;
    - the authors' published weights of zero_dce, sci, ruas or retinexnet; ARCH may be left out where NAME starts with
      it (``SCI-medium=medium.pt``);
    - an option file for testing, with network_g and pretrain_network_g;
    - weights of our generators, see :func:`~lowlight_cyclegan.enhance.pretrained.load_pretrained`.

    A NAME that ends in ``+flips`` (``lite+flips``) gives the mean over the four flips of an image, as does an option
    file with ``val: self_ensemble``; ``+denoise`` removes noise afterwards, see
    :func:`~lowlight_cyclegan.enhance.denoise.denoise`. A name can end in both.

    Returns:
        Method: On the device.

    Raises:
        SystemExit: One line.
    """
    label, _, value = text.partition('=')
    name = re.sub('([+](flips|denoise))*$', '', label)
    if not name:
        fail(f'--method {text}: write it as NAME or NAME=WEIGHTS')
    try:
        net = _load_network(text, name, value)
    except ValueError as error:
        fail(f'--method {label}: {error}')
    if '+flips' in label[len(name):]:
        net = SelfEnsemble(net)
    if '+denoise' in label[len(name):]:
        net = Denoised(net)
    net = net.eval().requires_grad_(False).to(device)
    return Method(label, net, _fingerprint(net), value)


def _load_network(text, label, value):
    if not value:
        net = load_pretrained(label)[0] if label in bundled() else _weightless(label)
    elif value.lower().endswith(('.yml', '.yaml')):
        net = _from_options(value)
    else:
        arch, _, files = value.rpartition(':')
        arch = arch or next((name for name in PUBLISHED if _plain(label).startswith(_plain(name))), None)
        files = [osp.expanduser(file) for file in files.split(',')]
        for file in files:
            if not osp.exists(file):
                fail(f'--method {text}: no such file: {file}')
        if arch is None:
            net = load_pretrained(files[0])[0]
        elif arch in PUBLISHED:
            net = load_published(arch, files if len(files) > 1 else files[0])
        else:
            fail(f'--method {text}: no published weights are known for {arch!r}{nearest(arch, PUBLISHED)}')
    return net


def _plain(name):
    return name.lower().replace('_', '').replace('-', '')


def _weightless(name):
    if _plain(name) == 'input':
        return nn.Identity()
    archs = {_plain(key): arch for key, arch in ARCH_REGISTRY if arch.__module__.startswith('lowlight_cyclegan.')}
    near = [key for key in archs if key.startswith(_plain(name))]  # gamma is GammaCurve
    arch = archs.get(near[0]) if len(near) == 1 else archs.get(_plain(name))
    if arch is None:
        fail(f'--method {name}: is not known{nearest(_plain(name), ["input", *bundled(), *archs])}')
    try:
        net = arch()
    except TypeError:  # a building block
        fail(f'--method {name}: is no method')
    if next(net.parameters(), None) is not None:
        fail(f'--method {name}: needs weights, write {name}=FILE')
    return net


def _from_options(path):
    from lowlight_cyclegan.config import load_options
    opt = load_options(path)
    weights = (opt.get('path') or {}).get('pretrain_network_g')
    if not isinstance(opt.get('network_g'), dict) or opt['network_g'].get('type') not in ARCH_REGISTRY:
        fail(f'{path}: network_g: needs a type that is registered')
    try:
        net = build_network(opt['network_g'])
    except (TypeError, ValueError) as error:
        fail(f'{path}: network_g: {error}')
    if weights:
        _load(net, weights, [opt['path'].get('param_key_g', 'params')])
    elif next(net.parameters(), None) is not None and not opt['network_g'].get('load_path'):
        fail(f'{path}: path:pretrain_network_g: is missing, there are no weights to evaluate')
    return SelfEnsemble(net) if (opt.get('val') or {}).get('self_ensemble') else net


def _load(net, path, keys):
    """Load a checkpoint of BasicSR into a network, from the first of the keys it has, or as a plain state dict."""
    state = load_state(osp.expanduser(path), keys)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        fail(f'{path}: does not fit the network of its options ({str(error).splitlines()[-1].strip()})')


def _fingerprint(net):
    """SHA-256 of the source files, plain settings and weights of a network."""
    digest = hashlib.sha256()
    files = {inspect.getsourcefile(type(module)) for module in net.modules()}
    for file in sorted(file for file in files if f'{os.sep}torch{os.sep}' not in file):
        with open(file, 'rb') as f:
            digest.update(f.read())
    for name, module in net.named_modules():
        settings = {key: value for key, value in vars(module).items()
                    if not key.startswith('_') and isinstance(value, (int, float, str, tuple, list, type(None)))}
        digest.update(json.dumps([name, type(module).__name__, settings], sort_keys=True, default=str).encode())
    for name, value in sorted(net.state_dict().items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def enhance(net, img):
    """Run a method on an image: the one place where this is done.

    Args:
        net (nn.Module): Called on (1, 3, h, w) RGB in [-1, 1].
        img (ndarray): (h, w, 3) uint8, BGR.

    Returns:
        tuple[ndarray, float]: (h, w, 3) float32 in [0, 255], BGR, unrounded; milliseconds of the network alone.
    """
    device = next((p.device for p in net.parameters()), torch.device('cpu'))
    x = torch.from_numpy(np.ascontiguousarray(img[..., ::-1].transpose(2, 0, 1))).unsqueeze(0).to(device)
    x = x.float() / 127.5 - 1
    with torch.inference_mode():
        begin = _now(device)
        y = net(x)
        ms = 1000 * (_now(device) - begin)
        y = ((y.float().clamp(-1, 1) + 1) * 127.5)[0].cpu().numpy()
    return np.ascontiguousarray(y.transpose(1, 2, 0)[..., ::-1]), ms


def _now(device):
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter()


def complexity(net, size):
    """Millions of parameters that the output depends on, and GMACs (multiply-accumulates, 1e9) for an image.

    Networks only used in training, like the calibrator of SCI, do not count. mmengine counts one operation for a
    multiply and add; attention products and resampling are included as far as it knows them.

    Args:
        net (nn.Module): The method.
        size (tuple[int, int]): (h, w).

    Returns:
        tuple[float, float]: Both nan for a method without parameters.
    """
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
    return used / 1e6, flops / 1e9
