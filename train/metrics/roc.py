"""The receiver operating characteristic: pure functions of labels and probabilities."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

GRID = np.linspace(0, 1, 201)  # false positive rates at which the band is given


class Curve(NamedTuple):
    """false_positive, true_positive: (k,) rates as the threshold falls, from (0, 0) to (1, 1)."""

    false_positive: np.ndarray
    true_positive: np.ndarray


def curve(positive: np.ndarray, scores: np.ndarray) -> Curve:
    """The ROC curve. positive: (n,) bool, both kinds there; scores: (n,), larger means positive.

    Equal scores are one step: the curve does not depend on their order. The band needs hundreds of
    curves; scikit-learn's takes ten times as long for its checks.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits, false = np.cumsum(positive[order])[ends], np.cumsum(~positive[order])[ends]
    return Curve(np.append(0.0, false / false[-1]), np.append(0.0, hits / hits[-1]))


def area(positive: np.ndarray, scores: np.ndarray, z: float = 1.959964) -> tuple[float, float, float]:
    """The area under the curve and its 95 % interval by DeLong, DeLong, Clarke-Pearson (1988).

    The area is the chance that a positive scores above a negative, ties counting half. Its variance
    is that of the placements, V10 over the positives and V01 over the negatives. The interval is taken
    on the logit scale, so that it stays inside 0 to 1; with an area of 0 or 1 it is that point.
    """
    above, below = scores[positive], scores[~positive]
    hits, false = _placements(above, below), 1 - _placements(below, above)
    value = float(hits.mean())
    variance = _variance(hits) / len(hits) + _variance(false) / len(false)
    if not 0 < value < 1 or not math.isfinite(variance):
        return value, value, value
    center, half = math.log(value / (1 - value)), z * math.sqrt(variance) / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-(center + sign * half))) for sign in (-1, 1))
    return value, low, high


def band(
    positive: np.ndarray, scores: np.ndarray, seed: int = 0, resamples: int = 500
) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % band of the true positive rate at GRID: stratified bootstrap, percentiles point by point."""
    rng = np.random.default_rng(seed)
    above, below = scores[positive], scores[~positive]
    labels = np.append(np.ones(len(above), bool), np.zeros(len(below), bool))
    rates = np.empty((resamples, len(GRID)))
    for i in range(resamples):
        drawn = np.append(rng.choice(above, len(above)), rng.choice(below, len(below)))
        false, hits = curve(labels, drawn)
        rates[i] = hits[np.searchsorted(false, GRID, "right") - 1]
    low, high = np.percentile(rates, [2.5, 97.5], axis=0)
    return low, high


def _placements(of: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each of `of` the share of `among` that lies below it, ties counting half."""
    among = np.sort(among)
    left, right = np.searchsorted(among, of, "left"), np.searchsorted(among, of, "right")
    return (left + right) / (2 * len(among))


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else math.nan
