"""RUAS: unrolling with an architecture that was searched for.

Reference: Liu et al., "Retinex-inspired Unrolling with Cooperative Prior Architecture Search for Low-light Image
Enhancement", CVPR 2021.
"""
import re
import torch
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.registry import ARCH_REGISTRY
from .baseline_arch import Baseline

__all__ = ['RUAS']

# What the search found for each edge of a cell: kernel size, dilation, own skip. None is the identity.
ILLUMINATION_CELL = {'distill': (None, (3, 2, True), (3, 1, False)), 'refine': ((1, 1, True), (3, 1, False), None),
                     'last': (3, 1, False)}
NOISE_CELL = {'distill': ((1, 1, True), (3, 2, True), (1, 1, True)), 'refine': ((1, 1, True), None, (1, 1, True)),
              'last': None}


class SkipConv2d(nn.Conv2d):
    """Convolution with a skip of its own."""

    def forward(self, x):
        return x + super().forward(x)


def _edge(channels, spec):
    if spec is None:
        return nn.Identity()
    kernel, dilation, skip = spec
    return (SkipConv2d if skip else nn.Conv2d)(
        channels, channels, kernel, padding=kernel // 2 * dilation, dilation=dilation)


class Cell(nn.Module):
    """Distillation cell (figure 3): what each of three steps sets aside and the last step's features are fused."""

    def __init__(self, channels, spec):
        super().__init__()
        self.distill = nn.ModuleList(_edge(channels, s) for s in spec['distill'])
        self.refine = nn.ModuleList(_edge(channels, s) for s in spec['refine'])
        self.last = _edge(channels, spec['last'])
        self.fuse = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x):
        """(n, channels, h, w) -> the same shape."""
        kept = []
        for distill, refine in zip(self.distill, self.refine):
            kept.append(distill(x))
            x = F.leaky_relu(refine(x) + x, 0.05)
        kept.append(self.last(x))
        return self.fuse(F.leaky_relu(torch.cat(kept, dim=1), 0.05))


@ARCH_REGISTRY.register()
class RUAS(Baseline):
    """Three steps of illumination estimation, then removal of noise.

    Args:
        denoise (bool): With the noise removal module, as the authors do for their LOL weights. Default: True.
    """

    def __init__(self, denoise=True):
        super().__init__()
        self.denoise = denoise
        self.illumination = nn.ModuleList(Cell(3, ILLUMINATION_CELL) for _ in range(3))
        self.noise = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), *[Cell(6, NOISE_CELL) for _ in range(3)], nn.Conv2d(6, 3, 3, padding=1))

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        guess = local_maximum(x)
        for cell in self.illumination:
            illumination = cell(guess).sigmoid().clamp(1e-3, 1)
            enhanced = (x / illumination).clamp(0, 1)
            guess = local_maximum(enhanced) - 0.5 * (enhanced - x)  # eq. 4: the residual is rectified
        return enhanced - self.noise(enhanced) if self.denoise else enhanced

    @staticmethod
    def convert(state_dict):
        """Rename the keys of the published weights; ValueError for others."""
        converted = {}
        edges = {'c1_d': 'distill.0', 'c2_d': 'distill.1', 'c3_d': 'distill.2', 'c1_r': 'refine.0', 'c2_r': 'refine.1',
                 'c3_r': 'refine.2', 'c4': 'last', 'c5': 'fuse'}
        edge = rf'({"|".join(edges)})\b'
        for key, value in state_dict.items():
            path, _, leaf = key.removeprefix('module.').rpartition('.')
            illumination = re.match(rf'enhance_net\.iems\.(\d+)\.cell\.{edge}', path)
            noise = re.match(rf'denoise_net\.nrms\.(\d+)\.{edge}', path)
            if illumination:
                path = f'illumination.{illumination[1]}.{edges[illumination[2]]}'
            elif noise:
                path = f'noise.{int(noise[1]) + 1}.{edges[noise[2]]}'
            elif path == 'denoise_net.stem':
                path = 'noise.0'
            elif path == 'denoise_net.activate.0':
                path = 'noise.4'
            else:
                raise ValueError(f'unknown key {key!r}')
            converted[f'{path}.{leaf}'] = value
        return converted


def local_maximum(x):
    """Maximum of each pixel with its right, lower and lower right neighbours, black outside."""
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1)
