"""Whether a shot is like those a network was trained on: numbers of its picture and of the network.

A calibrated probability holds for the machine it was calibrated on. Every shot gets a distance from the
training shots (Mahalanobis, to the nearest class; Lee et al. 2018) in a few numbers that a person can
read off the picture and in the main directions of what the network's last layer sees. Each class has its own
covariance and its own limit: lasing shots, weak and strong, differ more among themselves than others do.
Where the network tells the pulse energy, too, a shot that it calls not lasing, with a lasing shot's energy,
is strange as well: on a machine where more of the bunch lases its pictures are as usual, and class and
energy part. And in a run of which many shots are strange, the others are not to be relied on either.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import keras
import numpy as np
from keras import ops
from scipy import stats

NUMBERS = (
    "light", "brightest pixel", "background", "place in time", "place in energy", "length in time",
    "spread in energy", "spread of slices", "light at the edge", "saturated",
)  # fmt: skip
DIRECTIONS = 24  # of what the last layer sees
FALSE_FLAGS = 0.005  # share of the training machine's shots beyond each of the two limits
MOST_FLAGGED, FEWEST_FLAGGED = 0.1, 3  # share and number of a run's shots beyond which all are flagged
DISAGREES, RUN = "class and pulse energy disagree", "many shots of its run are flagged"
_FAR = 4.0  # standard deviations: a number that is further off is named as the reason
_EDGE = 4  # pixels
_LARGEST = 128  # pixels a side: larger images are binned for these numbers
_RIDGE = 1e-2  # added to the correlations of a class, which come from some hundred shots
_MOMENTS = ("means", "inverse", "spread")
_TOP = 0.97  # of the brightest pixel's height above the background


@keras.saving.register_keras_serializable("xtcav_lasing")
class PictureNumbers(keras.layers.Layer):
    """The NUMBERS of images as the network gets them, (n, h, w, 1) -> (n, 10)."""

    def call(self, x):
        factor = max(1, -(-max(x.shape[1:3]) // _LARGEST))
        x = (ops.average_pool(x, factor, factor) if factor > 1 else x)[..., 0]
        height, width = x.shape[1:]
        inner = x[:, _EDGE : height - _EDGE, _EDGE : width - _EDGE]
        edge = height * width - inner.shape[1] * inner.shape[2]
        background = (ops.sum(x, (1, 2)) - ops.sum(inner, (1, 2))) / edge
        light = ops.maximum(x - background[:, None, None], 0.0)
        total = ops.sum(light, (1, 2)) + 1e-6
        brightest = ops.max(x, (1, 2))
        top = ops.cast(light >= _TOP * ops.max(light, (1, 2), keepdims=True), x.dtype)
        rows, columns = ops.sum(light, 2), ops.sum(light, 1)
        time, length = _moments(rows, total)
        energy, spread = _moments(columns, total)
        places = ops.arange(width, dtype=x.dtype)
        mean = ops.matmul(light, places) / (rows + 1e-6)
        square = ops.matmul(light, places**2) / (rows + 1e-6) - mean**2
        slices = ops.sum(rows * ops.sqrt(ops.maximum(square, 0.0)), 1) / total
        at_edge = 1 - ops.sum(light[:, _EDGE : height - _EDGE, _EDGE : width - _EDGE], (1, 2)) / total
        found = (
            ops.log(total), brightest, background, time, energy, length, spread, slices, at_edge,
            ops.sum(top, (1, 2)),
        )  # fmt: skip
        return ops.stack(found, axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], len(NUMBERS))


def _moments(profile, total):
    """Mean place and rms of profiles (n, k) of the sums `total` (n,)."""
    places = ops.arange(profile.shape[1], dtype=profile.dtype)
    mean = ops.matmul(profile, places) / total
    return mean, ops.sqrt(ops.maximum(ops.matmul(profile, places**2) / total - mean**2, 0.0))


class Reference(NamedTuple):
    """The training shots, as far as distances need them. p: features, d: directions, c: classes.

    center: (p,) and directions: (p, d) of the network's features; of each class, in the m numbers and
    directions together, means: (c, m), inverse: (c, m, m) of the covariance, spread: (c, m) standard
    deviations, and limit: (c,) distance beyond which a shot is none of the class; energy_limit: mJ beyond
    which a shot called of the first class is flagged.
    """

    center: np.ndarray
    directions: np.ndarray
    means: np.ndarray
    inverse: np.ndarray
    spread: np.ndarray
    limit: np.ndarray
    energy_limit: np.ndarray = np.array(np.inf)

    def reduced(self, features: np.ndarray) -> np.ndarray:
        """Numbers and directions, (n, m), of features (n, 10 + p)."""
        numbers, seen = features[:, : len(NUMBERS)], features[:, len(NUMBERS) :] - self.center
        along = seen @ self.directions
        rest = np.sqrt(np.maximum((seen**2).sum(axis=1) - (along**2).sum(axis=1), 0))
        return np.concatenate([numbers, along, rest[:, None]], axis=1)

    def distances(self, reduced: np.ndarray) -> np.ndarray:
        """Mahalanobis distance from each class over its limit, (n, c) float64. reduced: (n, m)."""
        away = reduced[:, None, :] - self.means
        return np.sqrt(np.maximum(np.einsum("nci,cij,ncj->nc", away, self.inverse, away), 0)) / self.limit

    def reasons(self, features: np.ndarray, predicted: np.ndarray, energy: Optional[np.ndarray]) -> list[str]:
        """Why each shot is flagged by itself, '' for those that are not.

        predicted: (n,) classes; energy: (n,) mJ, as the network tells them, or None.
        """
        reduced = self.reduced(features)
        distances = self.distances(reduced)
        nearest = distances.argmin(axis=1)
        off = (reduced - self.means[nearest]) / self.spread[nearest]
        odd = np.zeros(len(features), bool) if energy is None else energy > self.energy_limit
        return [
            _reason(of_shot) if not distance <= 1 else DISAGREES if apart else ""
            for of_shot, distance, apart in zip(off, distances.min(axis=1), odd & (predicted == 0))
        ]


def one_for_each_class(known: Reference) -> Reference:
    """The same, where covariance and limit are for all classes together, as earlier versions had them."""
    classes, m = known.means.shape
    shapes = {"inverse": (classes, m, m), "spread": (classes, m), "limit": (classes,)}
    return known._replace(**{name: np.broadcast_to(getattr(known, name), of) for name, of in shapes.items()})


def with_runs(reasons: Sequence[str], run: np.ndarray) -> list[str]:
    """The reasons, RUN where a shot has none and its run, (n,), is one of which many have."""
    flagged, found = np.array([bool(reason) for reason in reasons]), list(reasons)
    for number in np.unique(run):
        mine = run == number
        if many(int(flagged[mine].sum()), int(mine.sum())):
            for row in np.flatnonzero(mine & ~flagged):
                found[row] = RUN
    return found


def many(flagged: int, n: int) -> bool:
    """Whether so many of a run's shots are flagged by themselves that its probabilities mean little."""
    return flagged >= FEWEST_FLAGGED and flagged > MOST_FLAGGED * n


