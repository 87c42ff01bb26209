"""Zero-DCE.

Reference: Guo et al., "Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement", CVPR 2020.
"""
import torch
from torch import nn

from lowlight_cyclegan.registry import ARCH_REGISTRY
from .baseline_arch import Baseline, rename

__all__ = ['ZeroDCE']


@ARCH_REGISTRY.register()
class ZeroDCE(Baseline):
    """Seven convolutions with symmetric concatenation (DCE-Net) give a curve a pixel, channel and iteration.

    Args:
        num_feat (int): Width. Default: 32.
        num_iter (int): How often the curve is applied. Default: 8.
    """

    def __init__(self, num_feat=32, num_iter=8):
        super().__init__()
        self.num_iter = num_iter
        in_chs = [3, *[num_feat] * 3, *[2 * num_feat] * 3]
        out_chs = [*[num_feat] * 6, 3 * num_iter]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in zip(in_chs, out_chs))

    def curves(self, x):
        """(n, 3, h, w) in [0, 1] -> curve parameters A in [-1, 1], (n, num_iter, 3, h, w)."""
        features = []
        for conv in self.convs[:4]:
            x = conv(x).relu()
            features.append(x)
        for conv, skip in zip(self.convs[4:6], features[2::-1]):
            x = conv(torch.cat([skip, x], dim=1)).relu()
        maps = self.convs[6](torch.cat([features[0], x], dim=1)).tanh()
        return maps.unflatten(1, (self.num_iter, 3))

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range (eq. 4: LE = LE + A LE (1 - LE))."""
        for curve in self.curves(x).unbind(1):
            x = x - curve * x * (1 - x)  # NOTE the published weights give -A
        return x

    @staticmethod
    def convert(state_dict):
        """Rename the keys of the published weights (``e_conv1.weight`` ...); ValueError for others."""
        return rename(state_dict, {f'e_conv{i + 1}': f'convs.{i}' for i in range(7)})
