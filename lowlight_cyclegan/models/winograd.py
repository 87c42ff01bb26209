"""3x3 convolutions by Winograd's minimal filtering F(2x2, 3x3): 16 products where the plain sum takes 36.

Reference: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""
import torch
from torch import nn
from torch.autograd.function import once_differentiable

__all__ = ['WinogradConv2d', 'use_winograd']

FEWEST_CHANNELS = 256  # with less, the transforms of the images take as long as the products they save
MOST_WINDOWS = 2048  # at a time: their transforms are to stay in the processor's cache

# The three transforms of the paper for one dimension; both dimensions take the same one in turn.
FILTER = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])  # G, with which G g G^T is 4x4


def _windows(x, dim):
    """Views of the first to fourth elements of the windows of 4 at stride 2: ``dim`` goes from 2 t + 2 to t."""
    return x.unfold(dim, 4, 2).unbind(-1)


def _image(x, dim, out):
    """B^T d: windows of 4 along ``dim`` -> ``out`` (4, ...)."""
    a, b, c, d = _windows(x, dim)
    torch.sub(a, c, out=out[0])
    torch.add(b, c, out=out[1])
    torch.sub(c, b, out=out[2])
    torch.sub(b, d, out=out[3])
    return out


def _image_adjoint(y, dim, out):
    """B y: (4, ...) -> added to ``out``, where windows overlap."""
    a, b, c, d = _windows(out, dim)
    a += y[0]
    b += y[1] - y[2] + y[3]
    c += y[1] + y[2] - y[0]
    d -= y[3]
    return out


def _result(y, out):
    """A^T y: (4, ...) -> ``out``, two."""
    torch.add(y[0], y[1] + y[2], out=out[0])
    torch.sub(y[1] - y[2], y[3], out=out[1])


def _result_adjoint(a, b, out):
    """A y: two -> ``out`` (4, ...)."""
    out[0] = a
    torch.add(a, b, out=out[1])
    torch.sub(a, b, out=out[2])
    torch.neg(b, out=out[3])
    return out


def _images(x):
    """Both dimensions: (n, 2 r + 2, 2 s + 2, c) -> (16, n r s, c)."""
    n, h, w, c = x.shape
    rows, columns = h // 2 - 1, w // 2 - 1
    y = _image(x, 2, x.new_empty(4, n, h, columns, c))
    return _image(y, 2, x.new_empty(4, 4, n, rows, columns, c)).view(16, -1, c)


class _Winograd(torch.autograd.Function):
    """Images (n, c, 2 r + 2, 2 s + 2), weight (d, c, 3, 3) and bias (d) -> (n, d, 2 r, 2 s), in the images' type."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        (n, c, h, w), d = x.shape, len(weight)
        rows, columns = h // 2 - 1, w // 2 - 1
        x = x.permute(0, 2, 3, 1).contiguous()
        filters = torch.kron(FILTER, FILTER).to(weight)  # (16, 9)
        kernel = (filters @ weight.reshape(-1, 9).t()).view(16, d, c).to(x.dtype)
        products = torch.bmm(_images(x), kernel.transpose(1, 2))
        products[5] += bias.to(x.dtype)  # the one of the 16 that all four results of a window contain once
        half = x.new_empty(2, 4, n, rows, columns, d)
        _result(products.view(4, 4, n, rows, columns, d), half)
        y = x.new_empty(n, rows, 2, columns, 2, d)
        _result(half.transpose(0, 1), y.permute(4, 2, 0, 1, 3, 5))
        ctx.save_for_backward(x, kernel)  # not the transformed images, which are four times as many
        ctx.dtype = weight.dtype
        return y.view(n, h - 2, w - 2, d).permute(0, 3, 1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, kernel = ctx.saved_tensors
        (n, h, w, c), d = x.shape, grad.shape[1]
        rows, columns = h // 2 - 1, w // 2 - 1
        grad = grad.permute(0, 2, 3, 1).contiguous().view(n, rows, 2, columns, 2, d)
        half = _result_adjoint(grad[..., 0, :], grad[..., 1, :], grad.new_empty(4, n, rows, 2, columns, d))
        products = grad.new_empty(4, 4, n, rows, columns, d)
        products = _result_adjoint(half[:, :, :, 0], half[:, :, :, 1], products).view(16, -1, d)

        half = torch.bmm(products, kernel).view(4, 4, n, rows, columns, c)
        half = _image_adjoint(half, 2, x.new_zeros(4, n, h, columns, c))
        grad_x = _image_adjoint(half, 2, torch.zeros_like(x)).permute(0, 3, 1, 2)

        grad_kernel = torch.bmm(products.transpose(1, 2), _images(x)).view(16, -1)
        grad_weight = (torch.kron(FILTER, FILTER).to(x).t() @ grad_kernel).t()
        grad_weight = grad_weight.to(ctx.dtype, memory_format=torch.contiguous_format).view(d, c, 3, 3)
        return grad_x, grad_weight, products[5].sum(0, dtype=ctx.dtype)


class WinogradConv2d(nn.Conv2d):
    """The same convolution, in training by less than half of the products; sizes that are odd take the usual way.

    In bf16 the transforms round too: its relative error is 0.7 %, four times that of the usual way, and unbiased.
    """

    def forward(self, x):
        """(n, c, h, w) -> (n, d, h - 2, w - 2)."""
        if not torch.is_grad_enabled() or any(size % 2 or size < 4 for size in x.shape[2:]):
            return super().forward(x)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            parts = x.to(dtype).split(max(1, 4 * MOST_WINDOWS // (x.shape[2] * x.shape[3])))
            results = [_Winograd.apply(part, self.weight, self.bias) for part in parts]
        return results[0] if len(results) == 1 else torch.cat(results)


def use_winograd(net):
    """Have the 3x3 convolutions of ``net`` that gain by it, those of wide residual blocks, train as WinogradConv2d."""
    for module in net.modules():
        if type(module) is not nn.Conv2d or module.bias is None or module.groups > 1:
            continue
        shape = module.kernel_size, module.stride, module.padding, module.dilation
        if shape == ((3, 3), (1, 1), (0, 0), (1, 1)) and min(module.weight.shape[:2]) >= FEWEST_CHANNELS:
            module.__class__ = WinogradConv2d  # parameters and their names stay