def _reason(off: np.ndarray) -> str:
    """The number that is furthest off, in standard deviations, or the network's own view."""
    numbers = np.abs(off[: len(NUMBERS)])
    first = int(numbers.argmax())
    if not numbers[first] >= _FAR:
        return "unlike the training shots to the network"
    if NUMBERS[first] == "light" and off[first] < 0:
        return "no beam or little"
    return f"{NUMBERS[first]} {'high' if off[first] > 0 else 'low'}"


def reference(
    features: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    held_out_labels: np.ndarray,
    no_lasing: Optional[np.ndarray] = None,
) -> Reference:
    """From the features (n, 10 + p) and labels (n,) of the training shots and of shots held out.

    The limit of a class is what FALSE_FLAGS of all its shots exceed, or of a normal distribution whose
    moments came from as many training shots (Hotelling's T^2), whichever is larger. no_lasing: the energies,
    mJ, that the network tells of all these shots that are of the first class; as few exceed their limit.
    """
    classes = np.unique(labels)
    seen = features[:, len(NUMBERS) :].astype(np.float64)
    center = seen.mean(axis=0)
    number = np.searchsorted(classes, labels)
    within = seen - np.stack([seen[labels == c].mean(axis=0) for c in classes])[number]
    _, _, axes = np.linalg.svd(within, full_matrices=False)
    directions = axes[: min(DIRECTIONS, len(axes), len(seen) // 10 + 1)].T
    found = Reference(center, directions, *[np.empty(0)] * 3, np.array(1.0))
    reduced, others = (found.reduced(each.astype(np.float64)) for each in (features, held_out))
    moments = [_moments_of(reduced[labels == c]) for c in classes]
    found = found._replace(**{name: np.stack(of) for name, of in zip(_MOMENTS, zip(*moments))})
    everything, of_all = np.concatenate([reduced, others]), np.concatenate([labels, held_out_labels])
    limits = [
        max(
            np.quantile(away[of_all == c], 1 - FALSE_FLAGS),
            _of_normal(int((labels == c).sum()), len(reduced[0])),
        )
        for c, away in zip(classes, found.distances(everything).T)
    ]
    most = np.inf if no_lasing is None or not len(no_lasing) else np.quantile(no_lasing, 1 - FALSE_FLAGS)
    return found._replace(limit=np.array(limits), energy_limit=np.array(most, np.float64))


def _moments_of(reduced: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (m,), inverse (m, m) of the covariance, and spread (m,) of the shots of a class, (n, m)."""
    mean = reduced.mean(axis=0)
    away = reduced - mean
    covariance = away.T @ away / max(len(away) - 1, 1)
    spread = np.sqrt(np.diag(covariance)) + 1e-9
    correlation = covariance / np.outer(spread, spread) + _RIDGE * np.eye(len(spread))
    return mean, np.linalg.inv(correlation) / np.outer(spread, spread), spread


def _of_normal(n: int, m: int) -> float:
    """What FALSE_FLAGS of new shots exceed, where the moments of m normal numbers came from n shots."""
    if n <= m:
        return np.inf  # too few to say what is unlike them
    quantile = stats.f.ppf(1 - FALSE_FLAGS, m, n - m)
    return float(np.sqrt(m * (n**2 - 1) / (n * (n - m)) * quantile))
