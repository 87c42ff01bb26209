import pytest
import torch

from lowlight_cyclegan.archs import EMAResNetGenerator
from lowlight_cyclegan.archs import exposure_head_arch as head_module
from lowlight_cyclegan.archs.exposure_head_arch import ExposureHead, area_weights, exposure_gain, spline_weights
from lowlight_cyclegan.archs.srgb import from_linear, to_linear


@pytest.fixture
def head():
    """A head that does something: as it is made, its last layers are zero."""
    torch.manual_seed(0)
    head = ExposureHead(16)
    for layer, deviation in ((head.statistics[-1], 0.2), (head.picture[-1], 0.2), (head.grid[-1], 0.2),
                             (head.denoiser[-1], 0.02)):
        torch.nn.init.normal_(layer.weight, 0, deviation)
    return head.eval()


def apply(head, x, curves, strength=1.0):
    """In [0, 1] there and back."""
    return (head.apply(x * 2 - 1, curves, strength) + 1) / 2


def curves_of(head, x):
    gain, statistics, _ = head.encoder_input(head.thumbnail(x * 2 - 1))
    return head.predict(gain, statistics, torch.randn(len(x), 16, 16, 16))


def test_srgb_there_and_back():
    x = torch.linspace(0, 1, 1001)
    assert torch.allclose(from_linear(to_linear(x)), x, atol=1e-6)
    assert to_linear(torch.tensor(0.5)).item() == pytest.approx(0.21404, abs=1e-5)


def test_exposure_gain_undoes_even_darkening():
    torch.manual_seed(0)
    photo = torch.rand(1, 3, 40, 60) * 0.9
    dark = from_linear(to_linear(photo) * 2**-3)
    gain = exposure_gain(dark)
    assert from_linear((to_linear(dark) * 2**gain).clamp_max(1)).mean().item() == pytest.approx(0.45, abs=1e-3)
    assert exposure_gain(torch.full((1, 3, 8, 8), 0.9)).item() == 0  # never darker
    assert (exposure_gain(photo) - gain + 3).abs().item() < 1e-2


def test_weights_average_and_interpolate():
    ones = torch.ones(())
    for size in (5, 128, 301):
        assert torch.allclose(area_weights(size, ones).sum(1), torch.ones(64), atol=1e-5)
        assert torch.allclose(spline_weights(size, 16, ones).sum(1), torch.ones(size), atol=1e-6)
    ramp = spline_weights(160, 16, ones) @ torch.arange(16.)
    assert ((ramp[1:] - ramp[:-1]) >= 0).all() and ramp[0] < 1 and ramp[-1] > 14


def test_black_stays_black_and_white_white(head):
    for value in (0.0, 1.0):
        x = torch.full((1, 3, 64, 70), value)
        y = apply(head, x, curves_of(head, torch.rand(1, 3, 64, 70) * 0.1))
        assert torch.allclose(y, x, atol=2e-6)


def test_strength_zero_is_the_identity_and_one_is_not(head):
    x = torch.rand(1, 3, 50, 62) * 0.2
    curves = curves_of(head, x)
    assert torch.allclose(apply(head, x, curves, 0.0), x, atol=1.5e-5)
    full, half = ((apply(head, x, curves, strength) - x).abs().mean() for strength in (1, 0.5))
    assert full > half + 0.001 > 0.01


@pytest.mark.parametrize('size', [(400, 37), (401, 90), (64, 64)])
def test_tiles_give_the_same_picture(head, size, monkeypatch):
    x = torch.rand(2, 3, *size) * 0.3
    curves = curves_of(head, x)
    with torch.no_grad():
        whole = apply(head, x, curves)
        monkeypatch.setattr(head_module, 'TILE', 32)
        tiles = apply(head, x, curves)
    assert torch.allclose(tiles, whole, atol=1e-5)


