import copy
import pytest
import torch
from torch import nn

from lowlight_cyclegan.archs import EMAResNetGenerator, PatchGANDiscriminator
from lowlight_cyclegan.models import winograd
from lowlight_cyclegan.models.winograd import WinogradConv2d, use_winograd


def pair(c, d, dtype=torch.float64):
    """A convolution, usual and by Winograd."""
    torch.manual_seed(0)
    usual = nn.Conv2d(c, d, 3).to(dtype)
    fast = copy.deepcopy(usual)
    fast.__class__ = WinogradConv2d
    return usual, fast


def results(conv, x, amp=False):
    """Output and gradients of image, weight and bias."""
    x = x.clone().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        y = conv(x)
    torch.manual_seed(1)
    y.backward(torch.randn(y.shape, dtype=torch.float64).to(y))
    return y.detach(), x.grad, conv.weight.grad, conv.bias.grad


@pytest.mark.parametrize('shape', [(2, 5, 4, 4), (1, 5, 6, 12), (3, 5, 10, 8)])
@pytest.mark.parametrize('most_windows', [winograd.MOST_WINDOWS, 8])
def test_output_and_gradients_are_those_of_the_convolution(shape, most_windows, monkeypatch):
    monkeypatch.setattr(winograd, 'MOST_WINDOWS', most_windows)
    usual, fast = pair(5, 7)
    x = torch.randn(shape, dtype=torch.float64)
    for value, expected in zip(results(fast, x), results(usual, x)):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_memory_layout_does_not_matter():
    usual, fast = (conv.to(memory_format=torch.channels_last) for conv in pair(5, 7))
    x = torch.randn(2, 5, 6, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    for value, expected in zip(results(fast, x), results(usual, x)):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_bf16_is_close_and_unbiased():
    usual, fast = pair(64, 64, torch.float32)
    x = torch.randn(4, 64, 18, 18)
    exact = results(copy.deepcopy(usual).double(), x.double())
    values = results(fast, x, amp=True)
    assert values[0].dtype == torch.bfloat16 and all(value.dtype == torch.float32 for value in values[1:])
    for value, expected in zip(values, exact):
        difference = value.double() - expected
        assert difference.norm() < 0.015 * expected.norm()
        assert abs((difference * expected).sum() / expected.square().sum()) < 0.002


@pytest.mark.parametrize('size', [7, 3])
def test_other_sizes_take_the_usual_way(size):
    usual, fast = pair(5, 7)
    x = torch.randn(1, 5, 8, size, dtype=torch.float64)
    for value, expected in zip(results(fast, x), results(usual, x)):
        assert torch.equal(value, expected)


def test_without_gradients_nothing_changes():
    usual, fast = pair(5, 7)
    x = torch.randn(1, 5, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(fast(x), usual(x))


def test_only_wide_3x3_convolutions_of_residual_blocks_are_taken():
    net = EMAResNetGenerator(num_block=1)
    keys = list(net.state_dict())
    use_winograd(net)
    taken = [name for name, module in net.named_modules() if isinstance(module, WinogradConv2d)]
    assert taken == ['transformer.0.body.1', 'transformer.0.body.5'] and list(net.state_dict()) == keys
    narrow, judge = EMAResNetGenerator(num_feat=32, num_block=1, ema_factor=8), PatchGANDiscriminator()
    for other in (narrow, judge):
        use_winograd(other)
        assert not any(isinstance(module, WinogradConv2d) for module in other.modules())
