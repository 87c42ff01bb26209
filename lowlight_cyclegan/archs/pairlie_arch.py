"""PairLIE: Retinex decomposition learned from pairs of low-light images.

Reference: Fu et al., "Learning a Simple Low-light Image Enhancer from Paired Low-light Instances", CVPR 2023.
"""
from torch import nn

from lowlight_cyclegan.registry import ARCH_REGISTRY
from .baseline_arch import Baseline, rename

__all__ = ['PairLIE']


def conv_net(num_feat, num_out_ch):
    """Five 3x3 convolutions on mirrored borders, with ReLU between them and a sigmoid at the end."""
    widths, layers = [3, *[num_feat] * 4, num_out_ch], []
    for in_ch, out_ch in zip(widths, widths[1:]):
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(in_ch, out_ch, 3), nn.ReLU()]
    return nn.Sequential(*layers[:-1], nn.Sigmoid())


@ARCH_REGISTRY.register()
class PairLIE(Baseline):
    """A projection that takes noise away, then reflectance times a power of illumination (section 3).

    Args:
        num_feat (int): Width. Default: 64.
        power (float): Exponent of the illumination; the authors take 0.14 for LOL, 0.2 elsewhere. Default: 0.14.
    """

    def __init__(self, num_feat=64, power=0.14):
        super().__init__()
        self.power = power
        self.projection, self.reflectance = conv_net(num_feat, 3), conv_net(num_feat, 3)
        self.illumination = conv_net(num_feat, 1)

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        x = self.projection(x)
        return self.illumination(x)**self.power * self.reflectance(x)

    @staticmethod
    def convert(state_dict):
        """Rename the keys of the published weights; ValueError for others."""
        names = {'L_net': 'illumination', 'R_net': 'reflectance', 'N_net': 'projection'}
        layers = (1, 4, 7, 10, 13)
        return rename(state_dict, {f'{net}.{net}.{i}': f'{ours}.{i}' for net, ours in names.items() for i in layers})
