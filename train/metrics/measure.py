"""Accuracy and its uncertainty: pure functions of numbers and arrays."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional

import numpy as np

from train.metrics import effective
from train.metrics.effective import Share

MEASURED = ("shots", "effective", "accuracy", "95 % interval", "larger class")  # the columns of `Score.cells`


class Score(NamedTuple):
    """The share of shots classified correctly, and `chance`, the share of the larger class."""

    share: Share
    chance: float

    @property
    def n(self) -> int:
        return self.share.n

    @property
    def correct(self) -> int:
        return self.share.k

    @property
    def accuracy(self) -> float:
        return self.share.value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return self.share.interval

    @property
    def z(self) -> float:
        """Distance from always guessing the larger class, in standard deviations."""
        return effective.z_score(self.accuracy, self.chance, self.share.n_effective)

    @property
    def p_value(self) -> float:
        """The one-tailed probability of as many correct by always guessing the larger class."""
        return effective.p_value(self.share, self.chance)

    @property
    def finding(self) -> str:
        """Whether the accuracy is above, at or below that of always guessing the larger class."""
        return effective.against(self.interval, self.chance)

    @property
    def compared(self) -> str:
        """The finding in the words that go before "always guessing the larger class"."""
        return {"above chance": "better than", "below chance": "worse than"}.get(
            self.finding, "not told apart from"
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """The score for the columns MEASURED of a table."""
        return (*self.share.cells, f"{self.chance:.3f}")

    def to_json(self) -> dict[str, Any]:
        """The score for result files."""
        return {
            "n": self.n,
            "correct": self.correct,
            "accuracy": self.accuracy,
            **self.share.to_json(),
            "chance": self.chance,
            "z": self.z,
            "p_value": self.p_value,
            "finding": self.finding,
        }

    @classmethod
    def from_json(cls, of: Mapping[str, Any]) -> "Score":
        """Read what `to_json` returned."""
        return cls(Share.from_json(of["n"], of["correct"], of), of["chance"])

    def __str__(self) -> str:
        """The accuracy with its interval, the number of shots and the share of the larger class."""
        return f"accuracy {self.share}, always guessing the larger class {self.chance:.3f}"


class EnergyBand(NamedTuple):
    """The shots of a class between two pulse energies, mJ, and how many of them are called that class."""

    name: str
    low: float
    high: float
    share: Share

    def to_json(self) -> dict[str, Any]:
        """The band for result files."""
        found = {"name": self.name, "low": self.low, "high": self.high}
        return {**found, "n": self.share.n, "found": self.share.k, **self.share.to_json()}

    @classmethod
    def from_json(cls, of: Mapping[str, Any]) -> "EnergyBand":
        """Read what `to_json` returned."""
        return cls(of["name"], of["low"], of["high"], Share.from_json(of["n"], of["found"], of))


def score(labels: np.ndarray, predicted: np.ndarray, block: Optional[np.ndarray]) -> Score:
    """The accuracy. labels, predicted: (n,) integers; block: (n,) of time, as `effective.share` takes it."""
    largest = int(np.bincount(labels).max())
    return Score(effective.share(labels == predicted, block, labels), largest / len(labels))


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts, (classes, classes): a row for each true class, a column for each predicted one."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def energy_bands(energy: np.ndarray, hit: np.ndarray, block: Optional[np.ndarray]) -> list[EnergyBand]:
    """Divide the shots of a class into thirds by pulse energy: weak, medium, strong.

    energy: (n,) mJ, NaN for shots that are left out: those of other classes or without a record. hit: (n,)
    bool, whether a shot is called that class; block: (n,) of time.
    """
    return [
        EnergyBand(
            name, float(energy[rows[0]]), float(energy[rows[-1]]), effective.share(hit, block, rows=rows)
        )
        for name, rows in zip(("weak", "medium", "strong"), np.array_split(_by_energy(energy), 3))
        if len(rows)
    ]


class AtEnergy(NamedTuple):
    """A share of shots with pulse energies around `energy`, their median, mJ."""

    energy: float
    share: Share


def shares_by_energy(energy: np.ndarray, hit: np.ndarray, block: Optional[np.ndarray]) -> list[AtEnergy]:
    """The share of hits in up to 8 bins with equal numbers of shots, by pulse energy.

    A bin has at least 10 shots, unless there are fewer altogether. Arrays as in `energy_bands`.
    """
    order = _by_energy(energy)
    parts = np.array_split(order, max(1, min(8, len(order) // 10)))
    return [
        AtEnergy(float(np.median(energy[rows])), effective.share(hit, block, rows=rows))
        for rows in parts
        if len(rows)
    ]


def _by_energy(energy: np.ndarray) -> np.ndarray:
    """The rows whose energy is known, in order of energy."""
    return np.argsort(energy, kind="stable")[: int(np.isfinite(energy).sum())]  # NaN is last
