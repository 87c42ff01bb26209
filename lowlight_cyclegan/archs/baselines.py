"""What the methods that ours is compared with share: their range, and loading of the published weights."""
import os
import pickle
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from os import path as osp
from torch import nn

__all__ = ['Baseline', 'load_published']

WEIGHT_FILES = ('.pt', '.pth', '.tar')
PUBLISHED = {'zero_dce': 'ZeroDCE', 'sci': 'SCI', 'ruas': 'RUAS', 'retinexnet': 'RetinexNet'}


class Baseline(nn.Module):
    """A low-light method that works on [0, 1] and is called, as the generators here are, on [-1, 1].

    A subclass defines ``enhance`` and, where there are published weights, the static method ``convert``, which renames
    their keys to its own and raises ValueError for weights of something else. One that is trained without references
    defines ``enhance_for_loss``, which gives the result of ``enhance`` and a tuple, the arguments of its loss.
    """

    def forward(self, x, for_loss=False):
        """(n, 3, h, w) in [-1, 1] -> the same shape and range, with ``for_loss`` also the arguments of the loss."""
        x = (x + 1) / 2
        enhanced, arguments = self.enhance_for_loss(x) if for_loss else (self.enhance(x), None)
        enhanced = enhanced.clamp(0, 1) * 2 - 1
        return (enhanced, arguments) if for_loss else enhanced

    def load_published(self, path):
        """Take the published weights.

        Args:
            path (str | list[str]): The authors' file, several, or a folder whose weight files are all taken.

        Raises:
            SystemExit: One line: the file is missing, cannot be read, or holds something else.
        """
        state = {}
        for file in _weight_files(path):
            try:
                loaded = torch.load(file, map_location='cpu', weights_only=True)
            except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
                raise SystemExit(f"{type(self).__name__}: the weights '{file}' cannot be loaded "
                                 f'({str(error).splitlines()[0]})') from None
            if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
                raise SystemExit(f"{type(self).__name__}: '{file}' holds no weights by name: give the published file")
            twice = state.keys() & loaded.keys()
            if twice:
                raise SystemExit(f"{type(self).__name__}: '{file}' repeats {min(twice)!r} of another file in {path}; "
                                 'name the files to load')
            state.update(loaded)
        try:
            self.load_state_dict(self.convert(state))
        except (ValueError, RuntimeError) as error:
            reason = '; '.join(line.strip() for line in str(error).splitlines()[-2:])
            raise SystemExit(f"{type(self).__name__}: {path} does not hold this method's published weights "
                             f'({reason})') from None


def load_published(name, path, **options):
    """Build a method with the weights its authors published.

    Args:
        name (str): 'zero_dce', 'sci', 'ruas' or 'retinexnet'.
        path (str | list[str]): See :meth:`Baseline.load_published`.
        options: Further options of the arch.

    Returns:
        Baseline: In evaluation mode.

    Raises:
        SystemExit: One line: an unknown name, or weights that cannot be loaded.
    """
    if name not in PUBLISHED:
        raise SystemExit(f"no method '{name}' with published weights; known: {', '.join(PUBLISHED)}")
    return ARCH_REGISTRY.get(PUBLISHED[name])(load_path=path, **options).eval()


def _weight_files(path):
    paths = [osp.expanduser(p) for p in ([path] if isinstance(path, str) else path)]
    if len(paths) == 1 and osp.isdir(paths[0]):
        found = sorted(name for name in os.listdir(paths[0]) if name.endswith(WEIGHT_FILES))
        if not found:
            raise SystemExit(f"no weights ({', '.join(WEIGHT_FILES)}) in the folder '{paths[0]}'")
        return [osp.join(paths[0], name) for name in found]
    return paths


def rename(state_dict, names):
    """State dict with the module names of ``names`` (theirs -> ours) exchanged and ``module.`` removed.

    Raises:
        ValueError: A key has no entry.
    """
    renamed = {}
    for key, value in state_dict.items():
        name, _, leaf = key.removeprefix('module.').rpartition('.')
        if name not in names:
            raise ValueError(f'unknown key {key!r}')
        renamed[f'{names[name]}.{leaf}'] = value
    return renamed
