import pytest
import torch
from torch.nn import functional as F

from lowlight_cyclegan.models import DiffAugment


def numbered(n=64, h=16, w=24):
    """No pixel is zero, and none is like its neighbours."""
    return (1 + torch.arange(n * 3 * h * w) % 97).view(n, 3, h, w) / 100


def test_without_names_nothing_happens():
    x, state = numbered(), torch.get_rng_state()
    assert DiffAugment([])(x) is x and torch.equal(state, torch.get_rng_state())


def test_translations_reach_an_eighth_and_bring_zeros():
    torch.manual_seed(0)
    x = numbered(200)
    y = DiffAugment(['translation'])(x)
    seen = set()
    for before, after in zip(x, y):
        padded = F.pad(before, (3, 3, 2, 2))
        place, = [(y, x) for y in range(5) for x in range(7) if torch.equal(padded[:, y:y + 16, x:x + 24], after)]
        seen.add(place)
    assert len(seen) == 5 * 7


def test_cutouts_are_half_the_sides_and_anywhere():
    torch.manual_seed(0)
    x = numbered(300)
    y = DiffAugment(['cutout'])(x)
    assert torch.equal(y[y != 0], x[y != 0])
    holes = (y == 0)
    assert torch.equal(holes[:, :1].expand_as(holes), holes)
    rows, columns = holes[:, 0].any(2), holes[:, 0].any(1)
    assert torch.equal(holes[:, 0], rows[:, :, None] & columns[:, None])
    for inside, side in ((rows, 16), (columns, 24)):
        assert inside.sum(1).max() == side // 2 and inside.any(0).all()
        assert (inside.int().diff(dim=1).abs().sum(1) <= 2).all()  # one piece
        assert side // 4 <= inside.sum(1).min() < side // 2  # some stick out


def test_colours_by_their_definition():
    x = numbered(5)
    torch.manual_seed(3)
    y = DiffAugment(['color'])(x)
    torch.manual_seed(3)
    brightness, saturation, contrast = torch.rand(3, 5)
    for i in range(5):
        image = x[i] + brightness[i] - 0.5
        gray = (image[0] + image[1] + image[2]) / 3
        image = (1 - 2 * saturation[i]) * gray + 2 * saturation[i] * image
        expected = (0.5 - contrast[i]) * image.mean() + (0.5 + contrast[i]) * image
        torch.testing.assert_close(y[i], expected)


def test_gradients_and_draws():
    x, augment = numbered(4).requires_grad_(), DiffAugment(['cutout', 'translation', 'color'])
    torch.manual_seed(5)
    first = augment(x)
    gradient, = torch.autograd.grad(first.square().sum(), x)
    assert ((gradient != 0).flatten(1).float().mean(1) > 0.4).all()
    assert not torch.equal(first, augment(x))
    torch.manual_seed(5)
    assert torch.equal(first, augment(x))


@pytest.mark.parametrize('names', ['cutout', ['cutout', 'flip'], True, [['cutout']]])
def test_other_names_are_refused(names):
    with pytest.raises((ValueError, TypeError)):
        DiffAugment(names)
