import math
import pytest
import resource
import torch
from torch.nn import functional as F

from lowlight_cyclegan.archs import EMAResNetGenerator, ZeroDCE
from lowlight_cyclegan.enhance import large
from lowlight_cyclegan.enhance.large import (choose_mode, denoise, enhance_exact, enhance_guided, enhance_with_fallback,
                                             memory_needed, prepare_for_inference)


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


@pytest.mark.parametrize('options', [
    {},
    {'ema_position': 'output'},
    {'head': 'gain', 'upsample': 'resize'},
    {'head': 'residual', 'upsample': 'resize', 'ema_position': 'output'},
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


@pytest.mark.parametrize('size', [64, 200])
def test_guided_reproduces_an_affine_effect(size):
    x = picture(150, 203)
    y = enhance_guided(lambda low: low, x, size, eps=1e-8)
    # Identity is not affine in the guide, but nearly so within a window.
    assert y.shape == x.shape
    assert psnr(y, x) > 50


def test_guided_keeps_edges_without_overshoot():
    x = torch.full((1, 3, 160, 240), -0.95)
    x[..., 117:] = -0.2
    bright = enhance_guided(lambda low: (2 * ((low + 1) / 2)**0.5 - 1), x, 60)
    ideal = 2 * ((x + 1) / 2)**0.5 - 1
    height = (ideal.max() - ideal.min()).item()
    assert bright.max() < ideal.max() + 0.03 * height and bright.min() > ideal.min() - 0.03 * height
    assert (bright[..., 117] - bright[..., 116]).min() > 0.9 * height  # the edge is where it was, in one pixel


def test_guided_keeps_gradients_smooth():
    x = torch.linspace(-1, 0, 240).expand(1, 3, 160, 240)
    y = enhance_guided(lambda low: 2 * ((low + 1) / 2)**0.5 - 1, x, 60)
    ideal = 2 * ((x + 1) / 2)**0.5 - 1
    assert (y - ideal)[..., 8:].abs().max() < 0.02
    assert y.diff(dim=3).min() > -1e-4


def test_guided_does_not_amplify_noise():
    generator = torch.Generator().manual_seed(0)
    x = -0.7 + 0.05 * torch.randn(1, 3, 256, 256, generator=generator).clamp(-3, 3)

    def net(low):
        return (low * 3 + 2).clamp(-1, 1)

    assert enhance_guided(net, x, 64).std() < 0.7 * net(x).std()
    assert abs(enhance_guided(net, x, 64).mean() - net(x).mean()) < 0.01


def test_guided_is_the_same_in_strips_and_in_place(monkeypatch):
    x = picture(131, 97)
    upsampled = large._upsampled_strips
    y = enhance_guided(torch.tanh, x, 48)
    monkeypatch.setattr(large, '_upsampled_strips', lambda maps, h, w, pixels: upsampled(maps, h, w, 5 * w))
    torch.testing.assert_close(enhance_guided(torch.tanh, x, 48), y, atol=1e-5, rtol=0)
    copy = x.clone()
    assert enhance_guided(torch.tanh, copy, 48, out=copy) is copy
    torch.testing.assert_close(copy, y, atol=1e-5, rtol=0)


def test_denoise_is_the_guided_filter_at_full_size_in_any_strips(monkeypatch):
    torch.manual_seed(0)
    x, y = torch.rand(2, 3, 41, 50) * 0.2 - 1, torch.rand(2, 3, 41, 50) * 2 - 1
    filtered = enhance_guided(lambda _: y, x, size=50, radius=1, eps=2e-3)
    expected = (y + filtered) / 2
    for pixels in (1, 150, 2**18):
        monkeypatch.setattr(large, 'DENOISED_PIXELS', pixels)
        found = y.clone()
        assert denoise(found, x, 0.5) is found
        torch.testing.assert_close(found, expected)


def test_denoise_removes_noise_and_keeps_edges():
    """A step of .2 in the square root of the low picture, with a noise of .03 there."""
    torch.manual_seed(0)
    clean = torch.full((1, 3, 60, 60), 0.2)
    clean[..., 30:] = 0.4
    noisy = clean + 0.03 * torch.randn_like(clean)
    low, enhanced = noisy**2 * 2 - 1, noisy * 4 - 1
    found = (denoise(enhanced, low) + 1) / 4
    flat = (..., slice(5, 55), slice(5, 25))
    assert (found - clean)[flat].std() < 0.45 * 0.03
    edge = (found[..., 30] - found[..., 29]).mean()
    assert edge > 0.15
    weaker = (denoise(noisy * 4 - 1, low, 0.7) + 1) / 4
    assert (found - clean)[flat].std() < (weaker - clean)[flat].std() < 0.9 * 0.03


def test_upsampling_is_bilinear():
    maps = torch.rand(2, 5, 7, 9)
    strips = [strip for _, _, strip in large._upsampled_strips(maps, 50, 41, 41 * 8)]
    expected = F.interpolate(maps, (50, 41), mode='bilinear', align_corners=False)
    torch.testing.assert_close(torch.cat(strips, dim=2), expected)


def test_choose_mode():
    gigabyte = 1e9
    assert choose_mode(400, 600, 'cpu', 'fp32', 4 * gigabyte)[0] == 'direct'
    assert choose_mode(400, 600, 'cpu', 'fp32', 0.25 * gigabyte)[0] == 'guided'
    assert choose_mode(1000, 1000, 'cpu', 'fp32', 1.1 * gigabyte)[0] == 'exact'
    assert choose_mode(1000, 1000, 'cpu', 'fp32', 1.1 * gigabyte, ZeroDCE(num_feat=8))[0] == 'guided'
    assert choose_mode(1000, 1000, 'cpu', 'bf16', 1.1 * gigabyte)[0] == 'direct'
    assert choose_mode(1000, 1000, 'cpu', 'fp32', 1.1 * gigabyte, build())[0] == 'direct'
    assert choose_mode(3000, 4000, 'cpu', 'fp32', 1000 * gigabyte)[0] == 'guided'
    assert choose_mode(1500, 2000, 'cuda', 'fp32', 1000 * gigabyte)[0] == 'direct'
    mode, reason = choose_mode(3000, 4000, 'cpu')  # with what is free now
    assert mode == 'guided' and '12.0 megapixels' in reason and '\n' not in reason
    assert 'GB' in choose_mode(1000, 1000, 'cpu', 'fp32', 1.1 * gigabyte)[1]


def test_memory_needed_falls_from_mode_to_mode():
    for net in (None, build()):
        direct, exact, guided = (memory_needed(mode, 3000, 4000, net=net) for mode in large.MODES)
        assert direct > exact > guided


@pytest.mark.parametrize('error', [
    RuntimeError('[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory: you tried to allocate'),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError('CUDA out of memory.'),
    MemoryError()
], ids=repr)  # yapf: disable
def test_memory_that_runs_out_leads_to_the_next_mode(error):

    class Network(EMAResNetGenerator):
        limit = 80 * 80

        def forward(self, x):
            if x.shape[2] * x.shape[3] > self.limit:
                raise error
            return super().forward(x)

    net = Network(num_feat=8, num_block=1, ema_factor=4).eval()
    x, lines = picture(96, 128), []
    y, mode = enhance_with_fallback(net, x, 'direct', tile=40, size=64, say=lines.append)
    assert mode == 'exact' and y.shape == x.shape
    assert lines == ['128x96: not enough memory for mode direct, going on with mode exact']
    lines.clear()
    y, mode = enhance_with_fallback(net, x, 'direct', tile=512, size=64, say=lines.append)
    assert mode == 'guided' and len(lines) == 2
    net.limit = 0
    with pytest.raises(MemoryError, match='128x96: not enough memory for mode guided'):
        enhance_with_fallback(net, x, 'direct', say=lines.append)


def test_other_errors_are_not_taken_for_memory():

    def net(x):
        raise RuntimeError('shapes do not match')

    with pytest.raises(RuntimeError, match='shapes do not match'):
        enhance_with_fallback(net, picture(40, 40), 'direct')


@pytest.mark.parametrize('options', [{}, {'head': 'gain', 'upsample': 'resize'}], ids=str)
def test_preparation_changes_no_value(options):
    plain, net, x = build(**options), build(**options), picture(64, 52)
    assert prepare_for_inference(net, 'cpu', 'bf16') is net
    assert list(net.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x), rtol=0, atol=0)
        expected = plain(x)
        with torch.autocast('cpu', torch.bfloat16):
            if options:
                torch.testing.assert_close(net(x), plain(x), rtol=0, atol=0)
            else:
                assert psnr(net(x), expected) > psnr(plain(x), expected) + 6
        assert psnr(enhance_exact(net, x, 16), plain(x)) > 90


@pytest.mark.full
@pytest.mark.parametrize('mode', large.MODES)
def test_memory_does_not_grow_over_1000_images(mode):
    net = prepare_for_inference(build(head='gain'), 'cpu', 'bf16')
    run = {
        'direct': net,
        'exact': lambda x: enhance_exact(net, x, 24),
        'guided': lambda x: enhance_guided(net, x, 32)
    }[mode]

    def peak(images):
        with torch.no_grad():
            for i in range(images):
                run(picture(40 + i % 3, 48))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = peak(100)
    assert peak(1000) - before < 8 * 1024  # kilobytes
