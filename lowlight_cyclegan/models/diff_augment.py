"""Differentiable augmentation of what discriminators see.

Reference: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020.
"""
import torch
from torch.nn import functional as F

__all__ = ['DiffAugment']


class DiffAugment:
    """Changes each image at random, real and generated ones alike; gradients flow through.

    The draws are those of torch's generator on the CPU.

    Args:
        names (list[str]): Of 'color', 'translation' and 'cutout', applied in this order. 'color' hides the exposure
            from the discriminator.

    Raises:
        ValueError: If names is no list of these.
    """

    def __init__(self, names):
        if not isinstance(names, (list, tuple)) or not AUGMENTATIONS.keys() >= set(names):
            raise ValueError(f"augmentations are a list of {', '.join(AUGMENTATIONS)}, got {names!r}.")
        self.augmentations = [augment for name, augment in AUGMENTATIONS.items() if name in names]

    def __call__(self, images):
        """(n, 3, h, w) in [-1, 1] -> the same shape; 'color' may leave the range."""
        for augment in self.augmentations:
            images = augment(images)
        return images


def _color(x):
    """Brightness by up to 0.5 either way, saturation by 0 to 2, contrast by 0.5 to 1.5."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1).to(x)
    x = x + (brightness - 0.5)
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (2 * saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (contrast + 0.5)


def _translate(x):
    """By up to an eighth of the sides; zeros come in."""
    n, _, h, w = x.shape
    reach_y, reach_x = h // 8, w // 8
    tops, lefts = torch.randint(2 * reach_y + 1, (n, )).tolist(), torch.randint(2 * reach_x + 1, (n, )).tolist()
    padded = F.pad(x, (reach_x, reach_x, reach_y, reach_y))
    return torch.stack([image[:, top:top + h, left:left + w] for image, top, left in zip(padded, tops, lefts)])


def _cut_out(x):
    """Zeros in a rectangle of half the sides, whose centre is anywhere in the image."""
    inside = []
    for side in x.shape[2:]:
        start = torch.randint(side, (len(x), 1)) - side // 4
        position = torch.arange(side)
        inside.append((position >= start) & (position < start + side // 2))
    rows, columns = inside
    return x * ~(rows[:, None, :, None] & columns[:, None, None, :]).to(x.device)


AUGMENTATIONS = {'color': _color, 'translation': _translate, 'cutout': _cut_out}
