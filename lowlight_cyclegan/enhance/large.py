"""Large photos: the network in strips with statistics of the whole image, or on a reduced copy.

The generator's normalisations, its attention, the pool of its ASPP and its exposure take statistics of the whole image.
Tiles that are enhanced one by one have other statistics: they differ in colour and meet in seams. Two ways around it:

    * :func:`enhance_exact` runs the network layer by layer in strips and gathers each statistic over all of them;
    * :func:`enhance_guided` runs the network on a reduced copy and carries its effect over with a local affine model.

Networks take and return (n, 3, h, w) in [-1, 1], in evaluation mode. :func:`choose_mode` picks a way, and
:func:`enhance_with_fallback` goes on to the next one where memory runs out.

References:
    He et al., "Guided Image Filtering", TPAMI 2013.
    He and Sun, "Fast Guided Filter", arXiv:1505.00996, 2015.
"""
import ctypes
import math
import torch
from torch import nn
from torch.nn import functional as F

from lowlight_cyclegan.messages import is_out_of_memory

__all__ = [
    'Denoised', 'available_memory', 'choose_mode', 'denoise', 'enhance_exact', 'enhance_guided',
    'enhance_with_fallback', 'memory_needed', 'prepare_for_inference'
]

MODES = ('direct', 'exact', 'guided')  # in the order in which they replace each other when memory runs out
TILE, SIZE = 512, 600
DENOISED_RIDGE = 2e-3  # by PSNR, SSIM, LPIPS and NIQE on the held-out pairs of LOL
DENOISED_PIXELS = 2**18  # at a time: the filter's maps take 400 bytes a pixel
# What 'auto' runs in one piece. Beyond it guided is several times as fast, and sees a scale the network has learned.
DIRECT_PIXELS = {'cpu': 10**6, 'cuda': 4 * 10**6}


def available_memory(device):
    """Bytes that can be allocated on a device now."""
    device = torch.device(device)
    if device.type == 'cuda':
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    try:
        with open('/proc/meminfo') as f:
            free = 1024 * int(next(line for line in f if line.startswith('MemAvailable')).split()[1])
    except (OSError, StopIteration):  # not Linux
        import psutil
        free = psutil.virtual_memory().available
    try:  # a container's own limit
        with open('/sys/fs/cgroup/memory.max') as limit, open('/sys/fs/cgroup/memory.current') as used:
            free = min(free, int(limit.read()) - int(used.read()))
    except (OSError, ValueError):  # no such limit, or 'max'
        pass
    return max(free, 0)


def memory_needed(mode, height, width, precision='fp32', net=None, tile=TILE, size=SIZE):
    """Estimated bytes that a mode takes beyond its input, for one image.

    Fitted from above to the measured peaks of EMAResNetGenerator with num_feat 8 (413 bytes a pixel in fp32, 265 in
    bf16) and 64 (1208 and 908); other networks count as one with num_feat 64.
    """
    num_feat = _num_feat(net) or 64
    pixel = 180 + 12 * num_feat if precision == 'bf16' else 310 + 15 * num_feat
    pixels = height * width
    if mode == 'direct':
        return pixels * pixel
    if mode == 'exact':  # three maps at a quarter of the resolution, the output, and a strip's temporaries
        return pixels * (3 * num_feat + 12) + 2 * min(pixels, tile * tile) * pixel
    low_h, low_w = _reduced(height, width, size)
    return pixels * 12 + 2 * 12 * 4 * low_h * width + low_h * low_w * pixel


def _num_feat(net):
    """Width of a generator that mode exact knows, else None."""
    from lowlight_cyclegan.archs.ema_resnet_arch import EMAResNetGenerator
    net = getattr(net, '_orig_mod', net)
    return net.encoder.num_out_ch // 4 if isinstance(net, EMAResNetGenerator) else None


