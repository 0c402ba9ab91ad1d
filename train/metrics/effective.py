"""The effective sample size: shots of one block of time are alike, so that n of them count for fewer."""

from __future__ import annotations

import math
from typing import Callable

import numpy as np
from scipy import stats

from train.metrics import measure

CONFIDENCE = 0.95
_RESAMPLES = 1000


def sample_size(correct: np.ndarray, labels: np.ndarray, block: np.ndarray) -> tuple[float, int]:
    """The effective sample size, at most n, and its degrees of freedom.

    correct: (n,) bool; labels: (n,); block: (n,), each of one label. n divided by the design effect
    (Kish 1965): the variance of the accuracy from block to block, within each class, over what it
    would be if shots were independent. Blocks that go right or wrong as a whole make it large.
    """
    n, observed, binomial, freedom = len(correct), 0.0, 0.0, 0
    for label in np.unique(labels):
        of_class = labels == label
        share = correct[of_class].mean()
        numbers = np.unique(block[of_class], return_inverse=True)[1]
        sizes = np.bincount(numbers)
        away = np.bincount(numbers, weights=correct[of_class]) - share * sizes
        count = len(sizes)
        binomial += of_class.sum() * share * (1 - share) / n**2
        if count > 1:
            observed += count / (count - 1) * float((away**2).sum()) / n**2
            freedom += count - 1
    design = max(1.0, observed / binomial) if binomial else 1.0
    return n / design, max(freedom, 1)


def interval(share: float, n: float, freedom: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval of a share of `n` (effective) shots; Student's t, because blocks are few."""
    t = float(stats.t.ppf((1 + confidence) / 2, freedom))
    return measure.wilson(share * n, n, t)


def bootstrap(
    statistic: Callable[[np.ndarray], float], block: np.ndarray, seed: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The interval of `statistic(rows)` when whole blocks of rows are drawn again with replacement.

    Percentiles of 1000 draws; (-inf, inf) with fewer than 3 blocks.
    """
    rows = [np.flatnonzero(block == number) for number in np.unique(block)]
    if len(rows) < 3:
        return -math.inf, math.inf
    rng = np.random.default_rng(seed)
    values = [
        statistic(np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))]))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(values, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)
