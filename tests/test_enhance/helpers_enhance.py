"""A toy generator, pictures and a measure, for the tests of this folder."""
import math
import torch
from torch.nn import functional as F

from lowlight_cyclegan.archs import EMAResNetGenerator


def build(**options):
    """A generator whose every part has an effect on the output."""
    torch.manual_seed(0)
    net = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, aspp_width=8, **options).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    return net.requires_grad_(False)


def picture(h, w, n=1):
    """Dark, with structure at two scales, in [-1, 1]."""
    generator = torch.Generator().manual_seed(h * w)
    coarse = F.interpolate(torch.rand(n, 3, 6, 8, generator=generator), (h, w), mode='bicubic').clamp(0, 1)
    return coarse * 0.5 - 1 + torch.rand(n, 3, h, w, generator=generator) * 0.05


def psnr(a, b):
    return -10 * math.log10(max((a.double() - b.double()).square().mean().item() / 4, 1e-30))
