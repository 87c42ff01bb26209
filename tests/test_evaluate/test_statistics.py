import math
import numpy as np
import pytest

from lowlight_cyclegan.evaluate.statistics import bootstrap_interval, mean_and_error


def test_mean_and_error():
    assert mean_and_error([1, 2, 3, 4]) == (2.5, pytest.approx(math.sqrt(5 / 3) / 2), 4)
    assert mean_and_error([1, math.nan, 3, math.inf]) == (2.0, pytest.approx(1.0), 2)
    mean, error, n = mean_and_error([5])
    assert (mean, n) == (5, 1) and math.isnan(error)
    assert math.isnan(mean_and_error([math.nan])[0])


def test_bootstrap_of_a_constant_difference():
    assert bootstrap_interval([3, 5, 9], [1, 3, 7]) == (2, 2, 2)


def test_bootstrap_covers_as_the_normal_interval_does():
    rng = np.random.default_rng(0)
    baseline = rng.normal(0, 50, 400)  # its spread is common to both and must not matter
    values = baseline + rng.normal(1, 2, 400)
    mean, low, high = bootstrap_interval(values, baseline)
    half = 1.96 * mean_and_error(values - baseline)[1]
    assert (low, high) == (pytest.approx(mean - half, abs=0.02), pytest.approx(mean + half, abs=0.02))
    assert bootstrap_interval(values, baseline) == (mean, low, high)


def test_bootstrap_by_enumeration():
    """Of two differences 0 and 1 the mean of a draw is 0, 0.5 or 1 with probabilities 1/4, 1/2, 1/4."""
    assert bootstrap_interval([0, 1], [0, 0]) == (0.5, 0, 1)
    assert bootstrap_interval([0, 1], [0, 0], level=0.4) == (0.5, 0.5, 0.5)


def test_too_few_pairs():
    mean, low, high = bootstrap_interval([math.nan, 2], [0, 1])
    assert mean == 1 and math.isnan(low) and math.isnan(high)
    assert all(map(math.isnan, bootstrap_interval([], [])))
