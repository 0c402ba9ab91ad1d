"""How reliable probabilities and pulse energies are: temperature, calibration error, error of an energy."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional

import numpy as np
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.isotonic import isotonic_regression

from train.metrics import effective
from train.metrics.effective import Share

BINS = 15
_WIDEST = np.log(20.0)  # temperatures from 1/20 to 20
_USUAL = np.log(2)  # standard deviation of log(temperature) before any shot was looked at: a factor of two
COVERAGE = 0.9  # of the interval of an energy


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log(probability of the label). logits: (n, classes); labels: (n,) integers."""
    logs = log_softmax(logits.astype(np.float64), axis=1)
    return float(-logs[np.arange(len(labels)), labels].mean())


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The number to divide the logits by for the least cross entropy (Guo, Pleiss, Sun, Weinberger 2017).

    logits: (n, classes); labels: (n,) integers. It is the most probable temperature, if its logarithm is
    normally distributed around 0 before any shot is seen. Without that, a few dozen shots that are all
    classified correctly would give a temperature near 0, with which every later error would be made with
    certainty; 88 such shots give 0.62 here. On 1,184 simulated shots of new runs 0.65 had the least cross
    entropy; a prior half as wide gave 0.81, and there a calibration error of 0.010 where this has 0.004.
    With thousands of shots the prior does not matter.
    """

    def surprise(log: float) -> float:
        return len(labels) * cross_entropy(logits / np.exp(log), labels) + (log / _USUAL) ** 2 / 2

    found = minimize_scalar(surprise, bounds=(-_WIDEST, _WIDEST), method="bounded")
    return float(np.exp(found.x))


class Bin(NamedTuple):
    """Shots with similar probabilities of the class they are called: the mean, and how many are correct."""

    confidence: float
    share: Share

    def to_json(self) -> dict[str, Any]:
        """The bin for result files."""
        counts = {"n": self.share.n, "confidence": self.confidence, "correct": self.share.k}
        return {**counts, **self.share.to_json()}

    @classmethod
    def from_json(cls, of: Mapping[str, Any]) -> "Bin":
        """Read what `to_json` returned."""
        return cls(of["confidence"], Share.from_json(of["n"], of["correct"], of))


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, block: Optional[np.ndarray] = None, bins: int = BINS
) -> list[Bin]:
    """Sort shots into bins by the probability of the class they are called; empty bins are left out.

    probabilities: (n, classes); labels: (n,); block: (n,) of time, as `effective.share` takes it. The `bins`
    have equal widths.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        Bin(float(confidence[mine].mean()), effective.share(correct, block, rows=mine))
        for mine in (number == k for k in np.unique(number))
    ]


def calibration_error(of_bins: list[Bin]) -> float:
    """The expected calibration error: mean of |share correct - mean probability|, weighted by shots."""
    total = sum(each.share.n for each in of_bins)
    return sum(abs(each.share.k - each.share.n * each.confidence) for each in of_bins) / total


class EnergyError(NamedTuple):
    """The error of an estimate E of the pulse energy: below hypot(floor, share * E) in 90 % of the shots.

    floor: mJ.
    """

    floor: float
    share: float

    def half_width(self, energy: np.ndarray) -> np.ndarray:
        """Half the width of the 90 % interval around each estimate, (n,) mJ."""
        return np.hypot(self.floor, self.share * np.maximum(energy, 0))


def energy_error(estimate: np.ndarray, energy: np.ndarray) -> EnergyError:
    """Determine the error from shots that were not trained on. estimate, energy: (n,) mJ, finite.

    The floor is the 90 % quantile of the error among the half of the shots with the lower estimates; the
    share is the smallest with which 90 % of the other half lie within the interval. Both have conformal
    prediction's correction for small numbers of shots (Vovk, Gammerman, Shafer 2005).
    """
    error = np.abs(estimate - energy)
    low = estimate <= np.median(estimate)
    floor = _quantile(error[low])
    rest = np.sqrt(np.maximum(error[~low] ** 2 - floor**2, 0)) / np.maximum(estimate[~low], 1e-9)
    return EnergyError(floor, _quantile(rest) if len(rest) else 0.0)


class EnergyScore(NamedTuple):
    """Estimates of the pulse energy against the gas detector: R^2, Spearman's correlation, rms error in mJ,
    and the share within the interval (None without one)."""

    n: int
    r2: float
    spearman: float
    rms: float
    covered: Optional[float]


def energy_score(
    estimate: np.ndarray, energy: np.ndarray, error: Optional[EnergyError] = None
) -> Optional[EnergyScore]:
    """Compare estimates with the gas detector. estimate, energy: (n,) mJ.

    Shots whose `energy` is NaN are left out; None if fewer than 3 remain, or if all are equal.
    """
    known = np.isfinite(energy)
    estimate, energy = estimate[known].astype(np.float64), energy[known]
    if len(energy) < 3 or not np.ptp(energy) or not np.ptp(estimate):
        return None
    away = estimate - energy
    return EnergyScore(
        len(energy),
        float(1 - (away**2).sum() / ((energy - energy.mean()) ** 2).sum()),
        float(stats.spearmanr(estimate, energy).statistic),
        float(np.sqrt((away**2).mean())),
        None if error is None else float((np.abs(away) <= error.half_width(estimate)).mean()),
    )


class Threshold(NamedTuple):
    """Calling a class from a probability on: `found` of `of` shots, and `false` of `of_others`."""

    threshold: float
    found: int
    of: int
    false: int
    of_others: int


def thresholds(probability: np.ndarray, of_class: np.ndarray) -> list[Threshold]:
    """A few thresholds. probability: (n,) of a class; of_class: (n,) bool, which shots are of that class."""
    return [
        Threshold(
            at,
            int((probability[of_class] >= at).sum()),
            int(of_class.sum()),
            int((probability[~of_class] >= at).sum()),
            int((~of_class).sum()),
        )
        for at in (0.1, 0.5, 0.9, 0.99)
    ]


def half_recognized(energy: np.ndarray, hit: np.ndarray) -> Optional[float]:
    """The pulse energy from which on half of the shots are a hit, mJ; None if more are at every energy.

    Determined by isotonic regression: the share of hits must not fall with the energy. energy: (n,) mJ,
    shots where it is NaN are left out; hit: (n,) bool.
    """
    known = np.isfinite(energy)
    if not known.any():
        return None
    order = np.argsort(energy[known], kind="stable")
    share = isotonic_regression(hit[known][order].astype(float))
    reached = np.flatnonzero(share >= 0.5)
    if not len(reached):
        return float(energy[known].max())
    return float(energy[known][order][reached[0]]) if reached[0] else None


def _quantile(values: np.ndarray) -> float:
    n = len(values)
    return float(np.quantile(values, min(1.0, np.ceil((n + 1) * COVERAGE) / n), method="higher"))
