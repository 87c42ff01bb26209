"""Distance between an enhanced photograph and the photograph itself."""
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.registry import LOSS_REGISTRY

__all__ = ['PhotoLoss']


@LOSS_REGISTRY.register()
class PhotoLoss(nn.Module):
    """Mean absolute error of averages over 4x4 squares and of what is left within them, of mean chroma, and minus PSNR.

    Exposure is a matter of the averages, noise of the rest: in one absolute error, a picture that is too dark or too
    bright by more than its noise would hide the noise. The chroma keeps a network that is not sure of a hue from
    painting grey. PSNR, a logarithm, has what is nearly right become right: well exposed photographs stay as they are.

    Args:
        loss_weight (float): Weight of the whole. Default: 1.
        chroma_weight (float): Weight of the chroma within. Default: 0.3.
        psnr_weight (float): Weight of a decibel within. Default: 0.01.
    """

    def __init__(self, loss_weight=1.0, chroma_weight=0.3, psnr_weight=0.01):
        super().__init__()
        self.loss_weight, self.chroma_weight, self.psnr_weight = loss_weight, chroma_weight, psnr_weight

    def forward(self, pred, target):
        """Two pictures (n, 3, h, w) in [-1, 1], h and w multiples of 4 -> scalar."""
        coarse_pred, coarse_target = F.avg_pool2d(pred, 4), F.avg_pool2d(target, 4)
        coarse = coarse_pred - coarse_target
        fine = pred - target - F.interpolate(coarse, scale_factor=4)
        pixels = coarse.abs().mean() + fine.abs().mean()
        chroma = (_mean_chroma(coarse_pred) - _mean_chroma(coarse_target)).abs().mean()
        # Of the range 2, and at most 46 dB, so that what is exact already weighs no more.
        psnr = 10 * (4 / ((pred - target)**2).mean((1, 2, 3)).clamp_min(1e-4)).log10().mean()
        return self.loss_weight * (pixels + self.chroma_weight * chroma + self.psnr_weight * (46 - psnr))


def _mean_chroma(x):
    """(n, 3, h, w) -> (n,): mean length of the opponent colours red - green and yellow - blue."""
    red, green, blue = x.unbind(1)
    return ((red - green)**2 + ((red + green) / 2 - blue)**2 + 1e-4).sqrt().mean((1, 2))
