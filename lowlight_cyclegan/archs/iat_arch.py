"""IAT: illumination adaptive transformer.

Reference: Cui et al., "You Only Need 90K Parameters to Adapt Light: a Light Weight Transformer for Image Enhancement
and Exposure Correction", BMVC 2022.
"""
import re
import torch
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.registry import ARCH_REGISTRY
from .baseline_arch import Baseline

__all__ = ['IAT']

NAMES = [(r'^local_net\.conv1\.', 'stem.'), (r'^local_net\.(mul|add)_blocks\.', r'\1.'),
         (r'^local_net\.(mul|add)_end\.0\.', r'\1_end.'), (r'\.pos_embed\.', '.position.'),
         (r'^(mul|add)\.(\d)\.conv1\.', r'\1.\2.expand.'), (r'^(mul|add)\.(\d)\.conv2\.', r'\1.\2.project.'),
         (r'^(mul|add)\.(\d)\.attn\.', r'\1.\2.filter.'), (r'\.mlp\.fc1\.', '.mlp.0.'), (r'\.mlp\.fc2\.', '.mlp.2.'),
         (r'^global_net\.conv_large\.proj\.', 'shared.embed.'), (r'^global_net\.generator\.attn\.', 'shared.'),
         (r'^global_net\.generator\.', 'shared.'), (r'^global_net\.', 'shared.')]


class ColorNorm(nn.Module):
    """Normalisation without statistics: a factor and an offset of each channel, then a mixture of the channels."""

    def __init__(self, channels):
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(1, 1, channels)), nn.Parameter(torch.zeros(1, 1, channels))
        self.color = nn.Parameter(torch.eye(channels))

    def forward(self, x):
        """(n, c, h, w) -> the same shape."""
        x = x.permute(0, 2, 3, 1) * self.alpha + self.beta
        return (x @ self.color.T).permute(0, 3, 1, 2)


class LocalBlock(nn.Module):
    """Pixel-wise enhancement module (figure 3): a transformer block whose attention is a 5x5 depthwise convolution."""

    def __init__(self, channels):
        super().__init__()
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1, self.norm2 = ColorNorm(channels), ColorNorm(channels)
        self.expand, self.project = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.filter = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.mlp = nn.Sequential(nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1))
        self.gamma_1, self.gamma_2 = (nn.Parameter(torch.full((1, channels, 1, 1), 1e-4)) for _ in range(2))

    def forward(self, x):
        """(n, c, h, w) -> the same shape."""
        x = x + self.position(x)
        x = x + self.gamma_1 * self.project(self.filter(self.expand(self.norm1(x))))
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class GlobalBranch(nn.Module):
    """Exponent and colour matrix of the whole picture: ten learned queries attend to its features (section 3.3)."""

    def __init__(self, channels=64, num_head=4):
        super().__init__()
        self.num_head = num_head
        self.embed = nn.Sequential(
            nn.Conv2d(3, channels // 2, 3, 2, 1), nn.BatchNorm2d(channels // 2), nn.GELU(),
            nn.Conv2d(channels // 2, channels, 3, 2, 1), nn.BatchNorm2d(channels))
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.q = nn.Parameter(torch.ones(1, 10, channels))
        self.k, self.v = nn.Linear(channels, channels, bias=False), nn.Linear(channels, channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.gamma_linear, self.color_linear = nn.Linear(channels, 1), nn.Linear(channels, 1)
        self.gamma_base, self.color_base = nn.Parameter(torch.ones(1)), nn.Parameter(torch.eye(3))

    def forward(self, x):
        """(n, 3, h, w) in [0, 1] -> exponent (n, 1) and colour matrix (n, 3, 3)."""
        x = self.embed(x)
        x = self.norm1((x + self.position(x)).flatten(2).transpose(1, 2))  # (n, h * w / 16, channels)
        q, k, v = (t.unflatten(2, (self.num_head, -1)).transpose(1, 2)
                   for t in (self.q.expand(len(x), -1, -1), self.k(x), self.v(x)))
        x = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # (n, 10, channels)
        x = x + self.mlp(self.norm2(x))
        gamma = self.gamma_linear(x[:, 0]) + self.gamma_base
        return gamma, self.color_linear(x[:, 1:]).view(-1, 3, 3) + self.color_base


@ARCH_REGISTRY.register()
class IAT(Baseline):
    """Factors and offsets for each value, then one colour matrix and one exponent for the picture (eq. 4).

    Args:
        num_feat (int): Width of the branch that works at full size. Default: 16.
    """

    def __init__(self, num_feat=16):
        super().__init__()
        self.stem = nn.Conv2d(3, num_feat, 3, padding=1)
        self.mul, self.add = (nn.Sequential(*[LocalBlock(num_feat) for _ in range(3)]) for _ in range(2))
        self.mul_end, self.add_end = nn.Conv2d(num_feat, 3, 3, padding=1), nn.Conv2d(num_feat, 3, 3, padding=1)
        self.shared = GlobalBranch()

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        features = F.leaky_relu(self.stem(x), 0.2)
        factor = self.mul_end(features + self.mul(features)).relu()
        offset = self.add_end(features + self.add(features)).tanh()
        gamma, color = self.shared(x)
        y = torch.einsum('nij,njhw->nihw', color, x * factor + offset)
        return y.clamp(1e-8, 1)**gamma.view(-1, 1, 1, 1)

    @staticmethod
    def convert(state_dict):
        """Rename the keys of the published weights; ValueError for others."""
        converted = {}
        for key, value in state_dict.items():
            key = key.removeprefix('module.')
            if not key.startswith(('local_net.', 'global_net.')):
                raise ValueError(f'unknown key {key!r}')
            for theirs, ours in NAMES:
                key = re.sub(theirs, ours, key)
            converted[key] = value
        return converted