def choose_mode(height, width, device='cpu', precision='fp32', max_memory=None, net=None):
    """How to enhance an image: 'direct', 'exact' or 'guided'.

    Images of up to 1 megapixel (4 on a GPU) run directly if that fits in memory, else exactly if that fits. All others
    are guided, which takes seconds where the network would take minutes.

    Args:
        height (int): Of the image.
        width (int): Of the image.
        device (str | torch.device): Where the network runs.
        precision (str): 'fp32' or 'bf16'.
        max_memory (float | None): Bytes to plan with. None means 80 % of what is free.
        net (nn.Module | None): The network; None plans for the paper's generator.

    Returns:
        tuple[str, str]: The mode, and the reason in a line.
    """
    device = torch.device(device)
    budget = 0.8 * available_memory(device) if max_memory is None else max_memory
    pixels, limit = height * width, DIRECT_PIXELS.get(device.type, DIRECT_PIXELS['cpu'])
    if pixels > limit:
        return 'guided', f'{pixels / 1e6:.1f} megapixels are more than the {limit / 1e6:g} that run in one piece'
    modes = ('direct', 'exact') if net is None or _num_feat(net) else ('direct', )
    needs = {mode: memory_needed(mode, height, width, precision, net) for mode in modes}
    for mode, need in needs.items():
        if need <= budget:
            room = f'{_size(need)} of {_size(budget)} memory'
            return mode, f'needs {room}' if mode == 'direct' else f'needs {room}, in one piece {_size(needs["direct"])}'
    return 'guided', f"needs less than mode {modes[-1]}'s {_size(needs[modes[-1]])} of {_size(budget)} memory"


def _size(size):
    return f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.0f} MB'


def enhance_with_fallback(net, x, mode, tile=TILE, size=SIZE, say=print):
    """Run ``mode``, and the next of direct, exact, guided where memory runs out.

    Args:
        net (nn.Module): In evaluation mode.
        x (Tensor): (n, 3, h, w) in [-1, 1]. Mode guided writes its output there.
        mode (str): One of these.
        tile (int): For :func:`enhance_exact`.
        size (int): For :func:`enhance_guided`.
        say (Callable): Takes the line that says what is done.

    Returns:
        tuple[Tensor, str]: (n, 3, h, w) in [-1, 1], and the mode that it came from.

    Raises:
        MemoryError: If memory does not suffice for mode guided either.
    """
    modes = MODES[MODES.index(mode):]
    if mode == 'direct' and not _num_feat(net):
        modes = ('direct', 'guided')
    run = {
        'direct': lambda: net(x),
        'exact': lambda: enhance_exact(net, x, tile),
        'guided': lambda: enhance_guided(net, x, size, out=x)
    }
    for current, following in zip(modes, [*modes[1:], None]):
        try:
            with torch.no_grad():
                return run[current](), current
        except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not is_out_of_memory(error):
                raise
        # Past the handler, so that nothing holds on to the tensors of the failed attempt.
        if x.is_cuda:
            torch.cuda.empty_cache()
        h, w = x.shape[2:]
        if following:
            say(f'{w}x{h}: not enough memory for mode {current}, going on with mode {following}')
    raise MemoryError(f'{w}x{h}: not enough memory for mode {current}')


class _ReflectionPad2d(nn.ReflectionPad2d):
    """The same values, under autocast in its type: PyTorch's converts to fp32 what a convolution in bf16 follows."""

    def forward(self, x):
        """(n, c, h, w) -> (n, c, h + 2 pad, w + 2 pad)."""
        pad, (h, w) = self.padding[0], x.shape[2:]
        if torch.is_grad_enabled() or pad >= min(h, w):
            return super().forward(x)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        y = x.new_empty((*x.shape[:2], h + 2 * pad, w + 2 * pad), dtype=dtype)
        middle = y[:, :, pad:pad + h]
        middle[..., pad:pad + w] = x
        for i in range(pad):
            middle[..., i] = x[..., pad - i]
            middle[..., pad + w + i] = x[..., w - 2 - i]
        for i in range(pad):
            y[:, :, i] = y[:, :, 2 * pad - i]
            y[:, :, pad + h + i] = y[:, :, pad + h - 2 - i]
        return y


