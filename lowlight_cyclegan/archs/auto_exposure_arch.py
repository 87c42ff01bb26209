"""One tone curve for the whole image, predicted from a thumbnail: head 'gain' of the generator."""
import torch
from torch import nn
from torch.nn import functional as F
from typing import NamedTuple

__all__ = ['AutoExposure', 'ToneCurve']

THUMBNAIL = (64, 96)  # height and width


class ToneCurve(NamedTuple):
    """Curves of n images: y = mean * balance * u / average(u) with u = (x + half a grey level)^power.

    Attributes:
        mean (Tensor): Mean brightness of the result, (n, 1, 1, 1), around [0, 1].
        power (Tensor): Exponent, (n, 1, 1, 1).
        balance (Tensor): White balance, (n, 3, 1, 1), its geometric mean being 1.
    """
    mean: torch.Tensor
    power: torch.Tensor
    balance: torch.Tensor


class AutoExposure(nn.Module):
    """Tone curve of the whole image, y = m w_c u / mean(u) with u = x^p: structure and hues are kept by construction.

    The mean brightness m, the exponent p and a white balance w are predicted from a thumbnail, near constants that
    describe the domain of the output. Dividing by the mean takes the input's exposure out.

    Args:
        mean (float): Mean brightness to start from, in [0, 1].
        power (float): Exponent to start from: below 1 lifts shadows.
        limit (float): Largest change of the logarithms of m, p and w. Default: 0.3.
        width (int): Channels of the first convolution of the predictor. Default: 16.
    """

    def __init__(self, mean, power, limit=0.3, width=16):
        super().__init__()
        self.mean, self.power, self.limit = mean, power, limit
        layers, channels = [], [3, width, 2 * width, 2 * width, 2 * width]
        for in_ch, out_ch in zip(channels, channels[1:]):
            layers += [nn.Conv2d(in_ch, out_ch, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.predictor = nn.Sequential(*layers)
        self.linear = nn.Linear(2 * width, 5)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def thumbnail(self, x):
        """(n, 3, h, w) in [0, 1] -> (n, 3, 64, 96), averages over areas, in the parameters' type."""
        with torch.autocast(x.device.type, enabled=False):
            return F.interpolate(x.to(self.linear.weight.dtype), THUMBNAIL, mode='area')

    def predict(self, thumbnail):
        """Thumbnail, (n, 3, 64, 96) in [0, 1] -> :class:`ToneCurve`."""
        with torch.autocast(thumbnail.device.type, enabled=False):
            start = self.expose(thumbnail, (2.0, self.power, 1.0)) - 2.0  # as the curve starts, centred on 0
            logs = self.linear(self.predictor(start).mean((2, 3)))
            logs = self.limit * torch.tanh(logs / self.limit)  # (n, 5)
            mean, power = (v.view(-1, 1, 1, 1).exp() for v in logs[:, :2].unbind(1))
            balance = (logs[:, 2:] - logs[:, 2:].mean(1, keepdim=True)).exp().view(-1, 3, 1, 1)
            return ToneCurve(self.mean * mean, self.power * power, balance)

    def expose(self, x, curve):
        """(n, 3, h, w) in [0, 1] and its :class:`ToneCurve` -> the same shape, from 0, not bounded above."""
        with torch.autocast(x.device.type, enabled=False):
            mean, power, balance = curve
            u = self.brighten(x.to(self.linear.weight.dtype), power)
            return mean * balance * u / u.mean((1, 2, 3), keepdim=True)

    @staticmethod
    def brighten(x, power):
        """(x + half a grey level)^power, for x in [0, 1]: the power's slope at zero stays finite."""
        return (x + 0.5 / 255)**power

    def forward(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape, from 0, not bounded above."""
        return self.expose(x, self.predict(self.thumbnail(x)))
