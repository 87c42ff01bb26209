"""Loading of the weights that the authors of the comparison methods published."""
from __future__ import annotations

import os
from os import path as osp
from torch import Tensor
from typing import Any

from lowlight_cyclegan.archs import IAT, RUAS, SCI, PairLIE, PSENet, RetinexNet, ZeroDCE
from lowlight_cyclegan.archs.baseline_arch import Baseline
from lowlight_cyclegan.enhance.pretrained import load_state

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
    try:
        state: dict[str, Tensor] = {}
        for file in _weight_files(path):
            loaded = load_state(file, ())
            if repeated := state.keys() & loaded.keys():
                raise ValueError(f'{file} repeats {min(repeated)!r} of another file: name the files to load')
            state.update(loaded)
        net.load_state_dict(net.convert(state))
    except (ValueError, RuntimeError) as error:
        reason = '; '.join(line.strip() for line in str(error).splitlines()[-2:])
        raise ValueError(f"{type(net).__name__}: {path} does not hold this method's published weights "
                         f'({reason})') from None
    return net.eval()


def _weight_files(path: str | list[str]) -> list[str]:
    paths = [osp.expanduser(p) for p in ([path] if isinstance(path, str) else path)]
    if len(paths) == 1 and osp.isdir(paths[0]):
        found = sorted(name for name in os.listdir(paths[0]) if name.endswith(WEIGHT_FILES))
        if not found:
            raise ValueError(f"no weights ({', '.join(WEIGHT_FILES)}) in the folder '{paths[0]}'")
        return [osp.join(paths[0], name) for name in found]
    return paths
