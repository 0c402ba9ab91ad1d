"""The receiver operating characteristic: pure functions of labels and probabilities."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

import numpy as np
from scipy.special import expit

from train.metrics import effective

GRID = np.linspace(0, 1, 201)  # false positive rates at which the band is given


class Curve(NamedTuple):
    """The rates as the threshold falls, from (0, 0) to (1, 1); each (k,)."""

    false_positive: np.ndarray
    true_positive: np.ndarray


def curve(positive: np.ndarray, scores: np.ndarray) -> Curve:
    """The ROC curve. positive: (n,) bool, some true and some false; scores: (n,), larger means positive.

    Equal scores are one step, so the curve does not depend on their order. The band needs hundreds of
    curves, and scikit-learn's checks take a millisecond each, 19 times as long as a curve of 300 scores.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits, false = np.cumsum(positive[order])[ends], np.cumsum(~positive[order])[ends]
    return Curve(np.append(0.0, false / false[-1]), np.append(0.0, hits / hits[-1]))


def area(
    positive: np.ndarray, scores: np.ndarray, block: Optional[np.ndarray] = None
) -> tuple[float, float, float]:
    """The area under the curve and its 95 % interval by blocks of time (Obuchowski 1997).

    The area is the probability that a positive scores above a negative; ties count half. Its variance is
    that of the sums of placements over blocks; if every shot is a block (`block` None: shots have no times)
    it is that of DeLong, DeLong, Clarke-Pearson (1988). The interval is computed on the logit scale, so that
    it stays within 0 to 1; for an area of 0 or 1 it is that point. positive: (n,) bool; scores, block: (n,).
    """
    timed = block is not None
    block = np.unique(block, return_inverse=True)[1] if timed else np.arange(len(scores))
    above, below = scores[positive], scores[~positive]
    hits, false = _placements(above, below), 1 - _placements(below, above)
    value = float(hits.mean())
    variance, freedom = 0.0, 0
    sums = []
    for placements, mine in ((hits, positive), (false, ~positive)):
        sums.append(np.bincount(block[mine], placements - value, block.max() + 1) / len(placements))
        count = len(np.unique(block[mine]))
        variance += float((sums[-1] ** 2).sum()) * (count / (count - 1) if count > 1 else math.nan)
        freedom += count - 1
    variance += 2 * float((sums[0] * sums[1]).sum())  # of blocks that hold both kinds
    if not 0 < value < 1:
        return value, value, value
    if not variance >= 0:  # a kind with a single block: nothing tells how sure the area is
        return value, 0.0, 1.0
    t = effective.quantile(effective.CONFIDENCE, freedom if timed else None)
    center, half = math.log(value / (1 - value)), t * math.sqrt(variance) / (value * (1 - value))
    low, high = (expit(center + sign * half) for sign in (-1, 1))
    return value, float(low), float(high)


def band(
    positive: np.ndarray,
    scores: np.ndarray,
    block: Optional[np.ndarray] = None,
    seed: int = 0,
    resamples: int = 500,
) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % band of the true positive rate at GRID, two arrays (201,).

    Whole blocks of positives, and of negatives, are drawn with replacement; the band is made of percentiles
    at each point. block: (n,) of time; None: each shot is drawn by itself.
    """
    rng = np.random.default_rng(seed)
    block = np.arange(len(scores)) if block is None else block
    kinds = []
    for mine in (positive, ~positive):
        number = np.unique(block[mine], return_inverse=True)[1]
        kinds.append((scores[mine], number, int(number.max()) + 1))
    rates = np.empty((resamples, len(GRID)))
    for i in range(resamples):
        drawn = [
            np.repeat(of, rng.multinomial(count, np.full(count, 1 / count))[number])
            for of, number, count in kinds
        ]
        labels = np.append(np.ones(len(drawn[0]), bool), np.zeros(len(drawn[1]), bool))
        false, hits = curve(labels, np.concatenate(drawn))
        rates[i] = hits[np.searchsorted(false, GRID, "right") - 1]
    low, high = np.percentile(rates, [2.5, 97.5], axis=0)
    return low, high


def _placements(of: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each of `of` the share of `among` that is below it; ties count half."""
    among = np.sort(among)
    left, right = np.searchsorted(among, of, "left"), np.searchsorted(among, of, "right")
    return (left + right) / (2 * len(among))
