"""Exposure in linear light, predicted from a thumbnail and applied at any size: head 'exposure' of the generator.

A dark photograph is, to a good approximation, a bright one whose linear light was divided by a constant, or by a
constant that varies over the scene. The head predicts that constant in stops, for the picture and on a bilateral grid
(places and levels of brightness), with a power, a shoulder that keeps highlights, and the balance between curving each
channel by itself and scaling all three alike. It starts from the rule that is hard to beat on evenly dark photographs,
one gain that brings the mean brightness to 0.45, and learns how far to follow it. How far the brightest pixels are from
white says most about that: the quantiles of brightness are judged beside the picture. What the gain lifts with the
picture, noise, is then reduced by a small network that knows the local gain.

References:
    Chen, Paris and Durand, "Real-time Edge-Aware Image Processing with the Bilateral Grid", SIGGRAPH 2007: the grid.
    Gharbi et al., "Deep Bilateral Learning for Real-Time Image Enhancement", SIGGRAPH 2017: one that is predicted.
    Zhang et al., "FFDNet: Toward a Fast and Flexible Solution for CNN based Image Denoising", TIP 2018: denoising at
        a reduced resolution, told how strong the noise is.
"""
import math
import torch
from torch import nn
from torch.nn import functional as F
from typing import NamedTuple

from .srgb import from_linear, to_linear

__all__ = ['ExposureCurves', 'ExposureHead', 'exposure_gain']

THUMBNAIL = 64  # height and width of what the prediction looks at
DARKEST = 1 / 255  # keeps logarithms of brightness finite
LEVELS = 5.545  # log((1 + DARKEST) / DARKEST), the range of these logarithms
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)
# Brightness at which half is left of the picture's exposure, and of what places add: what is darker is lost in the
# steps of 8 bits, and a night sky stays black.
FLOOR, LOCAL_FLOOR = 1.5 / 255, 10 / 255
LARGEST = 4  # stops that places add or take, so that learning cannot undo LOCAL_FLOOR
TILE = 640  # side of what is computed at a time where no gradients are needed
PIXELS = ((0, 0), (0, 1), (1, 0), (1, 1))  # of a block: row and column, the order of F.pixel_shuffle's channels


def exposure_gain(x, target=0.45):
    """Stops of the one exposure gain: the factor in linear light, at least 1, that brings the mean to a target.

    Args:
        x (Tensor): (n, 3, h, w) in [0, 1], sRGB.
        target (float): Mean of the clipped sRGB values over pixels and channels. Default: 0.45.

    Returns:
        Tensor: (n, 1, 1, 1), from 0 to 9 stops.
    """
    light = to_linear(x)
    low = x.new_zeros(x.shape[0], 1, 1, 1)  # not len(x): an exporter would keep that number
    high = low + 9
    for _ in range(16):  # to 1/7000 stop
        middle = (low + high) / 2
        dark = from_linear((light * torch.exp2(middle)).clamp_max(1)).mean((1, 2, 3), keepdim=True) < target
        low, high = torch.where(dark, middle, low), torch.where(dark, high, middle)
    return low


def brightness_statistics(x, gain):
    """How bright a picture is, in stops: (n, 3, h, w) in [0, 1], sRGB -> (n, 13), each around [-1, 1].

    Quantiles of the brightest channel's linear light, its :func:`exposure_gain`, mean and deviation of the luminance.
    """
    light = to_linear(x)
    ordered = light.amax(1).flatten(1).clamp_min(1e-5).log2().sort(1)[0]
    last = ordered.shape[1] - 1
    quantiles = torch.stack([ordered[:, int(share * last)] for share in QUANTILES], dim=1)
    luminance = light.mean(1).flatten(1).clamp_min(1e-5).log2()
    mean, deviation = luminance.mean(1, keepdim=True), luminance.std(1, keepdim=True)
    return torch.cat([quantiles / 4 + 1, gain.flatten(1) / 4 - 1, mean / 4 + 1, deviation / 2 - 0.5], dim=1)


class ExposureCurves(NamedTuple):
    """What is predicted of n pictures, free of their size; means of two predictions are predictions.

    Attributes:
        picture (Tensor): Stops of the whole picture, and its power, shoulder and mix before they are bounded, (n, 4).
        grid (Tensor): What places add: stops at each level of brightness, then power, shoulder and mix,
            (n, levels + 3, rows, columns).
    """
    picture: torch.Tensor
    grid: torch.Tensor


