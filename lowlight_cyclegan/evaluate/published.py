"""Loading of the weights that the authors of the comparison methods published."""
from __future__ import annotations

import os
import pickle
import torch
from os import path as osp
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from typing import Any

from lowlight_cyclegan.archs import IAT, RUAS, SCI, PairLIE, PSENet, RetinexNet, ZeroDCE
from lowlight_cyclegan.archs.baseline_arch import Baseline

__all__ = ['PUBLISHED', 'load_published']

PUBLISHED = {'zero_dce': ZeroDCE, 'sci': SCI, 'ruas': RUAS, 'retinexnet': RetinexNet, 'pairlie': PairLIE, 'iat': IAT,
             'psenet': PSENet}
WEIGHT_FILES = ('.pt', '.pth', '.tar', '.safetensors')


def load_published(name: str, path: str | list[str], **options: Any) -> Baseline:
    """Build a method with the weights its authors published.

    Args:
        name: A key of ``PUBLISHED``.
        path: The authors' file, several, or a folder whose weight files are all taken.
        options: Options of the arch.

    Returns:
        The method in evaluation mode.

    Raises:
        ValueError: One line: an unknown name, or a file that is missing, cannot be read, or holds something else.
    """
    if name not in PUBLISHED:
        raise ValueError(f"no method '{name}' with published weights; known: {', '.join(PUBLISHED)}")
    net = PUBLISHED[name](**options)
    state = _read(type(net).__name__, path)
    try:
        net.load_state_dict(net.convert(state))
    except (ValueError, RuntimeError) as error:
        reason = '; '.join(line.strip() for line in str(error).splitlines()[-2:])
        raise ValueError(f"{type(net).__name__}: {path} does not hold this method's published weights "
                         f'({reason})') from None
    return net.eval()


def _read(method: str, path: str | list[str]) -> dict[str, Tensor]:
    """The weights of all files together, by name."""
    state: dict[str, Tensor] = {}
    for file in _weight_files(path):
        try:
            if file.endswith('.safetensors'):
                loaded = load_file(file)
            else:
                loaded = torch.load(file, map_location='cpu', weights_only=True)
        except (OSError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
            raise ValueError(f"{method}: the weights '{file}' cannot be loaded "
                           f'({str(error).splitlines()[0]})') from None
        if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
            raise ValueError(f"{method}: '{file}' holds no weights by name: give the published file")
        repeated = state.keys() & loaded.keys()
        if repeated:
            raise ValueError(f"{method}: '{file}' repeats {min(repeated)!r} of another file in {path}; "
                           'name the files to load')
        state.update(loaded)
    return state


def _weight_files(path: str | list[str]) -> list[str]:
    paths = [osp.expanduser(p) for p in ([path] if isinstance(path, str) else path)]
    if len(paths) == 1 and osp.isdir(paths[0]):
        found = sorted(name for name in os.listdir(paths[0]) if name.endswith(WEIGHT_FILES))
        if not found:
            raise ValueError(f"no weights ({', '.join(WEIGHT_FILES)}) in the folder '{paths[0]}'")
        return [osp.join(paths[0], name) for name in found]
    return paths
