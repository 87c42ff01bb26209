from helpers_enhance import build, picture, psnr
import pytest
import torch

from lowlight_cyclegan.archs import ZeroDCE
from lowlight_cyclegan.enhance.strips import enhance_exact


@pytest.mark.parametrize('options', [
    {},
    {'ema_position': 'output'},
    {'head': 'gain', 'upsample': 'resize'},
    {'upsample': 'resize', 'ema_position': 'output'},
    {'use_ema': False, 'use_aspp': False},
    {'use_ema': False, 'head': 'gain'},
], ids=str)  # yapf: disable
@pytest.mark.parametrize('n,h,w', [(1, 96, 132), (2, 77, 43), (1, 33, 150)])
def test_exact_equals_the_untiled_result(options, n, h, w):
    net, x = build(**options), picture(h, w, n)
    expected = net(x)
    assert expected.std() > 0.05
    for tile in (12, 40):
        y = enhance_exact(net, x, tile)
        assert y.shape == x.shape and y.dtype == x.dtype
        assert psnr(y, expected) > 90


def test_exact_in_bf16_is_as_close_to_fp32_as_direct_in_bf16():
    net, x = build(head='gain'), picture(96, 96)
    expected = net(x)
    with torch.autocast('cpu', torch.bfloat16):
        direct, exact = net(x), enhance_exact(net, x, 32)
    assert psnr(exact, expected) > psnr(direct, expected) - 3


def test_exact_leaves_no_seam_where_tiles_do():
    net, x = build(head='gain'), picture(128, 128)
    plain = torch.cat([net(half) for half in x.split(64, 2)], dim=2)
    expected = net(x)

    def step(y):
        """Change across the middle that the untiled output does not have, in its average change between rows."""
        rows = (y - expected).diff(dim=2).abs().mean((0, 1, 3))
        return (rows[63] / expected.diff(dim=2).abs().mean()).item()

    assert step(plain) > 0.1
    assert step(enhance_exact(net, x, 64)) < 1e-3


def test_exact_takes_no_large_temporaries(monkeypatch):
    """No tensor that it makes is as large as a feature map at full resolution."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    net, x = build(), picture(128, 128)
    with torch.no_grad(), Watch():
        enhance_exact(net, x, 16)
    assert largest <= x.numel()


def test_exact_refuses_other_networks():
    with pytest.raises(TypeError, match='ZeroDCE; use mode direct or guided'):
        enhance_exact(ZeroDCE(num_feat=8), picture(40, 40), 16)