@pytest.mark.parametrize('size', [(70, 90), (600, 901)])
def test_takes_uint8(head, size):
    image = torch.randint(0, 80, (1, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        thumbnails = head.thumbnail(image), head.thumbnail(image / 127.5 - 1)
        assert torch.allclose(*thumbnails, atol=1e-6)
        curves = curves_of(head, image / 255)
        y, expected = head.apply(image, curves), apply(head, image / 255, curves) * 255
    assert y.dtype == torch.uint8 and (y - expected).abs().max() < 0.501


def test_a_large_picture_has_the_thumbnail_that_a_small_one_has(head):
    x = torch.rand(1, 3, 530, 601, requires_grad=True) * 2 - 1
    with torch.no_grad():
        in_bands = head.thumbnail(x)
    assert torch.allclose(in_bands, head.thumbnail(x), atol=1e-6)


def test_denoising_leaves_brightness_alone(head):
    torch.nn.init.normal_(head.denoiser[-1].weight, 0, 0.1)
    blocks = torch.rand(1, 12, 80, 80) * 0.1 + 0.45
    change = head._denoise(blocks, torch.full((1, 1, 80, 80), 3.0), 1.0) - blocks
    around = torch.nn.functional.avg_pool2d(change.mean(1, keepdim=True), 40)
    assert change.abs().mean() > 10 * around.abs().mean()


def test_curve_is_monotone_and_keeps_hues_where_it_should():
    stops, power, shoulder = torch.tensor([2.0, 1.1, 0.3]).view(3, 1, 1, 1, 1)
    grey = torch.linspace(0, 1, 256).view(1, 1, 1, -1).expand(1, 12, 1, -1)
    y = ExposureHead._expose(to_linear(grey), stops, power, shoulder, torch.tensor(0.5))
    assert (y[..., 1:] >= y[..., :-1]).all() and y[..., 0].max() == 0 and y[..., -1].min() > 1 - 1e-6
    colour = torch.tensor([0.3, 0.2, 0.1]).repeat_interleave(4).view(1, 12, 1, 1)
    light = to_linear(ExposureHead._expose(to_linear(colour), stops, power, shoulder, torch.tensor(1.0)))
    assert torch.allclose(light / light[:, :1], to_linear(colour) / to_linear(colour)[:, :1], atol=1e-4)


class TestGenerator:

    @pytest.fixture
    def generator(self):
        torch.manual_seed(0)
        return EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4, aspp_width=8, head='exposure').eval()

    def test_has_no_norm_and_no_decoder(self, generator):
        assert not any(isinstance(m, torch.nn.InstanceNorm2d) for m in generator.modules())
        assert not hasattr(generator, 'decoder')

    def test_is_its_three_steps(self, generator):
        x = torch.rand(1, 3, 45, 61) * 0.4 - 1
        with torch.no_grad():
            steps = generator.apply(x, generator.predict(generator.thumbnail(x)))
            assert torch.equal(generator(x), steps) and steps.shape == x.shape and steps.abs().max() <= 1

    def test_starts_near_the_rule(self, generator):
        """On a dark picture it brightens, at first, by about three quarters of the exposure gain's stops."""
        x = from_linear(to_linear(torch.rand(1, 3, 48, 64)) * 2**-4)
        y = (generator(x * 2 - 1) + 1) / 2
        ratio = torch.log2(to_linear(y).median() / to_linear(x).median())
        assert 0.6 < ratio.item() / exposure_gain(x).item() < 0.85

    def test_every_parameter_learns(self, generator):
        for parameter in generator.parameters():
            torch.nn.init.normal_(parameter, 0, 0.05)
        x = torch.rand(2, 3, 48, 64) * 0.5 - 1
        (generator(x) - torch.rand_like(x)).abs().mean().backward()
        idle = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not idle

    def test_a_fade_has_no_jump(self, generator):
        picture = to_linear(torch.rand(1, 3, 32, 48))
        with torch.no_grad():
            means = [generator(from_linear(picture * 2**-(step / 8)) * 2 - 1).mean().item() for step in range(73)]
        assert max(abs(a - b) for a, b in zip(means, means[1:])) < 0.05
