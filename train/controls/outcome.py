"""The outcome of a control: one row of the table of controls."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

from train.metrics import effective

Interval = tuple[float, float]
STRICT = 0.998  # confidence beyond which a control is taken for a leak: there are several of them


@dataclasses.dataclass(frozen=True)
class Called:
    """How many of `n` shots of a run are called `class_name`, with the 95 % interval of the share."""

    run: int
    class_name: str
    n: int
    called: int
    interval: Interval


@dataclasses.dataclass(frozen=True)
class Outcome:
    """An accuracy, correlation or R² of `n` shots, with its 95 % interval by blocks of time.

    control: its name in files; what: its name in words. chance: the share of the larger class. freedom: the
    degrees of freedom of n_effective. strict: the interval at the confidence STRICT. class_name: the class
    whose probability is correlated. called: how many shots of unseen runs are called each class.
    """

    control: str
    what: str
    kind: str  # "accuracy", "correlation", or "r2", the share of the variance that is explained
    n: int
    value: float
    n_effective: float  # shots; if not of an accuracy, blocks
    interval: Interval
    chance: Optional[float] = None
    freedom: int = 1
    strict: Optional[Interval] = None
    class_name: str = ""
    called: tuple[Called, ...] = ()

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Outcome":
        """Read what `to_json` returned; raises TypeError or ValueError for anything else."""
        outcome = cls(**{**row, "called": tuple(Called(**of_run) for of_run in row.get("called", ()))})
        outcome.finding, str(outcome)  # raise here if a number is missing
        return outcome

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON, without fields that are not set."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in dataclasses.asdict(self).items() if value != usual[name]}

    @property
    def finding(self) -> str:
        """Where the interval lies relative to chance, or to 0, in a word or two."""
        (low, high), accuracy = self.interval, self.kind == "accuracy"
        if not accuracy:
            return "positive" if low > 0 else "negative" if high < 0 else "none"
        found = effective.against((low, high), self.chance)
        strictly = effective.against(tuple(self.strict), self.chance)
        return "barely above" if found == "above chance" != strictly else found

    @property
    def cells(self) -> dict[str, str]:
        """{column: text}, a row of the table."""
        accuracy, (low, high) = self.kind == "accuracy", self.interval
        return {
            "control": self.what,
            "n": str(self.n),
            "result": f"{self.value:.3f}",
            "effective n": f"{self.n_effective:.0f}" + ("" if accuracy else " blocks"),
            "95 % by blocks": f"[{low:.3f}, {high:.3f}]",
            "larger class": f"{self.chance:.3f}" if accuracy else "",
            "finding": self.finding,
        }

    def __str__(self) -> str:
        """The value with its interval, the number of shots and the share of the larger class."""
        low, high = self.interval
        chance = f", larger class {self.chance:.2f}" if self.kind == "accuracy" else ""
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}] of {self.n}{chance}"
