"""The outcome of a control: one row of the table of controls."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Called:
    """Of `n` shots of a run, how many are called the lasing class, with Wilson's interval."""

    run: int
    n: int
    called: int
    wilson: Interval


@dataclasses.dataclass(frozen=True)
class Outcome:
    """An accuracy, a correlation or R² of `n` shots, with its 95 % interval by blocks of time.

    control: its name in files; what: in words. chance: the share of the larger class. wilson: the
    interval as if shots were independent. strict: the interval at the confidence that a leak needs.
    class_name, called: of runs that the network has not seen, how many shots it calls that class.
    """

    control: str
    what: str
    kind: str  # "accuracy", "correlation", or "r2", the share of the variance that is explained
    n: int
    value: float
    n_effective: float  # shots; if not of an accuracy, blocks
    interval: Interval
    chance: Optional[float] = None
    wilson: Optional[Interval] = None
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
        """In a word or two, where the interval lies relative to chance."""
        (low, high), accuracy = self.interval, self.kind == "accuracy"
        nothing = self.chance if accuracy else 0.0
        if low <= nothing <= high:
            return "at chance" if accuracy else "none"
        if high < nothing:
            return "below chance" if accuracy else "negative"
        if not accuracy:
            return "positive"
        return "above chance" if self.strict[0] > nothing else "barely above"

    def __str__(self) -> str:
        """The value with its interval, the number of shots and the share of the larger class."""
        low, high = self.interval
        chance = f", larger class {self.chance:.2f}" if self.kind == "accuracy" else ""
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}] of {self.n}{chance}"
