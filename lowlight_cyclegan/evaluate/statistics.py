"""Means over images and how far they can be trusted. Values that are not finite (NIQE of a flat image) are left out."""
from __future__ import annotations

import math
import numpy as np
from collections.abc import Sequence

__all__ = ['bootstrap_interval', 'mean_and_error']


def mean_and_error(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, standard error of the mean, and number of finite values.

    Args:
        values: One for each image.

    Returns:
        The error is nan below two values, the mean below one.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    n = len(finite)
    mean = float(finite.mean()) if n else math.nan
    return mean, float(finite.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan, n


def bootstrap_interval(values: Sequence[float], baseline: Sequence[float], samples: int = 10000, level: float = 0.95,
                       seed: int = 0) -> tuple[float, float, float]:
    """Mean paired difference and its bootstrap interval (percentiles over images drawn with replacement).

    Args:
        values: One for each image.
        baseline: Of the same images in the same order.
        samples: Bootstrap samples.
        level: Of the interval.
        seed: Of the draws.

    Returns:
        Mean, lower and upper end; ends are nan below two images.
    """
    differences = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    differences = differences[np.isfinite(differences)]
    n = len(differences)
    if n < 2:
        return float(differences.mean()) if n else math.nan, math.nan, math.nan
    draws = np.random.default_rng(seed).integers(0, n, (samples, n))
    low, high = np.quantile(differences[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(differences.mean()), float(low), float(high)
