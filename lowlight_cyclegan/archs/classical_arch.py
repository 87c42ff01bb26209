"""Classical enhancement without parameters to learn: what a network has to beat."""
import numpy as np
import torch
from torch.nn import functional as F

from lowlight_cyclegan.registry import ARCH_REGISTRY
from .baseline_arch import Baseline
from .srgb import from_linear, to_linear

__all__ = ['CLAHE', 'ExposureGain', 'ExposureGainFusion', 'GammaCurve', 'LIME']


@ARCH_REGISTRY.register()
class GammaCurve(Baseline):
    """The same power of every value.

    Args:
        gamma (float): Exponent. Default: 0.26, the best one for LOL's 485 training pairs.
    """

    def __init__(self, gamma=0.26):
        super().__init__()
        self.gamma = gamma

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        return x.clamp(0, 1)**self.gamma


@ARCH_REGISTRY.register()
class CLAHE(Baseline):
    """Contrast-limited adaptive histogram equalisation of lightness L in CIELAB, by OpenCV, on 8 bits and on the CPU.

    Reference: Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994.

    Args:
        clip_limit (float): Limit of a histogram bin over the average bin. Default: 2.
        grid (int): Tiles along each side. Default: 8.
    """

    def __init__(self, clip_limit=2.0, grid=8):
        super().__init__()
        self.clip_limit, self.grid = clip_limit, grid

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        import cv2
        images = (x.detach() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        clahe = cv2.createCLAHE(self.clip_limit, (self.grid, self.grid))
        enhanced = []
        for image in images:
            lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
            lab[..., 0] = clahe.apply(lab[..., 0])
            enhanced.append(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))
        return torch.from_numpy(np.stack(enhanced)).permute(0, 3, 1, 2).to(x) / 255


@ARCH_REGISTRY.register()
class LIME(Baseline):
    """Division by an illumination map: the brightest channel, smoothed but for its edges, to a power.

    NOTE the paper refines the map by solving a large sparse system; here a guided filter does, with the map as its own
    guide. BM3D denoising is left out.

    References: Guo et al., "LIME: Low-Light Image Enhancement via Illumination Map Estimation", TIP 2017; He et al.,
    "Guided Image Filtering", TPAMI 2013.

    Args:
        gamma (float): Exponent of the map. Default: 0.8.
        radius (int): Of the filter's window, in pixels. Default: 15.
        eps (float): What the filter takes for texture: variances below, on a map whose maximum is 1. Default: 0.01.
    """

    def __init__(self, gamma=0.8, radius=15, eps=0.01):
        super().__init__()
        self.gamma, self.radius, self.eps = gamma, radius, eps

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        illumination = self.refine(x.amax(1, keepdim=True))
        return (x / illumination.clamp(1 / 255, 1)**self.gamma).clamp(0, 1)

    def refine(self, initial):
        """Map of the brightest channel (n, 1, h, w) -> the smoothed map."""
        scale = initial.amax((1, 2, 3), keepdim=True).clamp(min=1 / 255)
        guide = initial / scale
        mean = self.average(guide)
        variance = self.average(guide * guide) - mean**2
        slope = variance / (variance + self.eps)
        return scale * (self.average(slope) * guide + self.average((1 - slope) * mean))

    def average(self, x):
        """Mean over the part of the window that is inside the picture."""
        r = self.radius
        x = F.avg_pool2d(x, (2 * r + 1, 1), 1, (r, 0), count_include_pad=False)
        return F.avg_pool2d(x, (1, 2 * r + 1), 1, (0, r), count_include_pad=False)


@ARCH_REGISTRY.register()
class ExposureGain(Baseline):
    """One factor for all pixels in linear light: the exposure that brings the mean of the picture to a target.

    The factor is 2 to the power of 0 to 9 stops, found by twenty bisections; the mean is that of the clipped sRGB
    values over pixels and channels. Black stays black, and a picture that is bright enough stays as it is.

    Args:
        target (float): Mean in [0, 1]. Default: 0.45.
    """

    def __init__(self, target=0.45):
        super().__init__()
        self.target = target

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        light = to_linear(x)
        for image in light:
            image.mul_(2**self.stops(image)).clamp_(max=1)
        return from_linear(light)

    def stops(self, light):
        """Logarithm to base 2 of the factor for an image in linear light, of any shape."""
        values, counts = light.double().unique(return_counts=True)  # at most 256 of an 8-bit picture
        low, high = 0., 9.
        for _ in range(20):
            middle = (low + high) / 2
            mean = (from_linear((values * 2**middle).clamp(max=1)) * counts).sum() / counts.sum()
            low, high = (middle, high) if mean < self.target else (low, middle)
        return low


@ARCH_REGISTRY.register()
class ExposureGainFusion(ExposureGain):
    """Exposure fusion of the picture and its :class:`ExposureGain`, by OpenCV, on 8 bits and on the CPU.

    Reference: Mertens et al., "Exposure Fusion: A Simple and Practical Alternative to High Dynamic Range Photography",
    Computer Graphics Forum 2009.
    """

    def enhance(self, x):
        """(n, 3, h, w) in [0, 1] -> the same shape and range."""
        import cv2
        dark, bright = ((images.detach() * 255).round().to(torch.uint8).flip(1).permute(0, 2, 3, 1).cpu().numpy()
                        for images in (x.clamp(0, 1), super().enhance(x)))
        merge = cv2.createMergeMertens()
        fused = np.stack([merge.process([a, b]) for a, b in zip(dark, bright)])
        return torch.from_numpy(fused).permute(0, 3, 1, 2).flip(1).to(x).clamp(0, 1)
