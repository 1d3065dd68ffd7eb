"""Shares of images, metrics, and their confidence intervals."""

import math

import numpy as np

Z = 1.96  # of a confidence interval of 95 %
SAMPLES = 1000  # of a bootstrap


def share(flags: np.ndarray) -> float:
    """The share of true values."""
    return float(np.mean(flags))


def paired_interval(more: int, less: int, count: int, z: float = Z) -> tuple[float, float]:
    """The interval of a difference of shares on the same images (Agresti, Min 2005).

    Args:
        more, less: number of images in the first share alone, and in the second alone.
        count: of all images.
        z: standard errors to each side.
    """
    middle = (more - less) / (count + 2)  # half an image more of each kind, so that no difference has a width
    spread = z * math.sqrt(more + less + 1 - (more - less) ** 2 / (count + 2)) / (count + 2)
    return float(middle - spread), float(middle + spread)


def wilson(part: float, count: int, z: float = Z) -> tuple[float, float]:
    """The interval of `z` standard errors around a share of `count` (Wilson 1927)."""
    middle = part + z**2 / (2 * count)
    spread = z * math.sqrt(part * (1 - part) / count + z**2 / (4 * count**2))
    low, high = (middle - spread) / (1 + z**2 / count), (middle + spread) / (1 + z**2 / count)
    return max(low, 0.0), min(high, 1.0)


def quotients(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """The quotients of counts; 0 where both are 0."""
    return parts / np.maximum(wholes, 1)


def samples(count: int) -> np.ndarray:
    """Number of times that each of `count` images is in each sample, `(samples, count)`.

    The first has all images once; the others are drawn with replacement, always the same ones, so that those
    of two networks on the same images are paired.
    """
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), SAMPLES)
    return np.concatenate([np.ones((1, count)), drawn])


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """The interval in which 95 % of a metric's values over the `samples` that are drawn lie (Efron 1979)."""
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return float(low), float(high)