class ExposureHead(nn.Module):
    """Predicts :class:`ExposureCurves` from the features of a thumbnail and applies them to the picture.

    Black stays black and white stays white whatever is predicted; ``strength`` 0 is the identity.

    Args:
        channels (int): Channels of the features.
        levels (int): Levels of brightness of the grid. Default: 6.
        width (int): Channels of the convolutions against noise. Default: 32.
    """

    def __init__(self, channels, levels=6, width=32):
        super().__init__()
        self.levels = levels
        self.reduce = nn.Sequential(nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.LeakyReLU(0.2))
        summary, hidden = 2 * channels + len(QUANTILES) + 3, 64
        self.statistics = nn.Sequential(
            nn.Linear(len(QUANTILES) + 3, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2),
            nn.Linear(hidden, 5))
        self.picture = nn.Sequential(nn.Linear(summary, channels), nn.LeakyReLU(0.2), nn.Linear(channels, 5))
        self.grid = nn.Sequential(
            nn.Conv2d(channels + summary, channels, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(channels, levels + 3, 3, padding=1))
        # Sees blocks of 2x2 pixels with their gain, at half their resolution: blocks of 4x4 pixels.
        self.denoiser = nn.Sequential(
            nn.Conv2d(13, width, 4, stride=2, padding=1), nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(width, 60, 1))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, 0.2)
                nn.init.zeros_(module.bias)
        for last in (self.statistics[-1], self.picture[-1], self.grid[-1], self.denoiser[-1]):
            nn.init.zeros_(last.weight)
        nn.init.constant_(self.denoiser[-1].bias[48:], -3)  # at first hardly 5 %

    def thumbnail(self, x):
        """(n, 3, h, w) in [-1, 1], or uint8 -> (n, 3, 64, 64) in [0, 1], averages over areas."""
        dtype, (h, w) = self.picture[0].weight.dtype, x.shape[2:]
        with torch.autocast(x.device.type, enabled=False):
            rows, columns = (area_weights(size, self.picture[0].weight) for size in (h, w))
            if torch.is_grad_enabled() or torch.compiler.is_compiling() or h * w <= TILE**2:
                small = rows @ x.to(dtype)
            else:  # of a large picture only the rows that an area covers are looked at, and converted
                edges = [i * h / THUMBNAIL for i in range(THUMBNAIL + 1)]
                bands = [slice(int(top), math.ceil(bottom)) for top, bottom in zip(edges, edges[1:])]
                small = torch.stack([row[band] @ x[:, :, band].to(dtype) for row, band in zip(rows, bands)], dim=2)
            return _to_unit(small @ columns.T, x.dtype).clamp(0, 1)

    @staticmethod
    def encoder_input(thumbnail):
        """Thumbnail -> :func:`exposure_gain` and :func:`brightness_statistics` of it, and what the encoder sees.

        The last, (n, 7, 64, 64), are the thumbnail under that gain, its logarithm, and the gain.
        """
        with torch.no_grad(), torch.autocast(thumbnail.device.type, enabled=False):
            gain = exposure_gain(thumbnail.clamp(0, 1))
            exposed = from_linear((to_linear(thumbnail) * torch.exp2(gain)).clamp(0, 1))
            logarithm = (thumbnail + DARKEST).log() / 2.7 + 1
            planes = (gain / 4.5 - 1).expand(-1, 1, *thumbnail.shape[2:])
            seen = torch.cat([exposed * 2 - 1, logarithm, planes], dim=1)
            return gain, brightness_statistics(thumbnail, gain), seen

    def predict(self, gain, statistics, features):
        """The thumbnail's gain and statistics, and its features, (n, channels, h, w) -> :class:`ExposureCurves`."""
        places = self.reduce(features)  # (n, channels, h / 2, w / 2)
        summary = torch.cat([places.mean((2, 3)), places.amax((2, 3)), statistics.to(places.dtype)], dim=1)
        everywhere = summary[:, :, None, None].expand(-1, -1, *places.shape[2:])
        grid = self.grid(torch.cat([places, everywhere], dim=1))
        dtype = torch.promote_types(grid.dtype, torch.float32)
        with torch.autocast(grid.device.type, enabled=False):
            picture = self.picture(summary.to(dtype)) + self.statistics(statistics)
        picture, follow = picture.split([4, 1], dim=1)
        stops = 2 * picture[:, :1] + torch.sigmoid(2 * follow + 1) * gain.flatten(1)  # at first 0.73 of the rule
        local, rest = grid.to(dtype).split([self.levels, 3], dim=1)
        local = LARGEST * torch.tanh(local / LARGEST)
        return ExposureCurves(torch.cat([stops, picture[:, 1:]], dim=1), torch.cat([local, rest], dim=1))

    def apply(self, x, curves, strength=1.0):
        """The picture under its curves. (With a function in the place of x it is ``nn.Module.apply``.)

        Without gradients it is computed in tiles, with the same result in bounded memory.

        Args:
            x (Tensor): (n, 3, h, w) in [-1, 1], or uint8 in [0, 255].
            curves (ExposureCurves): :meth:`predict` of it.
            strength (float): Factor of stops, of the logarithm of the power, of the shoulder and of the denoising. 0
                leaves x as it is, above 1 exaggerates. Default: 1.

        Returns:
            Tensor: (n, 3, h, w), like x.
        """
        if callable(x):
            return super().apply(x)
        h, w = x.shape[2:]
        # Curves are computed on blocks of 2x2 pixels, which share theirs, noise is judged on blocks of 4x4.
        rows, columns = (spline_weights((size + -size % 4) // 2, knots, curves.grid)
                         for size, knots in zip((h, w), curves.grid.shape[2:]))
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            blocks = self._apply_to_blocks(x, curves.picture, rows @ curves.grid @ columns.T, strength)
            return F.pixel_shuffle(blocks, 2)[:, :, :h, :w].to(x.dtype if x.dtype == torch.uint8 else blocks.dtype)
        # glibc keeps as much freed memory at hand as suits the largest block so far, up to 32 MB. With less, the
        # temporaries of each tile go back to the system and are faulted in anew, which takes a fifth of the time.
        torch.empty(31 * 2**20, dtype=torch.uint8)
        margin = 12  # blocks beyond a tile that its own depend on: six for the convolutions, six for the mean
        y = x.new_empty(x.shape, dtype=x.dtype if x.dtype == torch.uint8 else curves.grid.dtype)
        for top in range(0, h, TILE):
            first, last = max(0, top // 2 - margin), (top + TILE) // 2 + margin
            grid = rows[first:last] @ curves.grid
            for left in range(0, w, TILE):
                start, stop = max(0, left // 2 - margin), (left + TILE) // 2 + margin
                blocks = self._apply_to_blocks(x[:, :, 2 * first:2 * last, 2 * start:2 * stop], curves.picture,
                                               grid @ columns[start:stop].T, strength)
                blocks = blocks[:, :, top // 2 - first:, left // 2 - start:]
                for i, j in PIXELS:  # several times as fast as F.pixel_shuffle
                    pixels = y[:, :, top + i:top + TILE:2, left + j:left + TILE:2]
                    pixels.copy_(blocks[:, 2 * i + j::4, :pixels.shape[2], :pixels.shape[3]])
        return y

    def _apply_to_blocks(self, x, picture, grid, strength):
        """(n, 3, h, w) in [-1, 1], or uint8 -> (n, 12, h / 2, w / 2), h and w rounded up to 4, in the range of x.

        The channels are red of the four pixels of a block, then green and blue.
        """
        dtype, (h, w) = x.dtype, x.shape[2:]
        with torch.autocast(x.device.type, enabled=False):
            if h % 4 or w % 4:
                x = F.pad(x.to(grid.dtype), (0, -w % 4, 0, -h % 4), mode='replicate').to(dtype)
            blocks = torch.stack([x[:, :, i::2, j::2] for i, j in PIXELS], dim=2).flatten(1, 2)
            if dtype == torch.uint8:  # a table of the 256 values
                table = to_linear(torch.arange(256, dtype=grid.dtype, device=x.device) / 255)
                light = table.index_select(0, blocks.flatten().int()).view(blocks.shape)
                blocks = blocks.to(grid.dtype) / 255
            else:
                blocks = _to_unit(blocks, dtype)
                light = to_linear(blocks)
            stops, power, shoulder, mix = self._curves_of_blocks(blocks, picture, grid, strength)
            blocks = self._expose(light, stops, power, shoulder, mix)
        blocks = self._denoise(blocks, stops, strength)
        return (blocks * 255).round_() if dtype == torch.uint8 else blocks * 2 - 1

    def _curves_of_blocks(self, blocks, picture, grid, strength):
        """(n, 1, h / 2, w / 2) each: stops, power, width of the shoulder in [0, 0.7) and mix in (0, 1)."""
        luminance = blocks.mean(1, keepdim=True)
        level = ((luminance + DARKEST).log() / LEVELS + 1).clamp(0, 1) * (self.levels - 1)
        picture = picture[:, :, None, None]
        local = sum((1 - (level - k).abs()).clamp_min(0) * grid[:, k:k + 1] for k in range(self.levels))
        stops = picture[:, :1] * (luminance / (luminance + FLOOR)) + local * (luminance / (luminance + LOCAL_FLOOR))
        power, shoulder, mix = (picture[:, 1:] + grid[:, self.levels:]).split(1, dim=1)
        return (strength * stops.clamp(-2, 10), torch.exp(strength * 0.6 * torch.tanh(power)),
                min(strength, 1) * 0.7 * torch.sigmoid(-shoulder - 3), torch.sigmoid(mix))

    @staticmethod
    def _expose(light, stops, power, shoulder, mix):
        """Curve in linear light v: t = 2^stops v^power below the knee; above, a hyperbola that ends in white at v = 1.

        The hyperbola k + (t - k) / (1 + c (t - k)) continues t with its slope at the knee k; c puts its end at 1. The
        channels are those of the blocks, (n, 12, h, w): linear light in [0, 1] -> sRGB in [0, 1].
        """
        t = light * light.clamp_min(1e-6).log2().mul(power - 1).add_(stops).exp2_()  # 0 stays 0
        white = torch.exp2(stops)  # t of v = 1
        knee = (1 - shoulder) * white.clamp_max(1)
        bend = 1 / (1 - knee).clamp_min(1e-6) - 1 / (white - knee).clamp_min(1e-6)
        above = (t - knee).clamp_min_(0)
        each = torch.minimum(t, knee) + above / (bend * above).add_(1)
        colours = light.unflatten(1, (3, 4))
        highest = colours.amax(1, keepdim=True).clamp_min(1e-6)  # of the three channels of a pixel
        alike = colours * (each.unflatten(1, (3, 4)).amax(1, keepdim=True) / highest)
        return from_linear(torch.lerp(each, alike.flatten(1, 2), mix))

    def _denoise(self, blocks, stops, strength):
        """Noise was lifted by the gain: the picture is replaced by a smooth one, by the shares that the network finds.

        No more than 1 - 2^-stops of it, which is nothing at 0 stops, and nothing where the surroundings are black or
        white. Brightness is the curves' alone: the mean change over 20x20 pixels is taken off.
        """
        around = F.avg_pool2d(blocks.mean(1, keepdim=True), 3, 1, 1, count_include_pad=False)
        share = min(strength, 1) * (1 - torch.exp2(-stops.clamp_min(0))) * (20 * around * (1 - around)).clamp(0, 1)
        seen = torch.cat([blocks - 0.5, stops / 4], dim=1)
        if not torch.compiler.is_compiling():
            seen = seen.contiguous(memory_format=torch.channels_last)  # faster on CPUs
        # Of each block of 4x4 pixels 48 values and 12 shares: of each block of 2x2 pixels 12, and 3 of the colours.
        found = F.pixel_shuffle(self.denoiser(seen).to(blocks.dtype), 2)
        if not torch.is_grad_enabled():
            found = found.contiguous()  # what follows is faster in one layout
        colours = blocks.unflatten(1, (3, 4))
        smooth = found[:, :12].unflatten(1, (3, 4)) + _twice(F.avg_pool2d(colours.mean(2), 2)).unsqueeze(2)
        change = ((smooth - colours) * torch.sigmoid(found[:, 12:]).unsqueeze(2)).flatten(1, 2)
        mean = F.avg_pool2d(change.mean(1, keepdim=True), 2)
        change = change - _twice(F.avg_pool2d(mean, 5, 1, 2, count_include_pad=False))
        return torch.addcmul(blocks, share, change).clamp(0, 1)


def _twice(x):
    """Twice the height and width, bilinear."""
    return F.interpolate(x, scale_factor=2, mode='bilinear')


def _to_unit(values, dtype):
    """Values of a picture of a type, uint8 or in [-1, 1], to [0, 1]."""
    return values / 255 if dtype == torch.uint8 else (values + 1) / 2


def area_weights(size, like, out=THUMBNAIL):
    """Matrix (out, size) that averages ``size`` pixels over ``out`` equal areas."""
    edges = torch.arange(out + 1, dtype=like.dtype, device=like.device) * (size / out)
    pixels = torch.arange(size, dtype=like.dtype, device=like.device)
    overlap = torch.minimum(pixels + 1, edges[1:, None]) - torch.maximum(pixels, edges[:-1, None])
    return overlap.clamp_min(0) * (out / size)


def spline_weights(size, knots, like):
    """Matrix (size, knots) that interpolates ``size`` pixels between equally spaced knots by a cubic B-spline."""
    place = (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) * (knots / size) - 0.5
    knot = torch.arange(-1, knots + 1, dtype=like.dtype, device=like.device)
    distance = (place[:, None] - knot).abs()
    weights = torch.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, (2 - distance).clamp_min(0)**3 / 6)
    # The knots beyond the edges repeat those at the edges.
    first, last = weights[:, :1] + weights[:, 1:2], weights[:, -2:-1] + weights[:, -1:]
    weights = torch.cat([first, weights[:, 2:-2], last], dim=1)
    return weights / weights.sum(1, keepdim=True)
