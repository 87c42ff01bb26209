"""What a figure depends on besides method and image."""
from __future__ import annotations

from dataclasses import dataclass

__all__ = ['Protocol']


@dataclass(frozen=True)
class Protocol:
    """What a figure depends on besides method and image. Outputs are rounded to 8 bits, as BasicSR saves them.

    Attributes:
        ssim: Window: 'gaussian' (11x11, sigma 1.5: BasicSR's) or 'uniform' (7x7: scikit-image's default).
        lpips: Trunk of LPIPS: 'alex', 'vgg' or 'squeeze'; 'none' leaves the metric out.
        lpips_trunk: File of its weights.
        psnr_cap: What the PSNR of an image counts at most, so that near-copies do not decide a mean.
        extra: Further metrics, by pyiqa's names.
    """
    ssim: str = 'gaussian'
    lpips: str = 'alex'
    lpips_trunk: str | None = None
    psnr_cap: float | None = None
    extra: tuple[str, ...] = ()

    def describe(self) -> str:
        """The line that is printed with every table."""
        window = 'Gaussian 11x11 (sigma 1.5)' if self.ssim == 'gaussian' else 'uniform 7x7'
        cap = '' if self.psnr_cap is None else f' (of an image at most {self.psnr_cap:g} dB)'
        return (f'PSNR{cap} and SSIM on RGB, border 0, rounding to 8 bits: nearest, resize: off; SSIM window: '
                f"{window}; LPIPS: {self.lpips}, RGB; NIQE: Y; GT-mean PSNR: output scaled to the reference's gray "
                'mean, clipped, not rounded; chroma and brightness against the reference, or the input where there is '
                'none')
