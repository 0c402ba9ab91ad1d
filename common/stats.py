"""Statistics used by several modules: running moments, robust spread, even sampling."""

from __future__ import annotations

import numpy as np

# Times the median absolute deviation: the standard deviation of normal values (Rousseeuw, Croux 1993).
MAD_TO_STD = 1.4826


class Moments:
    """Count, mean and standard deviation, element by element, of arrays that come a few at a time.

    total and squares are the sums and the sums of squares of the `count` arrays so far, float64.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total: np.ndarray = np.zeros(())
        self.squares: np.ndarray = np.zeros(())

    def add(self, arrays: np.ndarray) -> None:
        """Add the arrays `arrays[i]`, (n, ...) of any number type."""
        wide = arrays.astype(np.float64, copy=False)
        self.count += len(wide)
        self.total = self.total + wide.sum(axis=0)
        self.squares = self.squares + np.einsum("n...,n...->...", wide, wide)

    def add_one(self, array: np.ndarray) -> None:
        """Add one array, in reused memory: allocating it would take as long as the arithmetic."""
        if not self.count:
            self.total, self.squares = np.zeros(array.shape), np.zeros(array.shape)
            self._one = np.empty(array.shape)
        one = self._one
        one[...] = array
        self.total += one
        one *= one
        self.squares += one
        self.count += 1

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count

    @property
    def std(self) -> np.ndarray:
        """The standard deviation of the arrays (divided by n)."""
        return np.sqrt(np.maximum(self.squares / self.count - self.mean**2, 0))


def robust_std(values: np.ndarray) -> float:
    """The standard deviation that outliers do not change: 1.4826 times the median absolute deviation."""
    return MAD_TO_STD * float(np.median(np.abs(values - np.median(values))))


def evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of `rows`, evenly spread over them, the first and the last included."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]
