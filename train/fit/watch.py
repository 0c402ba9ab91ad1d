"""Watch for failing training: collapse to one class, vanished gradients, a bad first loss."""

from __future__ import annotations

import math
from typing import Any, Iterable, Mapping, Optional

from train.config import Watch

FIRST_LOSS_MARGIN = 0.35  # of ln(classes): well above what random weights of a sane size give
VANISHED = 1e-7  # |gradient| by the first kernel; never below with L1 or L2 on it
LEARNED = 0.1  # of ln(classes): below, a small gradient is the end of learning and no fault
TOLD_APART = (
    0.7  # of ln(classes): below, the classes of the minibatches are told apart, even if prediction fails
)

HELPS = {
    "collapsed": (
        "what usually helps: preprocess (log, standardize, whiten_minibatch), a lower learning_rate.start or "
        "optimizer.momentum, a larger minibatch"
    ),
    "lagging": (
        "so the averages that prediction uses lag behind, or minibatches differ too much; what helps: a "
        "lower momentum of batch_normalization, a larger minibatch, more steps"
    ),
    "first_loss": "the logits are large before anything is learned: a smaller stddev or preprocess helps",
    "vanished": (
        "only what comes after dead units can learn; what usually helps: preprocess, a lower "
        "learning_rate.start, leaky_relu, a positive bias, a larger stddev"
    ),
}


class Watcher:
    """Checks each row of the table; reports each finding once, but marks every affected row.

    A row holds for each split `SPLIT_largest`, the class that most shots are called, and
    `SPLIT_largest_share`, their share.
    """

    def __init__(self, settings: Watch, classes: list[str], splits: Iterable[str]) -> None:
        self._settings, self._classes, self._splits = settings, classes, list(splits)
        self._running: list[float] = []  # cross entropies of the minibatches, of collapsed rows running
        self._said: set = set()

    def look(self, row: dict[str, Any]) -> list[str]:
        """Set row["watch"] to the findings of this row, '' if none; returns lines that are new to say."""
        found: dict[str, str] = {}
        expected = math.log(len(self._classes))
        if row["step"] == 1 and abs(row["cross_entropy"] - expected) > FIRST_LOSS_MARGIN * expected:
            found["first_loss"] = (
                f"the first loss is {row['cross_entropy']:.2f}, ln({len(self._classes)} classes) is "
                f"{expected:.2f}"
            )
        first = row.get("first_gradient_norm", row["gradient_norm"])  # earlier versions did not have it
        if first < VANISHED and row["cross_entropy"] > LEARNED * expected:
            found["vanished"] = f"step {row['step']}: no gradient reaches the first layer ({first:.1e})"
        class_ = collapsed(row, self._splits, self._settings.share)
        self._running = [] if class_ is None else [*self._running, row["cross_entropy"]]
        if len(self._running) >= self._settings.evaluations:
            shares = ", ".join(f"{row[f'{split}_largest_share']:.0%} of {split}" for split in self._splits)
            line = (
                f"step {row['step']}: {len(self._running)} rows running the network calls (nearly) all shots "
                f"one class; now {self._classes[class_]}: {shares}"
            )
            loss = sum(self._running[-self._settings.evaluations :]) / self._settings.evaluations
            if loss < TOLD_APART * expected:
                found["lagging"] = f"{line}; yet its minibatches it tells apart (cross entropy {loss:.2f})"
            else:
                found["collapsed"] = line
        row["watch"] = " ".join(found)
        new = [kind for kind in found if kind not in self._said]
        self._said = set(found)
        return [f"{found[kind]}; {HELPS[kind]}" for kind in new]

    @property
    def should_stop(self) -> bool:
        """Whether the config asks to stop on a network collapsed to one class, and this is one."""
        return self._settings.stop and "collapsed" in self._said


def collapsed(row: Mapping[str, Any], splits: Iterable[str], share: float) -> Optional[int]:
    """The class that `share` or more of every split are called; None if there is no such class."""
    splits = list(splits)
    if any(f"{split}_largest" not in row for split in splits):
        return None  # a row of an earlier version, which did not count this
    collapsed_to = {int(row[f"{split}_largest"]) for split in splits}
    if len(collapsed_to) > 1 or any(float(row[f"{split}_largest_share"]) < share for split in splits):
        return None
    return collapsed_to.pop()


def swings(rows: Iterable[Mapping[str, Any]], splits: Iterable[str], share: float) -> int:
    """How often the network went from calling (nearly) all shots one class to another class."""
    splits = list(splits)
    collapsed_to = [
        class_ for class_ in (collapsed(row, splits, share) for row in rows) if class_ is not None
    ]
    return sum(a != b for a, b in zip(collapsed_to, collapsed_to[1:]))


def not_finite(step: int, loss: float, norm: float, rate: float) -> str:
    """The message for a loss or gradient that is NaN or infinite."""
    return (
        f"step {step}: the loss is {loss}, |grad| {norm}: lower learning_rate.start ({rate:g} at this step) "
        "or the momentum, or give optimizer.clip_norm"
    )
