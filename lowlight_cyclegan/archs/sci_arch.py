"""SCI: self-calibrated illumination.

Reference: Ma et al., "Toward Fast, Flexible, and Robust Low-Light Image Enhancement", CVPR 2022.
"""
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from lowlight_cyclegan.registry import register_once
from .baselines import Baseline, rename

__all__ = ['SCI', 'convert_sci']


def convert_sci(state_dict):
    """Rename the keys of the published weights; ValueError for others.

    They list the shared block of each of the two networks once for every time it is used.
    """
    names = {'enhance.in_conv.0': 'estimator.stem.0', 'enhance.conv.0': 'estimator.block.0',
             'enhance.conv.1': 'estimator.block.1', 'enhance.out_conv.0': 'estimator.head.0',
             'calibrate.in_conv.0': 'calibrator.stem.0', 'calibrate.in_conv.1': 'calibrator.stem.1',
             'calibrate.out_conv.0': 'calibrator.head.0'}
    names.update({f'calibrate.convs.{i}': f'calibrator.block.{i}' for i in (0, 1, 3, 4)})
    shared = ('enhance.blocks.', 'calibrate.blocks.')
    return rename({k: v for k, v in state_dict.items() if not k.removeprefix('module.').startswith(shared)}, names)


def conv_bn_relu(in_ch, out_ch):
    return [nn.Conv2d(in_ch, out_ch, 3, padding=1), nn.BatchNorm2d(out_ch), nn.ReLU()]


class _SharedBlockNet(nn.Module):
    """Stem, one residual block used ``num_use`` times, head with a sigmoid."""

    def __init__(self, stem, block, num_feat, num_use):
        super().__init__()
        self.stem, self.block, self.num_use = nn.Sequential(*stem), nn.Sequential(*block), num_use
        self.head = nn.Sequential(nn.Conv2d(num_feat, 3, 3, padding=1), nn.Sigmoid())

    def forward(self, x):
        x = self.stem(x)
        for _ in range(self.num_use):
            x = x + self.block(x)
        return self.head(x)


@register_once(ARCH_REGISTRY)
class SCI(Baseline):
    """Illumination from a tiny estimator; the calibration by which it is trained in stages is not used afterwards.

    Args:
        num_feat (int): Width of the calibrator. Default: 16.
        num_stage (int): Stages in training, at least 2 for the calibrator to learn. Default: 3.
        load_path (str): The authors' weights (easy, medium or difficult). Default: None.
    """

    convert = staticmethod(convert_sci)

    def __init__(self, num_feat=16, num_stage=3, load_path=None):
        super().__init__()
        self.num_stage = num_stage
        self.estimator = _SharedBlockNet([nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()], conv_bn_relu(3, 3), 3, 1)
        self.calibrator = _SharedBlockNet(
            conv_bn_relu(3, num_feat), conv_bn_relu(num_feat, num_feat) + conv_bn_relu(num_feat, num_feat), num_feat, 3)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                nn.init.zeros_(module.bias)
        if load_path is not None:
            self.load_published(load_path)

    def illumination(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape, in [1e-4, 1] (eq. 1)."""
        return (x + self.estimator(x)).clamp(1e-4, 1)

    def stages(self, x):
        """The calibrated inputs and illuminations of all stages (eqs. 2 and 3): [(v, illumination of v), ...]."""
        stages = [(x, self.illumination(x))]
        for _ in range(self.num_stage - 1):
            z = (x / stages[-1][1]).clamp(0, 1)
            v = x + z - self.calibrator(z)
            stages.append((v, self.illumination(v)))
        return stages

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        return (x / self.illumination(x)).clamp(0, 1)

    def enhance_for_loss(self, x):
        """As :meth:`enhance`, by the first stage, and (all stages, ) for ``SCILoss``."""
        stages = self.stages(x)
        return (x / stages[0][1]).clamp(0, 1), (stages, )
