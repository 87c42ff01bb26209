"""PatchGAN discriminator.

Reference: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017.
"""
from torch import nn

from lowlight_cyclegan.registry import ARCH_REGISTRY

__all__ = ['PatchGANDiscriminator']


@ARCH_REGISTRY.register()
class PatchGANDiscriminator(nn.Module):
    """Judges overlapping patches (70x70 pixels with three layers) as real or fake.

    Args:
        num_in_ch (int): Input channels. Default: 3.
        num_feat (int): Channels of the first convolution, doubled in each further one up to eight times. Default: 64.
        num_layer (int): Number of stride-2 convolutions. Default: 3.
        norm (str): 'instance' (the paper) or 'none': InstanceNorm takes an image's brightness and contrast away, so
            that only a discriminator without it can judge exposure. Default: 'instance'.
    """

    def __init__(self, num_in_ch=3, num_feat=64, num_layer=3, norm='instance'):
        super().__init__()
        if norm not in ('instance', 'none'):
            raise ValueError(f"norm is 'instance' or 'none', got {norm!r}.")
        layers = [nn.Conv2d(num_in_ch, num_feat, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        in_ch = num_feat
        for i in range(1, num_layer + 1):
            out_ch = num_feat * min(2**i, 8)
            layers += [
                nn.Conv2d(in_ch, out_ch, 4, stride=2 if i < num_layer else 1, padding=1),
                nn.InstanceNorm2d(out_ch) if norm == 'instance' else nn.Identity(),
                nn.LeakyReLU(0.2, inplace=True)
            ]
            in_ch = out_ch
        layers.append(nn.Conv2d(in_ch, 1, 4, padding=1))
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                if norm == 'instance':
                    nn.init.normal_(layer.weight, 0.0, 0.02)  # CycleGAN's
                else:  # nothing rescales the activations
                    nn.init.kaiming_normal_(layer.weight, 0.2)
                nn.init.zeros_(layer.bias)
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        """(n, num_in_ch, h, w) in [-1, 1] -> logits (n, 1, h', w'); 256x256 gives 30x30."""
        return self.model(x)
