"""Classical enhancement without parameters to learn: what a network has to beat."""
import numpy as np
import torch

from lowlight_cyclegan.registry import ARCH_REGISTRY
from .baseline_arch import Baseline
from .srgb import from_linear, to_linear

__all__ = ['ExposureGain', 'ExposureGainFusion', 'GammaCurve']


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
