"""Base class of the comparison methods, whose weights other authors published."""
from torch import nn

__all__ = ['Baseline', 'rename']


class Baseline(nn.Module):
    """A low-light method that works on [0, 1] and is called, as the generators here are, on [-1, 1].

    A subclass defines ``enhance`` and, where there are published weights, the static method ``convert``, which renames
    their keys to its own and raises ValueError for weights of something else.
    """

    def forward(self, x):
        """(n, 3, h, w) in [-1, 1] -> the same shape and range."""
        return self.enhance((x + 1) / 2).clamp(0, 1) * 2 - 1


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