class _FullPrecision(nn.Sequential):
    """The same layers, in fp32 under autocast too."""

    def forward(self, x):
        """Of the layers."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def prepare_for_inference(net, device='cpu', precision='fp32'):
    """Put a network in evaluation mode on a device, set up to run there as fast as is known; gives it back.

    Weights, their names and the output's values stay. On the CPU glibc is told to keep freed memory below 512 MB for
    the next layer instead of having the system clear new pages for each, which takes up to 40 % of the time of a narrow
    network; this holds for the whole process. With bf16 the reflected borders are made in bf16, and the convolutions
    that reduce the image stay in fp32 where they see it as it is: in bf16 the shadows, near -1, have steps of half a
    grey level. Head 'gain' has lifted them before.
    """
    net = net.eval().requires_grad_(False).to(device)
    if precision == 'bf16' and _num_feat(net) and net.head != 'gain':
        net.encoder.stem, net.encoder.down = _FullPrecision(*net.encoder.stem), _FullPrecision(*net.encoder.down)
    if torch.device(device).type != 'cpu':
        return net
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        pass
    else:
        for name, value in ((-3, 64 * 2**20), (-1, 512 * 2**20)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            mallopt(name, value)
    if precision == 'bf16':
        for module in list(net.modules()):
            for name, child in module.named_children():
                if type(child) is nn.ReflectionPad2d:
                    setattr(module, name, _ReflectionPad2d(child.padding))
    return net


class _Rows:
    """A feature map that is read a few rows at a time and need not exist as a whole.

    Args:
        shape (tuple[int]): (n, c, h, w).
        strips (int): Number of strips that a pass over the map is cut into.
        read (Callable): read(top, bottom) gives the rows top <= row < bottom as a tensor (n, c, bottom - top, w).
    """

    def __init__(self, shape, strips, read):
        self.shape, self.strips, self.read = tuple(shape), strips, read

    @classmethod
    def of(cls, tensor, strips):
        return cls(tensor.shape, strips, lambda top, bottom: tensor[:, :, top:bottom])

    def bounds(self):
        """(top, bottom) of the strips."""
        h = self.shape[2]
        edges = [h * i // self.strips for i in range(self.strips + 1)]
        return [(top, bottom) for top, bottom in zip(edges, edges[1:]) if top < bottom]

    def map(self, function, shape=None):
        """Pointwise: ``function(rows, top, bottom)`` of the rows' values."""
        return _Rows(shape or self.shape, self.strips,
                     lambda top, bottom: function(self.read(top, bottom), top, bottom))

    def store(self, out=None):
        """The same map, computed and kept in memory."""
        for top, bottom in self.bounds():
            rows = self.read(top, bottom)
            if out is None:
                out = rows.new_empty(self.shape)
            out[:, :, top:bottom] = rows
        return _Rows.of(out, self.strips)

    def moments(self):
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

    def window(self, top, bottom, padding):
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


