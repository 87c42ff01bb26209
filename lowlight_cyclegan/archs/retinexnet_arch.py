"""RetinexNet.

Reference: Wei et al., "Deep Retinex Decomposition for Low-Light Enhancement", BMVC 2018.
"""
import torch
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.registry import ARCH_REGISTRY
from .baseline_arch import Baseline, rename

__all__ = ['RetinexNet']


def conv(in_ch, out_ch, kernel=3, stride=1):
    return nn.Conv2d(in_ch, out_ch, kernel, stride=stride, padding=kernel // 2, padding_mode='replicate')


class Relight(nn.Module):
    """Enhance-Net: encoder and decoder whose scales are brought together before the last layer (section 2.2)."""

    def __init__(self, num_feat):
        super().__init__()
        self.first = conv(4, num_feat)
        self.down = nn.ModuleList(conv(num_feat, num_feat, stride=2) for _ in range(3))
        self.up = nn.ModuleList(conv(2 * num_feat, num_feat) for _ in range(3))
        self.fuse = conv(3 * num_feat, num_feat, 1)
        self.last = conv(num_feat, 1)

    def forward(self, x):
        """(n, 4, h, w), reflectance and illumination -> illumination (n, 1, h, w)."""
        x = self.first(x)
        skips, scales = [], []
        for down in self.down:
            skips.append(x)
            x = down(x).relu()
        for up, skip in zip(self.up, reversed(skips)):
            x = up(torch.cat([F.interpolate(x, skip.shape[2:]), skip], dim=1)).relu()
            scales.append(x)
        scales = [F.interpolate(scale, x.shape[2:]) for scale in scales]
        return self.last(self.fuse(torch.cat(scales, dim=1)))


@ARCH_REGISTRY.register()
class RetinexNet(Baseline):
    """Reflectance and illumination (Decom-Net), and a brighter illumination for the same reflectance (Enhance-Net).

    The BM3D denoising of the reflectance that the paper describes is not part of the published networks, nor of this.

    Args:
        num_feat (int): Width. Default: 64.
    """

    def __init__(self, num_feat=64):
        super().__init__()
        layers = [conv(4, num_feat, 9)]
        for _ in range(5):
            layers += [conv(num_feat, num_feat), nn.ReLU()]
        self.decompose = nn.Sequential(*layers, conv(num_feat, 4))
        self.relight = Relight(num_feat)

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        x = torch.cat([x.amax(1, keepdim=True), x], dim=1)
        decomposition = self.decompose(x).sigmoid()  # reflectance (3 channels) and illumination (1)
        return (decomposition[:, :3] * self.relight(decomposition)).clamp(0, 1)

    @staticmethod
    def convert(state_dict):
        """Rename the keys of the PyTorch port's two files, taken together; ValueError for others."""
        names = {'net1_conv0': 'decompose.0', 'net1_recon': 'decompose.11',
                 'net2_conv0_1': 'relight.first', 'net2_fusion': 'relight.fuse', 'net2_output': 'relight.last'}
        names.update({f'net1_convs.{2 * i}': f'decompose.{2 * i + 1}' for i in range(5)})
        for i in range(3):
            names[f'net2_conv1_{i + 1}'] = f'relight.down.{i}'
            names[f'net2_deconv1_{i + 1}'] = f'relight.up.{i}'
        return rename(state_dict, names)
