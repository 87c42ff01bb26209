"""Atrous spatial pyramid pooling at the end of a CycleGAN encoder.

Reference: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017.
"""
import torch
from torch import nn

from lowlight_cyclegan.registry import ARCH_REGISTRY

__all__ = ['ASPP', 'ASPPEncoder', 'conv_norm_relu', 'norm_layer', 'init_for_relu']


def norm_layer(norm, channels):
    """InstanceNorm without affine parameters (the CycleGAN default) for 'instance', the identity for None.

    The identity keeps the layers' numbers, so that weights have the same names with and without normalisation.

    Raises:
        ValueError: Another name.
    """
    if norm not in ('instance', None):
        raise ValueError(f"norm is 'instance' or None, got {norm!r}.")
    return nn.Identity() if norm is None else nn.InstanceNorm2d(channels)


def conv_norm_relu(conv, norm='instance'):
    """``conv`` followed by its normalisation and ReLU, as a list."""
    return [conv, norm_layer(norm, conv.out_channels), nn.ReLU(inplace=True)]


def init_for_relu(module):
    """Kaiming initialisation of the convolutions: without a norm, nothing else keeps the size of the features."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ASPP(nn.Module):
    """Parallel 1x1, dilated 3x3 and global-average branches, concatenated and projected back by a 1x1 convolution.

    NOTE: the pooled branch has no normalisation: InstanceNorm of a 1x1 map is zero in training and raises at batch 1.

    Args:
        channels (int): Input and output channels.
        width (int): Channels of each branch.
        dilations (Sequence[int]): Dilations of the 3x3 branches. The paper: (4, 8, 16).
        norm (str | None): 'instance', or None for convolutions with a bias instead. Default: 'instance'.
    """

    def __init__(self, channels, width, dilations=(4, 8, 16), norm='instance'):
        super().__init__()
        bias = norm is None  # a norm takes the mean away
        branches = [nn.Sequential(*conv_norm_relu(nn.Conv2d(channels, width, 1, bias=bias), norm))]
        for dilation in dilations:
            conv = nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation, bias=bias)
            branches.append(nn.Sequential(*conv_norm_relu(conv, norm)))
        self.branches = nn.ModuleList(branches)
        self.pool = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(inplace=True))
        self.project = nn.Sequential(
            *conv_norm_relu(nn.Conv2d((len(branches) + 1) * width, channels, 1, bias=bias), norm))

    def forward(self, x):
        """(n, c, h, w) -> (n, c, h, w)."""
        pooled = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])  # (n, width, h, w)
        return self.project(torch.cat([branch(x) for branch in self.branches] + [pooled], dim=1))


@ARCH_REGISTRY.register()
class ASPPEncoder(nn.Module):
    """Encoder of the generator: 7x7 convolution, two stride-2 convolutions and, at its end, ASPP.

    Usable by itself as a feature extractor at a quarter of the resolution.

    Args:
        num_in_ch (int): Input channels. Default: 3.
        num_feat (int): Channels after the first convolution; the output has four times as many. Default: 64.
        use_aspp (bool): Without it, this is the encoder of the original CycleGAN. Default: True.
        aspp_width (int | None): Channels of each ASPP branch; None means as many as the output. Default: None.
        aspp_dilations (Sequence[int]): Default: (4, 8, 16), the paper's.
        norm (str | None): 'instance', the paper's, or None: InstanceNorm takes an image's brightness away, so that
            only an encoder without it can judge exposure. Default: 'instance'.
    """

    def __init__(self,
                 num_in_ch=3,
                 num_feat=64,
                 use_aspp=True,
                 aspp_width=None,
                 aspp_dilations=(4, 8, 16),
                 norm='instance'):
        super().__init__()
        self.num_out_ch = num_feat * 4
        self.stem = nn.Sequential(nn.ReflectionPad2d(3), *conv_norm_relu(nn.Conv2d(num_in_ch, num_feat, 7), norm))
        self.down = nn.Sequential(
            *conv_norm_relu(nn.Conv2d(num_feat, num_feat * 2, 3, stride=2, padding=1), norm),
            *conv_norm_relu(nn.Conv2d(num_feat * 2, num_feat * 4, 3, stride=2, padding=1), norm))
        aspp_width = aspp_width or self.num_out_ch
        self.aspp = ASPP(self.num_out_ch, aspp_width, aspp_dilations, norm) if use_aspp else nn.Identity()
        if norm is None:
            init_for_relu(self)

    def forward(self, x):
        """(n, num_in_ch, h, w) -> (n, 4 * num_feat, h / 4, w / 4), h and w being multiples of 4."""
        return self.aspp(self.down(self.stem(x)))
