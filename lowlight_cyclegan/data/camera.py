"""A camera that takes well exposed photographs anew, darker: synthetic low images with known references.

The photograph's sRGB values are decoded to linear light, what its highlights have lost is made up, light is taken away
by a number of stops that is constant or varies over the picture, the sensor adds shot and read noise, and the result is
encoded in 8 bits. This is the usual model of under-exposure; see Brooks et al., "Unprocessing Images for Learned Raw
Denoising", CVPR 2019, for its parts.

Random numbers come from torch's default generator.
"""
import math
import torch
from torch.nn import functional as F

from lowlight_cyclegan.archs.srgb import from_linear, to_linear

__all__ = ['KINDS', 'Camera']

# How light is taken away, and how often.
KINDS = {
    'none': 0.2,  # as the photograph is
    'even': 0.45,  # the same stops everywhere
    'field': 0.12,  # a smooth random field on top, and a lower contrast
    'ramp': 0.1,  # a linear ramp across the picture, in a random direction
    'backlight': 0.23,  # what is dark gets darker, with soft or sharp edges
}


class Camera:
    """Darkens batches of photographs at random.

    Args:
        stops (float): Largest even darkening, in stops. Default: 8.
        kinds (dict[str, float] | None): Relative frequencies of ``KINDS``. Default: those.
        highlights (float): Share of the darkened pictures whose highlights are made brighter than white. Default: 0.25.
        noise (float): Factor of the sensor's noise, which four of five darkened pictures have; reduced photographs have
            less of it than those at full size. 0 is none. Default: 1.
    """

    def __init__(self, stops=8.0, kinds=None, highlights=0.25, noise=1.0):
        unknown = set(kinds or ()) - set(KINDS)
        if unknown:
            raise ValueError(f"kinds: {', '.join(sorted(unknown))} is not known, use {', '.join(KINDS)}")
        self.stops, self.highlights, self.noise = stops, highlights, noise
        self.frequencies = torch.tensor([float((kinds or KINDS).get(kind, 0)) for kind in KINDS])

    def __call__(self, photos):
        """(n, 3, h, w) in [0, 1], sRGB -> the dark pictures, the same in steps of 1/255; stops taken, (n, 1, h, w)."""
        n, _, h, w = photos.shape
        kind = torch.multinomial(self.frequencies, n, replacement=True).to(photos.device)
        none, even, field, ramp, backlight = (
            (kind == index).view(n, 1, 1, 1) for index in range(len(KINDS)))
        stops = self.stops * _rand(photos) * ~none
        stops = torch.where(field, 0.6 * stops, stops)
        # A picture that is dark in part is otherwise often well exposed.
        stops = torch.where(ramp | backlight, stops * torch.where(_rand(photos) < 0.5, 0.1, 0.5), stops)
        stops = stops + field * _field(photos) + ramp * _ramp(photos)
        chosen = backlight.flatten()
        if chosen.any():
            stops[chosen] += _backlight(photos[chosen])
        contrast = 1 + 0.8 * _rand(photos) * (field | (even & (_rand(photos) < 0.15)))
        light = to_linear(photos)**contrast
        # What is white in the photograph was brighter before it was clipped or compressed, a lamp or the sky by far.
        brightest = torch.where(~none & (_rand(photos) < self.highlights), torch.exp2(4 * _rand(photos)), 1)
        light = light / (1 - (1 - 1 / brightest) * light.clamp_max(1)**(1 + 3 * _rand(photos))) * torch.exp2(-stops)
        if self.noise:
            noisy = _rand(photos) < torch.where(none, 0.3, 0.8)
            light = torch.where(noisy, torch.lerp(light, _expose_sensor(light), self.noise), light)
        cast = torch.exp(0.02 * torch.randn(n, 3, 1, 1, device=photos.device) * ~none)
        dark = from_linear(light.clamp(0, 1)) * cast
        return (dark.clamp(0, 1) * 255).round() / 255, stops


def _rand(photos, *shape):
    return torch.rand(len(photos), *(shape or (1, 1, 1)), device=photos.device)


def _field(photos):
    """Smooth field of up to 4 stops, (n, 1, h, w)."""
    field = F.interpolate(_rand(photos, 1, 3, 4), photos.shape[2:], mode='bicubic', align_corners=True)
    return 4 * _rand(photos) * field.clamp(0, 1)


def _ramp(photos):
    """Linear ramp from 0 to between 1 and 5 stops, (n, 1, h, w)."""
    rows, columns = (torch.linspace(-1, 1, size, device=photos.device) for size in photos.shape[2:])
    angle = 2 * math.pi * _rand(photos)
    ramp = columns * angle.cos() + rows[:, None] * angle.sin()
    low, high = ramp.amin((2, 3), keepdim=True), ramp.amax((2, 3), keepdim=True)
    return (ramp - low) / (high - low) * (1 + 4 * _rand(photos))


def _backlight(photos):
    """Between 0.5 and 5.5 stops where the surroundings are dark, (n, 1, h, w)."""
    luminance = photos.mean(1, keepdim=True)
    masks = []
    for picture in luminance.split(1):
        radius = (2, 4, 8, 12)[int(torch.randint(4, ()))]
        radius = min(radius, min(picture.shape[2:]) - 1)
        around = _box(picture, radius)
        threshold = around.flatten().quantile(0.3 + 0.65 * torch.rand(()).item())
        mask = torch.sigmoid((threshold - around) * 10**(0.8 + 1.5 * torch.rand(()).item()))
        if torch.rand(()) < 0.6:  # edges of the picture, as where a dark object ends
            mask = _guided(picture, mask, radius, 10**(2 * torch.rand(()).item() - 4)).clamp(0, 1)
        masks.append(mask)
    return torch.cat(masks) * (0.5 + 5 * _rand(photos))


def _expose_sensor(light):
    """Shot and read noise of a sensor with a full well of 1,000 to 20,000 electrons, at times blurred by processing."""
    well, read = 10**(3 + 1.3 * _rand(light)), 1 + 5 * _rand(light)
    electrons = light * well
    white_balance = torch.exp(0.3 * torch.randn(len(light), 3, 1, 1, device=light.device))  # lifts channels unequally
    noise = electrons.clamp_min(0).sqrt() * torch.randn_like(light) + read * torch.randn_like(light)
    noise = white_balance * noise
    blurred = 2 * _box(noise, 1)
    noise = torch.where(_rand(light) < 0.3, torch.lerp(noise, blurred, _rand(light)), noise)
    return (electrons + noise) / well


def _box(x, radius):
    """Mean over squares of 2 radius + 1 pixels."""
    return F.avg_pool2d(F.pad(x, (radius, ) * 4, mode='reflect'), 2 * radius + 1, 1)


def _guided(guide, x, radius, ridge):
    """Guided filter of x (He et al., TPAMI 2013), all (1, 1, h, w)."""
    mean_guide, mean_x = _box(guide, radius), _box(x, radius)
    slope = (_box(guide * x, radius) - mean_guide * mean_x) / (_box(guide * guide, radius) - mean_guide**2 + ridge)
    return _box(slope, radius) * guide + _box(mean_x - slope * mean_guide, radius)
