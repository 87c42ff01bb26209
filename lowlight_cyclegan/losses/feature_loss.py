"""Self-feature-preserving loss.

Reference: Jiang et al., "EnlightenGAN: Deep Light Enhancement without Paired Supervision", TIP 2021, section III-C.
"""
import torch
from basicsr.utils.registry import LOSS_REGISTRY
from copy import deepcopy
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.metrics.lpips_metric import build_lpips
from lowlight_cyclegan.registry import register_once

__all__ = ['SelfFeatureLoss']


@register_once(LOSS_REGISTRY)
class SelfFeatureLoss(nn.Module):
    """Mean squared distance between the features of an image and of its enhanced self, in a fixed trunk.

    InstanceNorm of the features takes most of the brightness out. The paper's are those of VGG16's first convolution
    at a stride of 16 pixels; the default here is AlexNet's first at that stride.

    Args:
        loss_weight (float): Default: 1.
        net (str): Trunk: 'alex', 'vgg' or 'squeeze'. Default: 'alex'.
        trunk (str): File of the trunk's weights in torchvision's layout. Default: None, torchvision's own download.
        layer (int): Group of layers of the trunk, as LPIPS counts them from 1. Default: 3.

    Raises:
        SystemExit: One line, for weights that cannot be had.
        ValueError: If the trunk has no such layer.
    """

    def __init__(self, loss_weight=1.0, net='alex', trunk=None, layer=3):
        super().__init__()
        self.loss_weight = loss_weight
        lpips = build_lpips(net, trunk)
        if layer not in range(1, lpips.L + 1):
            raise ValueError(f'layer is from 1 to {lpips.L} in {net}, got {layer!r}.')
        slices = (getattr(lpips.net, f'slice{i}') for i in range(1, layer + 1))
        self.features = deepcopy(nn.Sequential(lpips.scaling_layer, *slices))  # LPIPS itself is shared

    def forward(self, enhanced, low):
        """Two tensors (n, 3, h, w) in [-1, 1], h and w at least 48 -> scalar."""
        with torch.no_grad():
            target = F.instance_norm(self.features(low))
        return self.loss_weight * F.mse_loss(F.instance_norm(self.features(enhanced)), target)
