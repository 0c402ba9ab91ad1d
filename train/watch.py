"""A watch on training: networks that swing to one class, and other signs that it is sick."""

from __future__ import annotations

import math
from typing import Dict, List

from train.config import Watch

FIRST_LOSS_MARGIN = 0.35  # of ln(classes): well above what random weights of a sane size give
VANISHED = 1e-7  # |gradient|

HELPS = {
    "one_sided": (
        "what usually helps: preprocess (standardise, log, whitening), a lower learning_rate.start or "
        "momentum, a larger minibatch, a smaller stddev"
    ),
    "first_loss": "the logits are large before anything is learned: a smaller stddev or preprocess helps",
    "vanished": "nothing is learned any more: a larger stddev, another activation or a positive bias helps",
}


class Watcher:
    """Looks at the rows of the table as they come; says each finding once, marks every row."""

    def __init__(self, settings: Watch, classes: List[str], sizes: Dict[str, int]) -> None:
        self._settings, self._classes, self._sizes = settings, classes, sizes
        self._running = 0
        self._said: set = set()

    def look(self, row: Dict[str, float]) -> List[str]:
        """Set row["watch"] to the findings of this row, '' if none; returns lines that are new to say."""
        found: Dict[str, str] = {}
        expected = math.log(len(self._classes))
        if row["step"] == 1 and abs(row["cross_entropy"] - expected) > FIRST_LOSS_MARGIN * expected:
            found["first_loss"] = (
                f"the first loss is {row['cross_entropy']:.2f}, ln(classes) is {expected:.2f}"
            )
        if row["gradient_norm"] < VANISHED:
            found["vanished"] = f"|grad| is {row['gradient_norm']:.1e} at step {row['step']}"
        self._running = self._running + 1 if self._one_sided(row) else 0
        if self._running >= self._settings.evaluations:
            shares = ", ".join(
                f"{row[f'{split}_ones']:.0f} of {n} {split}" for split, n in self._sizes.items()
            )
            found["one_sided"] = (
                f"{self._running} rows running (nearly) all shots are called one class; called "
                f"{self._classes[1]}: {shares}"
            )
        row["watch"] = " ".join(found)
        new = [kind for kind in found if kind not in self._said]
        self._said = set(found)
        return [f"{found[kind]}; {HELPS[kind]}" for kind in new]

    @property
    def should_stop(self) -> bool:
        """Whether the config asks to stop on a one-sided network, and this is one."""
        return self._settings.stop and "one_sided" in self._said

    def _one_sided(self, row: Dict[str, float]) -> bool:
        """Every split is (nearly) of one predicted class; with more than 2 classes, of class 1."""
        shares = [row[f"{split}_ones"] / n for split, n in self._sizes.items()]
        limit = self._settings.share
        if len(self._classes) > 2:
            return all(share >= limit for share in shares)
        return all(share >= limit or share <= 1 - limit for share in shares)
