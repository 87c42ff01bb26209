"""What a figure depends on besides method and image."""
from __future__ import annotations

import numpy as np
from dataclasses import dataclass

__all__ = ['Protocol', 'round_output']


@dataclass(frozen=True)
class Protocol:
    """What a figure depends on besides method and image.

    Attributes:
        color: 'rgb', or 'y' of MATLAB YCbCr, for PSNR and SSIM. LPIPS is always RGB, NIQE always Y.
        border: Pixels left out at each edge by the metrics.
        rounding: Of the output to 8 bits: 'nearest' (as saved by BasicSR), 'floor' (as saved by many others) or 'none'.
        resize: (width, height) of input and reference; None leaves them alone.
        ssim: Window: 'gaussian' (11x11, sigma 1.5: BasicSR's) or 'uniform' (7x7: scikit-image's default).
        lpips: Trunk of LPIPS: 'alex', 'vgg' or 'squeeze'; 'none' leaves the metric out.
        lpips_trunk: File of its weights.
        psnr_cap: What the PSNR of an image counts at most, so that near-copies do not decide a mean.
        extra: Further metrics, by pyiqa's names.
    """
    color: str = 'rgb'
    border: int = 0
    rounding: str = 'nearest'
    resize: tuple[int, int] | None = None
    ssim: str = 'gaussian'
    lpips: str = 'alex'
    lpips_trunk: str | None = None
    psnr_cap: float | None = None
    extra: tuple[str, ...] = ()

    def describe(self) -> str:
        """The line that is printed with every table."""
        window = 'Gaussian 11x11 (sigma 1.5)' if self.ssim == 'gaussian' else 'uniform 7x7'
        resize = 'off' if self.resize is None else '{}x{}'.format(*self.resize)
        cap = '' if self.psnr_cap is None else f' (of an image at most {self.psnr_cap:g} dB)'
        return (f'PSNR{cap} and SSIM on {self.color.upper()}, border {self.border}, rounding to 8 bits: '
                f'{self.rounding}, resize: {resize}; SSIM window: {window}; LPIPS: {self.lpips}, RGB; NIQE: Y; '
                "GT-mean PSNR: output scaled to the reference's gray mean, clipped, not rounded; chroma and brightness "
                'against the reference, or the input where there is none')


def round_output(output: np.ndarray, rounding: str) -> np.ndarray:
    """(h, w, 3) float in [0, 255] -> uint8, or unchanged for 'none'."""
    if rounding == 'none':
        return output
    return (np.floor(output) if rounding == 'floor' else output.round()).astype(np.uint8)
