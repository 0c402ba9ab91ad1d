"""How well a share of shots is known: the only source of intervals and of "better than guessing".

Shots of one block of time are alike, so n of them count for fewer: the effective sample size.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Mapping, NamedTuple, Optional, Union

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
BY_BLOCKS, BY_SHOTS = "blocks of time", "shots"  # what an interval counts as independent
_RESAMPLES = 1000
_MOST = 10**7  # effective shots: nobody has more


class Share(NamedTuple):
    """`k` of `n` shots, which count for `n_effective`, and the 95 % interval of this share.

    freedom: degrees of freedom of the effective sample size; None for shots without times, which count one
    by one: the interval is then the plain Wilson interval.
    """

    n: int
    k: int
    n_effective: float
    freedom: Optional[int]
    interval: tuple[float, float]

    @property
    def value(self) -> float:
        return self.k / self.n

    @property
    def by(self) -> str:
        """What the interval counts as independent: BY_BLOCKS or BY_SHOTS."""
        return BY_SHOTS if self.freedom is None else BY_BLOCKS

    def at(self, confidence: float) -> tuple[float, float]:
        """The interval at another confidence."""
        return interval(self.value, self.n_effective, self.freedom, confidence)

    def to_json(self) -> dict[str, Any]:
        """The interval and what it is based on, for result files."""
        return {
            "interval": list(self.interval),
            "interval_by": self.by,
            "n_effective": self.n_effective,
            "freedom": self.freedom,
        }

    @classmethod
    def from_json(cls, n: int, k: int, of: Mapping[str, Any]) -> "Share":
        """Read what `to_json` returned; files of earlier versions have a plain interval or none."""
        if "n_effective" not in of:
            return plain(n, k)
        return cls(n, k, of["n_effective"], of["freedom"], tuple(of["interval"]))

    def __str__(self) -> str:
        """The share with its interval and how many shots it is of."""
        return f"{self.with_interval} of {self.of_shots}"

    @property
    def with_interval(self) -> str:
        """The share and its interval."""
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"

    @property
    def cells(self) -> tuple[str, ...]:
        """Shots, effective shots, the share and its interval, for a table."""
        low, high = self.interval
        return str(self.n), f"{self.n_effective:.0f}", f"{self.value:.3f}", f"{low:.3f} to {high:.3f}"

    @property
    def of_shots(self) -> str:
        """The number of shots and their effective number, in words."""
        how = "plain Wilson interval" if self.freedom is None else f"{self.n_effective:.0f} effective"
        return f"{self.n} shots ({how})"


def share(
    hit: np.ndarray,
    block: Optional[np.ndarray],
    strata: Optional[np.ndarray] = None,
    rows: Union[slice, np.ndarray] = slice(None),
) -> Share:
    """The share of the shots that are a `hit`, (n,) bool, with its interval.

    block: (n,) the block of time of each shot, or None if the shots have no times. strata: (n,) groups that
    were drawn separately, such as the classes of a test split; each block belongs to one. None: one group.
    rows: count only these shots, at least one.
    """
    hit = hit[rows]
    n, k = len(hit), int(hit.sum())
    if block is None:
        return plain(n, k)
    size, freedom = sample_size(hit, np.zeros(n, int) if strata is None else strata[rows], block[rows])
    return Share(n, k, size, freedom, interval(k / n, size, freedom))


def plain(n: int, k: int) -> Share:
    """The share of n shots without times, with the plain Wilson interval."""
    return Share(n, k, float(n), None, interval(k / n, n, None))


def against(of: tuple[float, float], chance: float) -> str:
    """Where an interval lies relative to `chance`: "above chance", "below chance" or "at chance"."""
    return "above chance" if of[0] > chance else "below chance" if of[1] < chance else "at chance"


def z_score(value: float, chance: float, n: float) -> float:
    """Distance from the accuracy `chance` of always guessing the larger class, in standard deviations.

    (value - chance) / sqrt(chance (1 - chance) / n), for n (effective) shots. For two equal classes it is
    the 2016 study's (acc n - n/2) / sqrt(n/4).
    """
    return (value - chance) / math.sqrt(chance * (1 - chance) / n) if 0 < chance < 1 else 0.0


def p_value(of: Share, chance: float) -> float:
    """The one-tailed probability that always guessing the larger class is right at least as often.

    For shots with times it is the tail of Student's t at the Z score, which is below 0.025 exactly where the
    95 % interval is above chance; for shots without times it is the exact binomial tail.
    """
    if of.freedom is None:
        return float(stats.binom.sf(of.k - 1, of.n, chance))
    z = z_score(of.value, chance, of.n_effective)
    return float(stats.t.sf(z, of.freedom)) if chance < 1 else 1.0


def sample_size(correct: np.ndarray, labels: np.ndarray, block: np.ndarray) -> tuple[float, int]:
    """The effective sample size, at most n, and its degrees of freedom.

    correct: (n,) bool; labels: (n,); block: (n,), each with shots of one label. The size is n divided by the
    design effect (Kish 1965): the variance of the accuracy between blocks, within each class, relative to
    that of independent shots. It is large if blocks are right or wrong as a whole. If no class has two
    blocks, the design effect is unknown, and each block counts as one shot.
    """
    n, observed, binomial, freedom, blocks = len(correct), 0.0, 0.0, 0, 0
    for label in np.unique(labels):
        of_class = labels == label
        share = correct[of_class].mean()
        numbers = np.unique(block[of_class], return_inverse=True)[1]
        sizes = np.bincount(numbers)
        away = np.bincount(numbers, weights=correct[of_class]) - share * sizes
        count = len(sizes)
        blocks += count
        binomial += of_class.sum() * share * (1 - share) / n**2
        if count > 1:
            observed += count / (count - 1) * float((away**2).sum()) / n**2
            freedom += count - 1
    if not freedom:
        return float(blocks), 1
    design = max(1.0, observed / binomial) if binomial else 1.0
    return float(n / design), freedom


def interval(
    share: float, n: float, freedom: Optional[float], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of `n` (effective) shots.

    freedom: degrees of freedom of Student's t, which is used because blocks are few; None: normal.
    """
    z = quantile(confidence, freedom)
    center = (share * n + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(n * share * (1 - share) + z * z / 4)
    return (max(0.0, center - half) if share > 0 else 0.0), (min(1.0, center + half) if share < 1 else 1.0)


def quantile(confidence: float, freedom: Optional[float]) -> float:
    """Half the width of the two-sided interval of a standard normal variable, or of Student's t."""
    upper = (1 + confidence) / 2
    return float(stats.norm.ppf(upper) if freedom is None else stats.t.ppf(upper, freedom))


def needed(share: float, chance: float, n: float, freedom: int, confidence: float) -> float:
    """How many effective shots are needed to show that a share is above `chance`; inf if no number is enough.

    n, freedom: those of the existing shots; blocks are assumed to grow in number with the shots.
    """

    def shows(more: float) -> bool:
        of = max(freedom * more / n, 1.0)
        return interval(share, more, of, confidence)[0] > chance

    if not shows(_MOST):
        return math.inf
    low, high = 0, _MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return float(high)


def bootstrap(
    statistic: Callable[[np.ndarray], float], block: np.ndarray, seed: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The interval of `statistic(rows)` by bootstrap: whole blocks are drawn with replacement.

    block: (n,). Percentiles of 1000 draws; (-inf, inf) if there are fewer than 3 blocks.
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