def _conv(rows, conv, padding='zeros', pad=None, full_precision=False):
    """Convolution, with ``pad`` pixels of ``padding`` in place of its own where they are given."""
    (k, _), (stride, _), (dilation, _) = conv.kernel_size, conv.stride, conv.dilation
    pad = conv.padding[0] if pad is None else pad
    n, _, h, w = rows.shape
    reach = dilation * (k - 1) + 1
    shape = (n, conv.out_channels, (h + 2 * pad - reach) // stride + 1, (w + 2 * pad - reach) // stride + 1)

    def read(top, bottom):
        x = rows.window(top * stride - pad, (bottom - 1) * stride - pad + reach, padding)
        if pad and padding == 'reflect':
            x = F.pad(x, (pad, pad, 0, 0), mode='reflect')
        enabled = not full_precision and torch.is_autocast_enabled(x.device.type)
        with torch.autocast(x.device.type, enabled=enabled):
            return F.conv2d(x, conv.weight, conv.bias, stride, (0, 0 if padding == 'reflect' else pad), dilation)

    return _Rows(shape, rows.strips, read)


def _conv_transpose(rows, conv):
    """Transposed 3x3 convolution that doubles the size: rows 2i and 2i + 1 depend on rows i and i + 1 of the input."""
    n, _, h, w = rows.shape

    def read(top, bottom):
        first, last = top // 2, (bottom + 1) // 2
        x = rows.window(first, last + 1, 'zeros')
        y = F.conv_transpose2d(x, conv.weight, conv.bias, 2, 1, (0, 1))
        return y[:, :, top - 2 * first:bottom - 2 * first]

    return _Rows((n, conv.out_channels, 2 * h, 2 * w), rows.strips, read)


def _upsample(rows):
    n, c, h, w = rows.shape

    def read(top, bottom):
        first = top // 2
        x = rows.read(first, (bottom + 1) // 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return x[:, :, top - 2 * first:bottom - 2 * first]

    return _Rows((n, c, 2 * h, 2 * w), rows.strips, read)


def _norm(rows, eps):
    """Instance normalisation with the statistics of the whole map."""
    mean, var = rows.moments()
    scale = (var + eps).rsqrt()
    shift, scale = (-mean * scale).float(), scale.float()
    return rows.map(lambda x, top, bottom: torch.addcmul(shift, x.float(), scale))


def _run(rows, layers, keep=False, full_precision=False):
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
            rows = rows.map(lambda x, top, bottom, slope=layer.negative_slope: F.leaky_relu_(x, slope))
        else:
            raise TypeError(f'Layers of type {type(layer).__name__} cannot be run in strips; use mode guided.')
    return rows


def _aspp(rows, aspp):
    branches = [_run(rows, branch) for branch in aspp.branches]
    pooled = aspp.pool(rows.moments()[0].float())
    n, width = pooled.shape[:2]

    def read(top, bottom):
        parts = [branch.read(top, bottom) for branch in branches]
        return torch.cat([*parts, pooled.to(parts[0].dtype).expand(-1, -1, *parts[0].shape[2:])], dim=1)

    joined = _Rows((n, width * (len(branches) + 1), *rows.shape[2:]), rows.strips, read)
    return _run(joined, aspp.project, keep=True)


def _ema(rows, ema):
    """The attention's output, see :class:`~lowlight_cyclegan.archs.ema_resnet_arch.EMA`."""
    n, c, h, w = rows.shape
    group = rows.map(lambda x, top, bottom: x.reshape(n * ema.factor, c // ema.factor, bottom - top, w),
                     (n * ema.factor, c // ema.factor, h, w))
    row_means, column_sum = [], 0.0
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

    def read(top, bottom):
        gate = (local.read(top, bottom) * attention_gated).sum(1, keepdim=True) + offset
        gate += (gated.read(top, bottom) * scale).sum(1, keepdim=True)
        return (group.read(top, bottom) * gate.sigmoid_()).reshape(n, c, bottom - top, w)

    return _Rows(rows.shape, rows.strips, read)


def _block(rows, block):
    def add(a, b):
        return a.map(lambda x, top, bottom: x + b.read(top, bottom))

    body = _run(rows, block.body, keep=True)
    if block.ema is None:
        return add(rows, body).store()
    if block.ema_position == 'branch':
        return add(rows, _ema(body, block.ema)).store()
    rows = add(rows, body).store()
    return add(rows, _ema(rows, block.ema)).store()


def _expose(rows, x, exposure):
    """:class:`~lowlight_cyclegan.archs.ema_resnet_arch.AutoExposure` in [-1, 1]; ``rows`` read from ``x``."""
    with torch.autocast(x.device.type, enabled=False):
        # The predictor sees a thumbnail only; area averages of equal cells commute with the change of range.
        mean, power, balance = exposure.predict((F.interpolate(x.float(), (64, 96), mode='area') + 1) / 2)
        curve = rows.map(lambda x, top, bottom: exposure.brighten((x.float() + 1) / 2, power))
        average = curve.moments()[0].mean(1, keepdim=True).float()
    return curve.map(lambda u, top, bottom: u * (2 * mean * balance / average) - 1)


@torch.no_grad()
def enhance_exact(net, x, tile=TILE):
    """The output of ``net(x)`` in bounded memory: strips share statistics of the whole image, so there is no seam.

    Every statistic (InstanceNorm, the attention's averages and GroupNorm, the pool of ASPP, exposure, mean of the
    residual) is gathered over all strips before the layer that needs it runs. Maps at a quarter of the resolution are
    kept, at most three of them; larger ones are computed again for each use. So beyond the input and the output, memory
    is 3 * 4 * num_feat * 4 / 16 = 3 num_feat bytes a pixel in fp32 (192 for the paper's generator, 24 for num_feat 8)
    and the strips' temporaries. Under autocast to bf16 two of the three take half of it.

    Args:
        net (EMAResNetGenerator): In evaluation mode.
        x (Tensor): (n, 3, h, w) in [-1, 1].
        tile (int): A strip has about ``tile`` squared pixels. Images up to that size take one call of ``net``.

    Returns:
        Tensor: (n, 3, h, w) in [-1, 1].

    Raises:
        TypeError: If ``net`` is another network.
    """
    from lowlight_cyclegan.archs.ema_resnet_arch import EMAResNetGenerator
    net = getattr(net, '_orig_mod', net)
    if not isinstance(net, EMAResNetGenerator):
        raise TypeError(f'Mode exact needs an EMAResNetGenerator, got {type(net).__name__}; use mode direct or guided.')
    h, w = x.shape[2:]
    if h * w <= tile * tile:
        return net(x)
    pad_h, pad_w = -h % 4, -w % 4
    if pad_h or pad_w:
        x = F.pad(x, (0, pad_w, 0, pad_h), mode='reflect')
    strips = max(1, min(x.shape[2] // 4, math.ceil(h * w / tile**2)))
    seen = exposed = _Rows.of(x, strips)
    if net.head == 'gain':
        exposed = _expose(exposed, x, net.exposure)
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
        rows = rows.map(lambda y, top, bottom: y.sub_(mean))
    if net.head == 'tanh':
        rows = rows.map(lambda y, top, bottom: y.float().tanh_())
    else:
        rows = rows.map(lambda y, top, bottom: (exposed.read(top, bottom) + y).clamp_(-1, 1))
    return rows.store(out).read(0, h)[..., :w]


def _box(x, radius):
    """Mean over windows of (2 radius + 1) squared pixels, at the border over the part inside the image."""
    for kernel, pad in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        x = F.avg_pool2d(x, kernel, 1, pad, count_include_pad=False)
    return x


def _guide(x):
    """[-1, 1] -> the square root of [0, 1]: shadows get their share of the scale, as in the enhanced image."""
    return ((x + (1 + 1 / 255)) * 0.5).clamp_min_(0).sqrt_()


def _local_affine(guide, y, radius, eps):
    """Coefficients (n, 12, h, w) of y_i = sum_j a_ij g_j + b_i around each pixel: a_00, a_01, ..., a_22, b_0, b_1, b_2.

    Ridge regression in each window with a 3x3 covariance of the colours, averaged over the windows that hold the pixel.
    """
    mean_g, mean_y = _box(guide, radius), _box(y, radius)
    index = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    products = torch.stack([guide[:, i] * guide[:, j] for i, j in index], 1)
    rr, rg, rb, gg, gb, bb = (_box(products, radius) - torch.stack([mean_g[:, i] * mean_g[:, j] for i, j in index], 1)
                              ).unbind(1)
    rr, gg, bb = rr + eps, gg + eps, bb + eps
    # The inverse of the symmetric 3x3 matrix by cofactors.
    inverse = [gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb, rr * bb - rb * rb, rb * rg - rr * gb,
               rr * gg - rg * rg]
    determinant = rr * inverse[0] + rg * inverse[1] + rb * inverse[2]
    i00, i01, i02, i11, i12, i22 = (v / determinant for v in inverse)
    coefficients = []
    for c in range(3):
        r, g, b = (_box(guide * y[:, c:c + 1], radius) - mean_g * mean_y[:, c:c + 1]).unbind(1)
        coefficients += [i00 * r + i01 * g + i02 * b, i01 * r + i11 * g + i12 * b, i02 * r + i12 * g + i22 * b]
    a = torch.stack(coefficients, 1)
    b = mean_y - torch.stack([(a[:, 3 * c:3 * c + 3] * mean_g).sum(1) for c in range(3)], 1)
    return _box(torch.cat([a, b], dim=1), radius)


def denoise(y, x, strength=1.0):
    """Remove noise from an enhanced picture by a guided filter, whose guide is the low-light one.

    Around each pixel the enhanced picture is modelled as an affine function of the low one's colours, in square root,
    where noise depends least on brightness. Contrasts below about 0.045 there are taken for noise.

    Args:
        y (Tensor): Enhanced, (n, 3, h, w) in [-1, 1]. It is written to.
        x (Tensor): Low-light, the same.
        strength (float): In [0, 1], the share of the filtered picture; the rest is ``y`` as it was.

    Returns:
        Tensor: ``y``.
    """
    h, w = y.shape[2:]
    halo = 2  # rows: a window of 3x3, and the mean of its coefficients over another
    rows = max(halo, DENOISED_PIXELS // (len(y) * w))
    above = y[:, :, :0]  # rows as they were before the last strip was written
    for top in range(0, h, rows):
        bottom = min(top + rows, h)
        first, last = max(0, top - halo), min(h, bottom + halo)
        guide, part = _guide(x[:, :, first:last].float()), torch.cat([above, y[:, :, top:last]], dim=2).float()
        above = y[:, :, bottom - halo:bottom].clone()
        maps = _local_affine(guide, part, 1, DENOISED_RIDGE)
        for c in range(3):
            strip = (maps[:, 3 * c:3 * c + 3] * guide).sum(1).add_(maps[:, 9 + c]).clamp_(-1, 1)
            strip = strip[:, top - first:bottom - first].to(y.dtype)
            y[:, c, top:bottom] = y[:, c, top:bottom].lerp(strip, strength)
    return y


class Denoised(nn.Module):
    """A network whose output is denoised by :func:`denoise`.

    Args:
        net (nn.Module): The network.
    """

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        """(n, 3, h, w) in [-1, 1] -> the same."""
        return denoise(self.net(x).clone(), x)  # the output may be x itself, or kept for gradients


def _upsampled_strips(maps, h, w, pixels):
    """Bilinear upsampling of (n, c, h', w') to h x w: yields (top, bottom, strip) with about ``pixels`` pixels each.

    The width is done once, for the few rows there are; the height is a product with a narrow band of weights.
    """
    n, c, low_h, low_w = maps.shape
    wide = F.interpolate(maps.reshape(n, c * low_h, low_w), w, mode='linear', align_corners=False)
    wide = wide.view(n * c, low_h, w)
    position = (torch.arange(h, device=maps.device, dtype=torch.float64) + 0.5) * (low_h / h) - 0.5
    position.clamp_(0, low_h - 1)
    rows = max(1, pixels // w)
    for top in range(0, h, rows):
        bottom = min(top + rows, h)
        first = int(position[top])
        last = min(int(position[bottom - 1]) + 2, low_h)
        nodes = torch.arange(first, last, device=maps.device)
        weights = (1 - (position[top:bottom, None] - nodes).abs()).clamp_(min=0).to(maps.dtype)  # (rows, nodes)
        yield top, bottom, (weights @ wide[:, first:last]).view(n, c, bottom - top, w)


def _reduced(h, w, size):
    """Size of the reduced copy; neither side falls below the 32 pixels that networks need."""
    scale = min(1.0, size / max(h, w))
    return tuple(max(min(side, 32), round(side * scale)) for side in (h, w))


@torch.no_grad()
def enhance_guided(net, x, size=SIZE, radius=2, eps=1e-4, out=None):
    """The network on a reduced copy of the photo, its effect carried over by a fast guided filter.

    Around each pixel of the reduced copy the output is modelled as an affine function of the input's colours, in square
    root, with a ridge: edges keep their place, noise that the copy averages out is not amplified. The coefficients are
    upsampled bilinearly and applied at full resolution in strips: beyond the input and the output, memory grows with
    the photo's width alone.

    Args:
        net (nn.Module): Any network, in evaluation mode, (n, 3, h, w) in [-1, 1] -> the same.
        x (Tensor): (n, 3, h, w) in [-1, 1].
        size (int): Longer side of the reduced copy. Smaller photos are not reduced, only filtered.
        radius (int): Of the windows, in pixels of the reduced copy.
        eps (float): Ridge, on the scale of squared differences of the guide.
        out (Tensor | None): Where to write the output, which may be ``x`` itself.

    Returns:
        Tensor: (n, 3, h, w) in [-1, 1].
    """
    h, w = x.shape[2:]
    low_h, low_w = _reduced(h, w, size)
    low = x.float() if (low_h, low_w) == (h, w) else F.interpolate(x.float(), (low_h, low_w), mode='area')
    coefficients = _local_affine(_guide(low), net(low).float(), radius, eps)
    out = torch.empty_like(x) if out is None else out
    for top, bottom, strip in _upsampled_strips(coefficients, h, w, 2**16):
        guide = _guide(x[:, :, top:bottom].float()).unbind(1)
        for c in range(3):
            y = strip[:, 9 + c]
            for j in range(3):
                y.addcmul_(strip[:, 3 * c + j], guide[j])
            out[:, c, top:bottom] = y.clamp_(-1, 1)
    return out
