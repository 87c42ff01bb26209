"""PSENet: a map of exponents that was learned without references.

Reference: Nguyen et al., "PSENet: Progressive Self-Enhancement Network for Unsupervised Extreme-Light Image
Enhancement", WACV 2023.
"""
import torch
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.registry import ARCH_REGISTRY
from .baseline_arch import Baseline, rename

__all__ = ['PSENet']

# input, hidden and output channels, stride, channel attention; the authors' names
BLOCKS = {'first_conv': (3, 6, 3, 1, True), 'conv1': (3, 24, 16, 2, False), 'conv2': (16, 24, 16, 1, False),
          'conv3': (16, 48, 32, 2, False), 'conv5': (32, 48, 32, 1, False), 'conv6': (32, 48, 16, 1, False),
          'conv7': (32, 48, 16, 1, False), 'conv8': (16, 24, 3, 1, False), 'last_conv': (6, 9, 3, 1, True)}


class Block(nn.Module):
    """Inverted residual: channels are multiplied, filtered one by one, weighed, and projected."""

    def __init__(self, in_ch, hidden, out_ch, stride, attention):
        super().__init__()
        self.residual = stride == 1 and in_ch == out_ch
        self.expand = nn.Conv2d(in_ch, hidden, 1)
        self.filter = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, padding_mode='reflect')
        self.attention = nn.Sequential(
            nn.Conv2d(hidden, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, hidden, 1)) if attention else None
        self.project = nn.Conv2d(hidden, out_ch, 1)

    def forward(self, x):
        """(n, in_ch, h, w) -> (n, out_ch, h / stride, w / stride)."""
        y = self.filter(F.leaky_relu(self.expand(x)))
        if self.attention is not None:
            y = y * self.attention(y.mean((2, 3), keepdim=True))
        y = self.project(F.leaky_relu(y))
        return x + y if self.residual else y


@ARCH_REGISTRY.register()
class PSENet(Baseline):
    """1 - (1 - x)^g with an exponent g for each value, from a small U-Net; 15,000 parameters (section 3.3)."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleDict({name: Block(*shape) for name, shape in BLOCKS.items()})

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        return 1 - (1 - x)**self.exponents(x)

    def exponents(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape, at least 0."""
        net = self.blocks
        full = net['first_conv'](x)
        half = net['conv2'](net['conv1'](full))
        quarter = net['conv6'](net['conv5'](net['conv3'](half)))
        half = net['conv8'](net['conv7'](torch.cat([half, _enlarge(quarter, half)], dim=1)))
        return (1 + net['last_conv'](torch.cat([full, _enlarge(half, full)], dim=1))).abs()

    @staticmethod
    def convert(state_dict):
        """Rename the keys of the published weights; ValueError for others."""
        layers = {'0': 'expand', '2': 'filter', '3.fc.0': 'attention.0', '3.fc.2': 'attention.2', '5': 'project'}
        return rename(state_dict, {f'model.{block}.conv.{layer}': f'blocks.{block}.{ours}'
                                   for block in BLOCKS for layer, ours in layers.items()})


def _enlarge(x, like):
    return F.interpolate(x, like.shape[2:], mode='bilinear', align_corners=True)
