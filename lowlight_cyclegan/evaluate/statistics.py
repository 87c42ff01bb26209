"""Means over images and how far they can be trusted. Values that are not finite (NIQE of a flat image) are left out."""
import math
import numpy as np

__all__ = ['bootstrap_interval', 'mean_and_error']


def mean_and_error(values):
    """Mean, standard error of the mean, and number of finite values.

    Args:
        values (Sequence[float]): One for each image.

    Returns:
        tuple[float, float, int]: The error is nan below two values, the mean below one.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    return mean, float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan, n


def bootstrap_interval(values, baseline, samples=10000, level=0.95, seed=0):
    """Mean paired difference and its bootstrap interval (percentiles over images drawn with replacement).

    Args:
        values (Sequence[float]): One for each image.
        baseline (Sequence[float]): Of the same images in the same order.
        samples (int): Bootstrap samples. Default: 10000.
        level (float): Of the interval. Default: 0.95.
        seed (int): Of the draws. Default: 0.

    Returns:
        tuple[float, float, float]: Mean, lower and upper end; ends are nan below two images.
    """
    differences = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    differences = differences[np.isfinite(differences)]
    n = len(differences)
    if n < 2:
        return float(differences.mean()) if n else math.nan, math.nan, math.nan
    draws = np.random.default_rng(seed).integers(0, n, (samples, n))
    low, high = np.quantile(differences[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(differences.mean()), float(low), float(high)
