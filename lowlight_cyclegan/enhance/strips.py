"""Mode exact: a generator run layer by layer in strips that share the statistics of the whole picture, without a seam.

The generator's normalisations, its attention, the pool of its ASPP and its exposure take statistics of the whole image.
Tiles that are enhanced one by one have other statistics: they differ in colour and meet in seams. Here each statistic
is gathered over all strips before the layer that needs it runs.
"""
from __future__ import annotations

import math
import torch
from collections.abc import Callable, Iterable
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_cyclegan.archs.aspp_arch import ASPP
from lowlight_cyclegan.archs.auto_exposure_arch import THUMBNAIL
from lowlight_cyclegan.archs.ema_resnet_arch import EMA, EMAResidualBlock, EMAResNetGenerator

__all__ = ['enhance_exact']

TILE = 512


class _Rows:
    """A feature map that is read a few rows at a time and need not exist as a whole.

    Args:
        shape: (n, c, h, w).
        strips: Number of strips that a pass over the map is cut into.
        read: read(top, bottom) gives the rows top <= row < bottom as a tensor (n, c, bottom - top, w).
    """

    def __init__(self, shape: Iterable[int], strips: int, read: Callable[[int, int], Tensor]):
        self.shape, self.strips, self.read = tuple(shape), strips, read

    @classmethod
    def of(cls, tensor: Tensor, strips: int) -> _Rows:
        return cls(tensor.shape, strips, lambda top, bottom: tensor[:, :, top:bottom])

    def bounds(self) -> list[tuple[int, int]]:
        """(top, bottom) of the strips."""
        h = self.shape[2]
        edges = [h * i // self.strips for i in range(self.strips + 1)]
        return [(top, bottom) for top, bottom in zip(edges, edges[1:]) if top < bottom]

    def map(self, function: Callable[[Tensor, int, int], Tensor], shape: Iterable[int] | None = None) -> _Rows:
        """Pointwise: ``function(rows, top, bottom)`` of the rows' values."""
        return _Rows(shape or self.shape, self.strips,
                     lambda top, bottom: function(self.read(top, bottom), top, bottom))

    def store(self, out: Tensor | None = None) -> _Rows:
        """The same map, computed and kept in memory."""
        for top, bottom in self.bounds():
            rows = self.read(top, bottom)
            if out is None:
                out = rows.new_empty(self.shape)
            out[:, :, top:bottom] = rows
        return _Rows.of(out, self.strips)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel over the whole map, two (n, c, 1, 1) in float64 (Chan et al., 1979)."""
        count, mean, squares = 0, 0.0, 0.0
        for top, bottom in self.bounds():
            rows = self.read(top, bottom)
            size = rows.shape[2] * rows.shape[3]
            var, m = (v.double() for v in torch.var_mean(rows.float(), (2, 3), correction=0, keepdim=True))
            delta = m - mean
            squares = squares + size * var + delta**2 * (count * size / (count + size))
            count += size
            mean = mean + delta * (size / count)
        return mean, squares / count

    def window(self, top: int, bottom: int, padding: str) -> Tensor:
        """Rows top to bottom, where those outside the map are reflected or zero."""
        h = self.shape[2]
        low, high = max(top, 0), min(bottom, h)
        if (low, high) == (top, bottom):
            return self.read(low, high)
        if padding == 'zeros':
            return F.pad(self.read(low, high), (0, 0, low - top, bottom - high))
        low, high = min(low, 2 * h - 1 - bottom), max(high, 1 - top)
        rows = self.read(low, high)
        index = [h - 1 - abs(h - 1 - abs(row)) - low for row in range(top, bottom)]
        return rows[:, :, index]


def _conv(rows: _Rows, conv: nn.Conv2d, padding: str = 'zeros', pad: int | None = None,
          full_precision: bool = False) -> _Rows:
    """Convolution, with ``pad`` pixels of ``padding`` in place of its own where they are given."""
    (k, _), (stride, _), (dilation, _) = conv.kernel_size, conv.stride, conv.dilation
    pad = conv.padding[0] if pad is None else pad
    n, _, h, w = rows.shape
    reach = dilation * (k - 1) + 1
    shape = (n, conv.out_channels, (h + 2 * pad - reach) // stride + 1, (w + 2 * pad - reach) // stride + 1)

    def read(top: int, bottom: int) -> Tensor:
        x = rows.window(top * stride - pad, (bottom - 1) * stride - pad + reach, padding)
        if pad and padding == 'reflect':
            x = F.pad(x, (pad, pad, 0, 0), mode='reflect')
        enabled = not full_precision and torch.is_autocast_enabled(x.device.type)
        with torch.autocast(x.device.type, enabled=enabled):
            return F.conv2d(x, conv.weight, conv.bias, stride, (0, 0 if padding == 'reflect' else pad), dilation)

    return _Rows(shape, rows.strips, read)


def _conv_transpose(rows: _Rows, conv: nn.ConvTranspose2d) -> _Rows:
    """Transposed 3x3 convolution that doubles the size: rows 2i and 2i + 1 depend on rows i and i + 1 of the input."""
    n, _, h, w = rows.shape

    def read(top: int, bottom: int) -> Tensor:
        first, last = top // 2, (bottom + 1) // 2
        x = rows.window(first, last + 1, 'zeros')
        y = F.conv_transpose2d(x, conv.weight, conv.bias, 2, 1, (0, 1))
        return y[:, :, top - 2 * first:bottom - 2 * first]

    return _Rows((n, conv.out_channels, 2 * h, 2 * w), rows.strips, read)


def _upsample(rows: _Rows) -> _Rows:
    n, c, h, w = rows.shape

    def read(top: int, bottom: int) -> Tensor:
        first = top // 2
        x = rows.read(first, (bottom + 1) // 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return x[:, :, top - 2 * first:bottom - 2 * first]

    return _Rows((n, c, 2 * h, 2 * w), rows.strips, read)


def _norm(rows: _Rows, eps: float) -> _Rows:
    """Instance normalisation with the statistics of the whole map."""
    mean, var = rows.moments()
    scale = (var + eps).rsqrt()
    shift, scale = (-mean * scale).float(), scale.float()
    return rows.map(lambda x, top, bottom: torch.addcmul(shift, x.float(), scale))


def _leaky_relu(slope: float) -> Callable[[Tensor, int, int], Tensor]:
    return lambda x, top, bottom: F.leaky_relu_(x, slope)


def _run(rows: _Rows, layers: Iterable[nn.Module], keep: bool = False, full_precision: bool = False) -> _Rows:
    """The layers of a sequence; with ``keep`` what a normalisation reads twice is kept, without it computed twice."""
    pad = None
    for layer in layers:
        if isinstance(layer, nn.ReflectionPad2d):
            pad = layer.padding[0]
        elif isinstance(layer, nn.Conv2d):
            rows, pad = _conv(rows, layer, 'zeros' if pad is None else 'reflect', pad, full_precision), None
        elif isinstance(layer, nn.ConvTranspose2d):
            rows = _conv_transpose(rows, layer)
        elif isinstance(layer, nn.Upsample):
            rows = _upsample(rows)
        elif isinstance(layer, nn.InstanceNorm2d):
            rows = _norm(rows.store() if keep else rows, layer.eps)
        elif isinstance(layer, nn.ReLU):
            rows = rows.map(lambda x, top, bottom: x.relu_())
        elif isinstance(layer, nn.LeakyReLU):
            rows = rows.map(_leaky_relu(layer.negative_slope))
        else:
            raise TypeError(f'Layers of type {type(layer).__name__} cannot be run in strips; use mode guided.')
    return rows


def _aspp(rows: _Rows, aspp: ASPP) -> _Rows:
    branches = [_run(rows, branch) for branch in aspp.branches]
    pooled = aspp.pool(rows.moments()[0].float())
    n, width = pooled.shape[:2]

    def read(top: int, bottom: int) -> Tensor:
        parts = [branch.read(top, bottom) for branch in branches]
        return torch.cat([*parts, pooled.to(parts[0].dtype).expand(-1, -1, *parts[0].shape[2:])], dim=1)

    joined = _Rows((n, width * (len(branches) + 1), *rows.shape[2:]), rows.strips, read)
    return _run(joined, aspp.project, keep=True)


def _ema(rows: _Rows, ema: EMA) -> _Rows:
    """The attention's output, see :class:`~lowlight_cyclegan.archs.ema_resnet_arch.EMA`."""
    n, c, h, w = rows.shape
    group = rows.map(lambda x, top, bottom: x.reshape(n * ema.factor, c // ema.factor, bottom - top, w),
                     (n * ema.factor, c // ema.factor, h, w))
    row_means: list[Tensor] = []
    column_sum = torch.zeros(1, dtype=torch.float64, device=ema.gn.bias.device)
    for top, bottom in group.bounds():
        x = group.read(top, bottom).float()
        row_means.append(x.mean(3, keepdim=True))
        column_sum = column_sum + x.sum(2, keepdim=True).double()
    columns = (column_sum / h).float().transpose(2, 3)
    gate_h, gate_w = ema.conv1x1(torch.cat([*row_means, columns], dim=2)).sigmoid().split([h, w], dim=2)
    gate_w = gate_w.transpose(2, 3)
    local = _conv(group, ema.conv3x3)
    gated = group.map(lambda x, top, bottom: x * gate_h[:, :, top:bottom] * gate_w)
    mean, var = gated.moments()
    # GroupNorm as a factor and an offset of each channel, here already weighed by the local branch's softmax.
    attention_local = local.moments()[0].float().softmax(1)
    attention_gated = ema.gn.bias.softmax(0).view(1, -1, 1, 1)
    scale = (var + ema.gn.eps).rsqrt() * ema.gn.weight.double().view(1, -1, 1, 1)
    offset = ema.gn.bias.double().view(1, -1, 1, 1) - mean * scale
    offset = (offset * attention_local).sum(1, keepdim=True).float()
    scale = (scale * attention_local).float()

    def read(top: int, bottom: int) -> Tensor:
        gate = (local.read(top, bottom) * attention_gated).sum(1, keepdim=True) + offset
        gate += (gated.read(top, bottom) * scale).sum(1, keepdim=True)
        return (group.read(top, bottom) * gate.sigmoid_()).reshape(n, c, bottom - top, w)

    return _Rows(rows.shape, rows.strips, read)


def _block(rows: _Rows, block: EMAResidualBlock) -> _Rows:
    def add(a: _Rows, b: _Rows) -> _Rows:
        return a.map(lambda x, top, bottom: x + b.read(top, bottom))

    body = _run(rows, block.body, keep=True)
    if block.ema is None:
        return add(rows, body).store()
    if block.ema_position == 'branch':
        return add(rows, _ema(body, block.ema)).store()
    rows = add(rows, body).store()
    return add(rows, _ema(rows, block.ema)).store()


def _expose(rows: _Rows, x: Tensor, net: EMAResNetGenerator, adapt: Callable | None) -> _Rows:
    """Head 'gain' in [-1, 1], see :class:`~lowlight_cyclegan.archs.auto_exposure_arch.AutoExposure`."""
    # A thumbnail of a thumbnail's size stays as it is, so the network's own step takes the reduced picture.
    thumbnail = net.thumbnail(F.interpolate(x.float(), THUMBNAIL, mode='area'))
    curve = net.predict(thumbnail)
    mean, power, balance = adapt(thumbnail, curve) if adapt else curve
    with torch.autocast(x.device.type, enabled=False):
        u = rows.map(lambda x, top, bottom: net.exposure.brighten((x.float() + 1) / 2, power))
        average = u.moments()[0].mean(1, keepdim=True).float()
    return u.map(lambda u, top, bottom: u * (2 * mean * balance / average) - 1)


@torch.no_grad()
def enhance_exact(net: EMAResNetGenerator, x: Tensor, tile: int = TILE, adapt: Callable | None = None) -> Tensor:
    """The output of ``net(x)`` in bounded memory: strips share statistics of the whole image, so there is no seam.

    Every statistic (InstanceNorm, the attention's averages and GroupNorm, the pool of ASPP, exposure, mean of the
    residual) is gathered over all strips before the layer that needs it runs. Maps at a quarter of the resolution are
    kept, at most three of them; larger ones are computed again for each use. So beyond the input and the output, memory
    is 3 * 4 * num_feat * 4 / 16 = 3 num_feat bytes a pixel in fp32 (192 for the paper's generator, 24 for num_feat 8)
    and the strips' temporaries. Under autocast to bf16 two of the three take half of it.

    Args:
        net: In evaluation mode.
        x: (n, 3, h, w) in [-1, 1].
        tile: A strip has about ``tile`` squared pixels. Images up to that size take one call of ``net``.
        adapt: See :func:`~lowlight_cyclegan.enhance.modes.enhance_with_fallback`.

    Returns:
        (n, 3, h, w) in [-1, 1].

    Raises:
        TypeError: If ``net`` is another network.
    """
    net = getattr(net, '_orig_mod', net)  # type: ignore[assignment]
    if not isinstance(net, EMAResNetGenerator):
        raise TypeError(f'Mode exact needs an EMAResNetGenerator, got {type(net).__name__}; use mode direct or guided.')
    h, w = x.shape[2:]
    if h * w <= tile * tile and adapt is None:
        return net(x)
    pad_h, pad_w = -h % 4, -w % 4
    if pad_h or pad_w:
        x = F.pad(x, (0, pad_w, 0, pad_h), mode='reflect')
    strips = max(1, min(x.shape[2] // 4, math.ceil(h * w / tile**2)))
    seen = exposed = _Rows.of(x, strips)
    if net.head == 'gain':
        exposed = _expose(exposed, x, net, adapt)
        seen = exposed.map(lambda rows, top, bottom: rows.clamp(-1, 1.5))
    encoder = net.encoder
    full = net.head != 'gain'  # see prepare_for_inference
    rows = _run(seen, [*encoder.stem, *encoder.down[:3]], full_precision=full)
    rows = _run(rows, encoder.down[3:], keep=True, full_precision=full)
    if not isinstance(encoder.aspp, nn.Identity):
        rows = _aspp(rows, encoder.aspp)
    for block in net.transformer:
        rows = _block(rows, block)
    rows = _run(rows, net.decoder)
    shape, out = exposed.shape, torch.empty_like(x)
    if net.head == 'gain':
        decoded = rows
        joined = _Rows((shape[0], decoded.shape[1] + shape[1], *shape[2:]), strips,
                       lambda top, bottom: torch.cat([decoded.read(top, bottom), seen.read(top, bottom)], dim=1))
        # The output's memory holds the residual until its mean is known.
        rows = _run(joined, net.fine).map(lambda y, top, bottom: y.tanh_().float()).store(out)
        mean = rows.moments()[0].mean(1, keepdim=True).float()
        rows = rows.map(lambda y, top, bottom: (exposed.read(top, bottom) + y.sub_(mean)).clamp_(-1, 1))
    else:
        rows = rows.map(lambda y, top, bottom: y.float().tanh_())
    return rows.store(out).read(0, h)[..., :w]
