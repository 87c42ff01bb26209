"""The metrics, and measuring one image with them."""
from __future__ import annotations

import cv2
import hashlib
import inspect
import json
import math
import numpy as np
import platform
import torch
from basicsr.metrics.metric_util import to_y_channel
from basicsr.utils.registry import METRIC_REGISTRY
from collections.abc import Callable
from dataclasses import asdict, dataclass

from lowlight_cyclegan import __version__
from lowlight_cyclegan.data.data_util import decode_image
from lowlight_cyclegan.files import file_sha256
from .cache import Cache
from .methods import Method
from .pairs import Pair
from .protocol import Protocol, round_output

__all__ = ['METRICS', 'Metric', 'gt_mean', 'measure', 'measure_pair', 'protocol_fingerprint', 'ssim_uniform']


@dataclass(frozen=True)
class Metric:
    """A column of the tables.

    Attributes:
        heading: How it is called there.
        better: 'higher' or 'lower'.
        decimals: How it is written.
        function: Called on the output, (h, w, 3) in [0, 255], BGR, rounded as the protocol says, its reference,
            (h, w, 3) uint8, BGR, and the protocol.
    """
    heading: str
    better: str
    decimals: int
    function: Callable[[np.ndarray, np.ndarray, Protocol], float]


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


def ssim_uniform(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, test_y_channel: bool = False) -> float:
    """SSIM with a uniform 7x7 window and sample covariances, as scikit-image has it, mean over channels.

    Reference: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, eq. 13.

    Args:
        img: (h, w, 3) in [0, 255], BGR.
        img2: The same shape.
        crop_border: Pixels left out at each edge.
        test_y_channel: On Y of (MATLAB) YCbCr.
    """
    x, y = (img[crop_border:img.shape[0] - crop_border, crop_border:img.shape[1] - crop_border] for img in (img, img2))
    if test_y_channel:
        x, y = to_y_channel(x), to_y_channel(y)
    x, y = x.astype(np.float64), y.astype(np.float64)

    def mean(z):
        return cv2.blur(z, (7, 7)).reshape(z.shape)[3:-3, 3:-3]

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y, cov = (49 / 48 * (mean(a * b) - mean_a * mean_b)
                         for a, b, mean_a, mean_b in ((x, x, mean_x, mean_x), (y, y, mean_y, mean_y),
                                                      (x, y, mean_x, mean_y)))
    c1, c2 = (0.01 * 255)**2, (0.03 * 255)**2
    ssim = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(ssim.mean())


def _psnr(output, reference, protocol):
    return METRIC_REGISTRY.get('calculate_psnr')(output, reference, **_options(protocol))


def _psnr_gt_mean(output, reference, protocol):
    return _psnr(gt_mean(output, reference), reference, protocol)


def _ssim(output, reference, protocol):
    function = ssim_uniform if protocol.ssim == 'uniform' else METRIC_REGISTRY.get('calculate_ssim')
    return function(output, reference, **_options(protocol))


def _lpips(output, reference, protocol):
    if protocol.lpips == 'none':
        return math.nan
    return METRIC_REGISTRY.get('calculate_lpips')(output, reference, crop_border=protocol.border, net=protocol.lpips,
                                                  trunk=protocol.lpips_trunk)


def _niqe(output, reference, protocol):
    return METRIC_REGISTRY.get('calculate_niqe_tolerant')(output, crop_border=protocol.border)


METRICS = {
    'psnr': Metric('PSNR', 'higher', 3, _psnr),
    'psnr_gt_mean': Metric('GT-mean PSNR', 'higher', 3, _psnr_gt_mean),
    'ssim': Metric('SSIM', 'higher', 4, _ssim),
    'lpips': Metric('LPIPS', 'lower', 4, _lpips),
    'niqe': Metric('NIQE', 'lower', 3, _niqe),
}
REGISTERED = ('calculate_psnr', 'calculate_ssim', 'calculate_lpips', 'calculate_niqe_tolerant')  # that they call


def _options(protocol: Protocol) -> dict:
    return dict(crop_border=protocol.border, test_y_channel=protocol.color == 'y')


def protocol_fingerprint(protocol: Protocol) -> str:
    """SHA-256 of the settings, of the trunk's file, and of the code that measures."""
    settings = asdict(protocol)
    if protocol.lpips_trunk:
        settings['lpips_trunk'] = file_sha256(protocol.lpips_trunk)
    digest = hashlib.sha256(json.dumps([settings, __version__]).encode())
    for code in (*map(METRIC_REGISTRY.get, REGISTERED), measure, round_output):
        with open(inspect.getsourcefile(code), 'rb') as f:
            digest.update(f.read())
    return digest.hexdigest()


def measure_pair(output: np.ndarray, reference: np.ndarray, protocol: Protocol) -> dict[str, float]:
    """Each of `METRICS` of an output, (h, w, 3) in [0, 255], BGR, against its reference."""
    return {key: float(metric.function(output, reference, protocol)) for key, metric in METRICS.items()}


def measure(method: Method, pair: Pair, protocol: Protocol, fingerprint: str, cache: Cache) -> dict:
    """Metrics of a method on a pair, from the cache where they are there.

    Args:
        method: What is measured.
        pair: On what.
        protocol: How.
        fingerprint: :func:`protocol_fingerprint` of it, taken once.
        cache: Asked first, and told.

    Returns:
        Metrics, ``ms`` of the method on ``machine``, ``picture`` (its file) and ``cached`` (bool).

    Raises:
        ValueError: A file cannot be read, or the sizes of a pair differ.
    """
    (low, low_sha), (high, high_sha) = _read(pair.low), _read(pair.high)
    if low.shape != high.shape:
        sizes = ['x'.join(map(str, img.shape[1::-1])) for img in (low, high)]
        raise ValueError(f'{pair.low}: is {sizes[0]}, its reference {pair.high} is {sizes[1]}')
    if min(high.shape[:2]) <= 2 * protocol.border + 10 and protocol.resize is None:
        raise ValueError(f'{pair.low}: is too small to be measured with --border {protocol.border}')
    device = method.enhancer.device
    key = hashlib.sha256('/'.join([method.fingerprint, low_sha, high_sha, fingerprint, device.type]).encode())
    key = key.hexdigest()
    record, cached = cache.get(key, {'ms', 'machine', *METRICS}), True
    if record is None:
        if protocol.resize is not None:
            low, high = (cv2.resize(img, protocol.resize, interpolation=cv2.INTER_AREA) for img in (low, high))
        output, ms = method.enhance(low)
        output = round_output(output, protocol.rounding)
        record, cached = {**measure_pair(output, high, protocol), 'ms': ms, 'machine': _device_name(device)}, False
        cache.put(key, record, round_output(output, 'nearest'))
    return {**record, 'picture': cache.picture(key), 'cached': cached}


def _read(path: str) -> tuple[np.ndarray, str]:
    """(h, w, 3) uint8, BGR, and the file's SHA-256."""
    try:
        with open(path, 'rb') as f:
            content = f.read()
        return decode_image(content), hashlib.sha256(content).hexdigest()
    except (OSError, ValueError) as error:
        raise ValueError(f'{path}: cannot be read: {error}') from None


def _device_name(device: torch.device) -> str:
    """Where milliseconds were measured, for the table's notes."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
