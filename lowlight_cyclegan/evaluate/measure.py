"""Measuring one image."""
from __future__ import annotations

import cv2
import hashlib
import json
import numpy as np
import platform
import torch
from collections.abc import Sequence
from dataclasses import asdict

from lowlight_cyclegan import __version__
from lowlight_cyclegan.data.data_util import decode_image
from lowlight_cyclegan.files import file_sha256
from .cache import Cache
from .methods import Method
from .metrics import Metric, applicable, code_fingerprint, select_metrics
from .pairs import Pair
from .protocol import Protocol

__all__ = ['Meter', 'measure_pair']


def measure_pair(output: np.ndarray, target: np.ndarray, protocol: Protocol,
                 metrics: dict[str, Metric]) -> dict[str, float]:
    """Each of the metrics of an output, (h, w, 3) in [0, 255], BGR, against its reference or its input."""
    return {key: float(metric.function(output, target, protocol)) for key, metric in metrics.items()}


class Meter:
    """Measures images by a protocol, and remembers.

    Pictures are kept by method and input, figures by picture, reference and protocol: another metric does not run the
    method again.

    Args:
        protocol: How.
        cache: Asked first, and told.
        only: Columns' keys; None takes all of the protocol.

    Attributes:
        metrics: By their columns' keys.

    Raises:
        ValueError: A metric cannot be had.
    """

    def __init__(self, protocol: Protocol, cache: Cache, only: Sequence[str] | None = None) -> None:
        self.protocol, self.cache = protocol, cache
        self.metrics = {key: metric for key, metric in select_metrics(protocol).items() if only is None or key in only}
        settings = asdict(protocol)
        settings.pop('extra')
        if protocol.lpips_trunk:
            settings['lpips_trunk'] = file_sha256(protocol.lpips_trunk)
        self.fingerprint = _hash(json.dumps([settings, __version__]), code_fingerprint())

    def measure(self, method: Method, pair: Pair) -> dict:
        """Metrics of a method on an image.

        Returns:
            Metrics, ``ms`` of the method on ``machine``, ``picture`` (its file) and ``cached`` (bool: the method did
            not run).

        Raises:
            ValueError: A file cannot be read, or the sizes of a pair differ.
        """
        low, low_sha = _read(pair.low)
        high, high_sha = (low, '') if pair.high is None else _read(pair.high)
        if low.shape != high.shape:
            sizes = ['x'.join(map(str, img.shape[1::-1])) for img in (low, high)]
            raise ValueError(f'{pair.low}: is {sizes[0]}, its reference {pair.high} is {sizes[1]}')
        if min(high.shape[:2]) <= 10:
            raise ValueError(f'{pair.low}: is too small to be measured')
        metrics = applicable(self.metrics, pair.high is not None)
        device = method.enhancer.device
        picture_key = _hash(method.fingerprint, low_sha, device.type, __version__)
        key = _hash(picture_key, high_sha, self.fingerprint)
        run, figures = self.cache.get(picture_key, {'ms', 'machine'}), self.cache.read(key)
        figures = figures if isinstance(figures, dict) else {}
        missing = {name: metric for name, metric in metrics.items() if name not in figures}
        output = cv2.imread(self.cache.picture(picture_key)) if run is not None and missing else None
        cached = run is not None and not (missing and output is None)
        if run is None or not cached:
            output, ms = method.enhance(low)
            output, run = output.round().astype(np.uint8), {'ms': ms, 'machine': _device_name(device)}
            self.cache.put(picture_key, run, output)
        if missing:
            figures.update(measure_pair(output, high, self.protocol, missing))
            self.cache.write(key, figures)
        return {**{name: figures[name] for name in metrics}, **run, 'picture': self.cache.picture(picture_key),
                'cached': cached}


def _hash(*parts: object) -> str:
    return hashlib.sha256('/'.join(map(str, parts)).encode()).hexdigest()


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
