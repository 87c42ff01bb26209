"""The metrics of the tables. To add one: a function and an entry of `METRICS`."""
from __future__ import annotations

import cv2
import hashlib
import inspect
import math
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY
from collections.abc import Callable
from dataclasses import dataclass
from skimage.color import deltaE_ciede2000
from skimage.metrics import structural_similarity

from lowlight_cyclegan import register
from lowlight_cyclegan.metrics.metric_util import default_device
from lowlight_cyclegan.metrics.pyiqa_metric import build_pyiqa
from .protocol import Protocol

__all__ = ['METRICS', 'Metric', 'applicable', 'code_fingerprint', 'gt_mean', 'select_metrics']

register()  # METRIC_REGISTRY holds ours, too

Function = Callable[[np.ndarray, np.ndarray, Protocol], float]


@dataclass(frozen=True)
class Metric:
    """A column of the tables.

    Attributes:
        heading: How it is called there.
        better: 'higher', 'lower', or None where neither is.
        decimals: How it is written.
        function: Called on the output and on the reference or, where there is none, the input, both (h, w, 3) uint8,
            BGR, and on the protocol.
        data: 'paired' where it needs a reference, 'single' where it is for images without one, or 'any'.
    """
    heading: str
    better: str | None
    decimals: int
    function: Function
    data: str = 'paired'


def _psnr(output: np.ndarray, reference: np.ndarray, protocol: Protocol) -> float:
    psnr = METRIC_REGISTRY.get('calculate_psnr')(output, reference, crop_border=0)
    return psnr if protocol.psnr_cap is None else min(psnr, protocol.psnr_cap)


def gt_mean(output: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Output scaled to the mean of the reference, both of their gray images, and clipped.

    Args:
        output: (h, w, 3) in [0, 255], BGR.
        reference: The same shape.

    Returns:
        (h, w, 3) float64 in [0, 255].
    """
    means = [cv2.cvtColor(img.astype(np.float32), cv2.COLOR_BGR2GRAY).mean(dtype=np.float64)
             for img in (output, reference)]
    return (output * (means[1] / max(means[0], 1e-6))).clip(0, 255)


def _psnr_gt_mean(output: np.ndarray, reference: np.ndarray, protocol: Protocol) -> float:
    return _psnr(gt_mean(output, reference), reference, protocol)


def _ssim(output: np.ndarray, reference: np.ndarray, protocol: Protocol) -> float:
    """With a uniform 7x7 window it is scikit-image's, the mean over channels."""
    if protocol.ssim == 'gaussian':
        return METRIC_REGISTRY.get('calculate_ssim')(output, reference, crop_border=0)
    images = (img.astype(np.float64) for img in (output, reference))
    return structural_similarity(*images, channel_axis=2, data_range=255)


def _lpips(output: np.ndarray, reference: np.ndarray, protocol: Protocol) -> float:
    if protocol.lpips == 'none':
        return math.nan
    return METRIC_REGISTRY.get('calculate_lpips')(output, reference, net=protocol.lpips, trunk=protocol.lpips_trunk)


def _lab(img: np.ndarray) -> np.ndarray:
    """CIELAB of a copy that is reduced by four: colours of things, which noise hardly touches."""
    small = cv2.resize(img, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor((small / 255).astype(np.float32), cv2.COLOR_BGR2LAB)


def _delta_e(output: np.ndarray, reference: np.ndarray, protocol: Protocol) -> float:
    """Mean CIEDE2000 (Sharma et al., Color Research and Application 2005)."""
    return deltaE_ciede2000(_lab(output), _lab(reference)).mean()


def _chroma(output: np.ndarray, target: np.ndarray, protocol: Protocol) -> float:
    """Ratio of the mean distances from gray in CIELAB: below 1 the output is paler."""
    means = [np.hypot(lab[..., 1], lab[..., 2]).mean() for lab in (_lab(output), _lab(target))]
    return means[0] / max(means[1], 1e-3)


def _niqe(output: np.ndarray, target: np.ndarray, protocol: Protocol) -> float:
    return METRIC_REGISTRY.get('calculate_niqe_tolerant')(output, crop_border=0)


def _brightness(output: np.ndarray, target: np.ndarray, protocol: Protocol) -> float:
    """Difference of the means over pixels and channels, white being 1."""
    return (output.mean(dtype=np.float64) - target.mean(dtype=np.float64)) / 255


def _clipped(output: np.ndarray, target: np.ndarray, protocol: Protocol) -> float:
    """Percentage of pixels in which a channel is at its upper end."""
    return 100 * (output >= 254.5).any(2).mean()


METRICS = {
    'psnr': Metric('PSNR', 'higher', 3, _psnr),
    'psnr_gt_mean': Metric('GT-mean PSNR', 'higher', 3, _psnr_gt_mean),
    'ssim': Metric('SSIM', 'higher', 4, _ssim),
    'lpips': Metric('LPIPS', 'lower', 4, _lpips),
    'delta_e': Metric('CIEDE2000', 'lower', 3, _delta_e),
    'chroma': Metric('chroma', None, 3, _chroma, 'any'),
    'niqe': Metric('NIQE', 'lower', 3, _niqe, 'any'),
    'brightness': Metric('brightness', None, 3, _brightness, 'single'),
    'clipped': Metric('clipped %', 'lower', 2, _clipped, 'single'),
}
REGISTERED = ('calculate_psnr', 'calculate_ssim', 'calculate_lpips', 'calculate_niqe_tolerant')  # that these call


def select_metrics(protocol: Protocol) -> dict[str, Metric]:
    """`METRICS` and the protocol's further ones, by their columns' keys.

    Raises:
        ValueError: pyiqa is not there, or a metric of it cannot be had.
    """
    metrics = dict(METRICS)
    for name in protocol.extra:
        network = build_pyiqa(name, default_device())
        key = f'pyiqa_{name}' if name in metrics else name
        metrics[key] = Metric(name, 'lower' if network.lower_better else 'higher', 4, _pyiqa(name),
                              'paired' if network.metric_mode == 'FR' else 'any')
    return metrics


def _pyiqa(name: str) -> Function:

    def function(output: np.ndarray, target: np.ndarray, protocol: Protocol) -> float:
        return METRIC_REGISTRY.get('calculate_pyiqa')(output, target, metric=name)

    return function


def applicable(metrics: dict[str, Metric], paired: bool) -> dict[str, Metric]:
    """Those for images with a reference, or for images without one."""
    return {key: metric for key, metric in metrics.items()
            if metric.data in ('any', 'paired' if paired else 'single')}


def code_fingerprint() -> str:
    """SHA-256 of the code that measures."""
    digest = hashlib.sha256()
    for code in (*map(METRIC_REGISTRY.get, REGISTERED), select_metrics):
        with open(inspect.getsourcefile(code) or '', 'rb') as f:
            digest.update(f.read())
    return digest.hexdigest()
