"""Accuracy and its uncertainty: pure functions of numbers and arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats


class Score(NamedTuple):
    """`correct` of `n`, against `chance`, the share of the larger class."""

    n: int
    correct: int
    chance: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def z(self) -> float:
        """Z = (acc n - n/2) / sqrt(n/4), the 2016 study's: standard deviations from guessing by a coin."""
        return (self.correct - self.n / 2) / math.sqrt(self.n / 4)

    @property
    def p_value(self) -> float:
        """One-tailed binomial: the chance of `correct` or more when always guessing the larger class."""
        return float(stats.binom.sf(self.correct - 1, self.n, self.chance))

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson 95 % interval of the accuracy."""
        return wilson(self.correct, self.n)

    def __str__(self) -> str:
        """The accuracy with its interval, the number of shots and the share of the larger class."""
        low, high = self.interval
        return (
            f"accuracy {self.accuracy:.3f} [{low:.3f}, {high:.3f}] of {self.n} shots, always guessing the "
            f"larger class {self.chance:.3f}"
        )


class EnergyBand(NamedTuple):
    """Lasing shots of a band of pulse energy, mJ: how many, how many of them were found."""

    name: str
    low: float
    high: float
    n: int
    found: int


def score(labels: np.ndarray, predicted: np.ndarray) -> Score:
    """labels, predicted: (n,) integers."""
    largest = int(np.bincount(labels).max())
    return Score(len(labels), int((labels == predicted).sum()), largest / len(labels))


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts: row the true class, column the predicted one."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def energy_bands(
    energy: np.ndarray, labels: np.ndarray, predicted: np.ndarray, lasing: int
) -> tuple[list[EnergyBand], int]:
    """The lasing shots in thirds of pulse energy: weak, medium, strong; and how many have no energy.

    energy: (n,) mJ, NaN where unknown. lasing: the label of the lasing class.
    """
    of_class = labels == lasing
    known = of_class & np.isfinite(energy)
    unknown = int(of_class.sum() - known.sum())
    order = np.flatnonzero(known)[np.argsort(energy[known], kind="stable")]
    bands = []
    for name, rows in zip(("weak", "medium", "strong"), np.array_split(order, 3)):
        if len(rows):
            found = int((predicted[rows] == lasing).sum())
            bands.append(EnergyBand(name, float(energy[rows[0]]), float(energy[rows[-1]]), len(rows), found))
    return bands, unknown


class Share(NamedTuple):
    """`k` of `n` shots, whose pulse energy is about `energy` (mJ, their median)."""

    energy: float
    k: int
    n: int


def shares_by_energy(energy: np.ndarray, hit: np.ndarray, bins: int = 8, least: int = 10) -> list[Share]:
    """How many of the shots are a `hit`, in bins of equal numbers of shots by pulse energy.

    energy: (n,) mJ, shots where it is NaN are left out; hit: (n,) bool. At most `bins` bins, of
    `least` shots or more (unless there are fewer altogether).
    """
    known = np.flatnonzero(np.isfinite(energy))
    order = known[np.argsort(energy[known], kind="stable")]
    parts = np.array_split(order, max(1, min(bins, len(order) // least)))
    return [Share(float(np.median(energy[p])), int(hit[p].sum()), len(p)) for p in parts if len(p)]


def wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval for k of n (Wilson 1927); z = 1.96 gives 95 %."""
    center = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return max(0.0, center - half), min(1.0, center + half)
