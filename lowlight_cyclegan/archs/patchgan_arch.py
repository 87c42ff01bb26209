"""PatchGAN discriminator.

Reference: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017.
"""
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as normalize_spectrum

from lowlight_cyclegan.registry import register_once

__all__ = ['PatchGANDiscriminator']


@register_once(ARCH_REGISTRY)
class PatchGANDiscriminator(nn.Module):
    """Judges overlapping patches (70x70 pixels with three layers) as real or fake.

    Args:
        num_in_ch (int): Input channels. Default: 3.
        num_feat (int): Channels of the first convolution, doubled in each further one up to eight times. Default: 64.
        num_layer (int): Number of stride-2 convolutions. Default: 3.
        norm (str): 'instance' (the paper) or 'none': InstanceNorm takes an image's brightness and contrast away, so
            that only a discriminator without it can judge exposure. Default: 'instance'.
        spectral_norm (bool): Divide each convolution's weight by its largest singular value (Miyato et al., "Spectral
            Normalization for Generative Adversarial Networks", ICLR 2018). Default: False.
        num_scale (int): Networks of this design, each but the first on the images at half the size of the one before,
            by area (Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs",
            CVPR 2018, section 3.2). Default: 1.
    """

    def __init__(self, num_in_ch=3, num_feat=64, num_layer=3, norm='instance', spectral_norm=False, num_scale=1):
        super().__init__()
        if norm not in ('instance', 'none'):
            raise ValueError(f"norm is 'instance' or 'none', got {norm!r}.")
        if not isinstance(spectral_norm, bool):
            raise ValueError(f'spectral_norm is true or false, got {spectral_norm!r}.')
        if type(num_scale) is not int or num_scale < 1:
            raise ValueError(f'num_scale is a whole number of at least 1, got {num_scale!r}.')
        nets = [self._build(num_in_ch, num_feat, num_layer, norm, spectral_norm) for _ in range(num_scale)]
        self.model = nets[0]
        self.reduced = nn.ModuleList(nets[1:])

    @staticmethod
    def _build(num_in_ch, num_feat, num_layer, norm, spectral_norm):
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
                if spectral_norm:
                    normalize_spectrum(layer)
        return nn.Sequential(*layers)

    def forward(self, x):
        """(n, num_in_ch, h, w) in [-1, 1] -> logits (n, 1, h', w'), 256x256 gives 30x30; a list of them, the finest
        first, where num_scale is above 1."""
        if not self.reduced:
            return self.model(x)
        logits = [self.model(x)]
        for net in self.reduced:
            x = F.avg_pool2d(x, 2)
            logits.append(net(x))
        return logits
