import torch

from lowlight_cyclegan.archs import EMAResNetGenerator, self_ensemble


def test_mean_over_the_four_flips():
    """Of a network that writes to its input, as some do."""
    ramp = torch.arange(6.).view(2, 3)

    def net(x):
        return x.mul_(ramp).add_(1)

    x = torch.rand(1, 1, 2, 3)
    before = x.clone()
    (a, b, c), (d, e, f) = ramp.tolist()
    side, middle = (a + c + d + f) / 4, (b + e) / 2  # what a corner and a middle pixel meet in the four flips
    expected = x * torch.tensor([[side, middle, side], [side, middle, side]]) + 1
    torch.testing.assert_close(self_ensemble(net, x), expected)
    assert torch.equal(x, before)


def test_result_turns_with_the_picture():
    torch.manual_seed(0)
    net = EMAResNetGenerator(num_feat=8, num_block=1, ema_factor=4).eval()
    x = torch.rand(1, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        for dims in ((2, ), (3, ), (2, 3)):
            turned = x.flip(dims)
            torch.testing.assert_close(self_ensemble(net, turned), self_ensemble(net, x).flip(dims))
            assert (net(turned) - net(x).flip(dims)).abs().max() > 1e-4


def test_sum_in_the_type_of_the_input():
    x = torch.rand(1, 3, 8, 8)
    y = self_ensemble(lambda image: (image * 3).bfloat16(), x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, (x * 3).bfloat16().float())
