"""SCI: self-calibrated illumination.

Reference: Ma et al., "Toward Fast, Flexible, and Robust Low-Light Image Enhancement", CVPR 2022.
"""
from torch import nn

from lowlight_cyclegan.registry import ARCH_REGISTRY
from .baseline_arch import Baseline, rename

__all__ = ['SCI']


class Estimator(nn.Module):
    """What is added to the image to give its illumination: a stem, a residual block, a head with a sigmoid."""

    def __init__(self, num_feat=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, num_feat, 3, padding=1), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(num_feat, num_feat, 3, padding=1), nn.BatchNorm2d(num_feat), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2d(num_feat, 3, 3, padding=1), nn.Sigmoid())

    def forward(self, x):
        """(n, 3, h, w) -> the same shape, in [0, 1]."""
        x = self.stem(x)
        return self.head(x + self.block(x))


@ARCH_REGISTRY.register()
class SCI(Baseline):
    """Division by an illumination map of a tiny estimator; the calibration that trains it is not used afterwards."""

    def __init__(self):
        super().__init__()
        self.estimator = Estimator()

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range (eq. 1)."""
        return (x / (x + self.estimator(x)).clamp(1e-4, 1)).clamp(0, 1)

    @staticmethod
    def convert(state_dict):
        """Rename the keys of the published weights; ValueError for others.

        They list the estimator's shared block once for every time it is used, and hold the calibrator, which serves its
        training alone.
        """
        names = {'enhance.in_conv.0': 'estimator.stem.0', 'enhance.conv.0': 'estimator.block.0',
                 'enhance.conv.1': 'estimator.block.1', 'enhance.out_conv.0': 'estimator.head.0'}
        unused = ('enhance.blocks.', 'calibrate.')
        return rename({k: v for k, v in state_dict.items() if not k.removeprefix('module.').startswith(unused)}, names)
