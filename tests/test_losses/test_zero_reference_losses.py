import math
import pytest
import torch

import lowlight_cyclegan

lowlight_cyclegan.register()
from basicsr.losses import build_loss  # noqa: E402
from lowlight_cyclegan.archs import SCI, ZeroDCE  # noqa: E402
from lowlight_cyclegan.losses import color_loss, sci_loss, zero_dce_loss  # noqa: E402


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 2, 3, 16, 20, generator=generator, dtype=torch.float64)


def test_zero_dce_terms_by_their_definitions(images):
    low, enhanced = images
    regions = [image.mean(1).view(2, 4, 4, 5, 4).mean((2, 4)) for image in (enhanced, low)]
    spatial = 0
    for n in range(2):
        for i in range(4):
            for j in range(5):
                for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if 0 <= a < 4 and 0 <= b < 5:
                        y, x = (abs(region[n, i, j] - region[n, a, b]) for region in regions)
                        spatial += (y - x)**2
    assert zero_dce_loss.spatial_consistency(enhanced, low).item() == pytest.approx(spatial.item() / 40)

    exposure = (enhanced[:, :, :, :16].mean((1, 2, 3)) - 0.6).abs().mean()
    assert zero_dce_loss.exposure_control(enhanced, 0.6).item() == pytest.approx(exposure.item())

    red, green, blue = enhanced.mean((2, 3)).unbind(1)
    color = ((red - green)**2 + (red - blue)**2 + (green - blue)**2).mean()
    assert color_loss.color_constancy(enhanced).item() == pytest.approx(color.item())
    by_itself = build_loss({'type': 'ColorConstancyLoss', 'loss_weight': 3})
    assert by_itself(enhanced).item() == pytest.approx(3 * color.item())

    curves = torch.zeros(1, 2, 3, 8, 9)
    curves[:, :, 1] = 0.1 * torch.arange(8).view(8, 1) + 0.2 * torch.arange(9)
    assert zero_dce_loss.smoothness(curves).item() == pytest.approx(0.09)


def test_sci_terms_by_their_definitions(images):
    v, x = images[..., :6, :7]
    total, pairs = {}, {}
    y = 0.299 * v[:, 0] + 0.587 * v[:, 1] + 0.114 * v[:, 2]
    yuv = torch.stack([y, (v[:, 2] - y) / 1.772, (v[:, 0] - y) / 1.402], 1)
    for i in range(6):
        for j in range(7):
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    if (dy or dx) and 0 <= i + dy < 6 and 0 <= j + dx < 7:
                        distance = (yuv[..., i, j] - yuv[..., i + dy, j + dx]).square().sum(1, keepdim=True)
                        term = torch.exp(-distance / (2 * 0.3**2)) * (x[..., i, j] - x[..., i + dy, j + dx]).abs()
                        total[dy, dx] = total.get((dy, dx), 0) + term.mean().item()
                        pairs[dy, dx] = pairs.get((dy, dx), 0) + 1
    expected = sum(total[shift] / pairs[shift] for shift in total)
    assert len(total) == 24
    assert sci_loss.smoothness(v, x, 0.3).item() == pytest.approx(expected, rel=1e-5)
    terms = build_loss({'type': 'SCILoss', 'fidelity_weight': 2, 'sigma': 0.3})([(v, x)] * 2)
    assert terms['l_fidelity'].item() == pytest.approx(4 * ((v - x)**2).mean().item())
    assert terms['l_smoothness'].item() == pytest.approx(2 * expected, rel=1e-5)


@pytest.mark.parametrize('name', ['ZeroDCE', 'SCI'])
def test_they_train_their_networks(name):
    """A few steps on a dark picture make it brighter and the loss smaller."""
    torch.manual_seed(0)
    net, cri = {'ZeroDCE': ZeroDCE(num_feat=8), 'SCI': SCI(num_feat=8)}[name], build_loss({'type': f'{name}Loss'})
    low = 0.3 * torch.rand(2, 3, 16, 16)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses, before = [], net.eval()(2 * low - 1).mean().item()
    for _ in range(12):
        net.train()
        if name == 'SCI':
            terms = cri(net.stages(low))
        else:
            curves = net.curves(low)
            terms = cri(low, net.apply_curves(low, curves), curves)
        loss = sum(terms.values())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(math.isfinite(loss) for loss in losses) and losses[-1] < 0.98 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    if name == 'ZeroDCE':
        assert net.eval()(2 * low - 1).mean().item() > before + 0.05
