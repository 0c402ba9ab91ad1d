"""The outcomes of the controls in words: a leak is found, not found, or cannot be decided."""

from __future__ import annotations

import itertools
import math
from typing import Any, Iterator, Mapping, NamedTuple, Optional, Sequence

from train.controls.outcome import STRICT, Called, Outcome
from train.metrics import effective

ABOVE = ("above chance", "barely above")
FOUND, NOT_FOUND, UNDECIDED = "found", "not found", "cannot be decided"
PART = 0.5  # of what the network is right above guessing: a leak of this size must have been seen


class _Told(NamedTuple):
    """The words before a control's result, and which leak it shows if it is above chance ('': none)."""

    words: str
    leak: str = ""


_BACKGROUND = "the camera background tells the runs apart"
_DRIFTS = "something drifts alike in the runs of a class"
# What follows the time is right or wrong for a block as a whole: of blocks there are few.
TIMES = ("time", "time_common")
TOLD = {
    "permuted": _Told("permuted labels reach", "the test shots are not independent of the training shots"),
    "beam_free": _Told("beam-free pixels alone reach", _BACKGROUND),
    "beam_free_intensity": _Told("the mean intensity of beam-free pixels alone reaches", _BACKGROUND),
    "ebeam": _Told(
        "the EBeam record alone reaches",
        "the machine was not in the same state, and a picture shows that, too",
    ),
    "time": _Told("time within the run alone reaches", _DRIFTS),
    "time_common": _Told("time within the run alone reaches", _DRIFTS),
    "slices": _Told("logistic regression on slices reaches"),
    "projection": _Told("logistic regression on the energy projection reaches"),
    "moments": _Told("logistic regression on four moments reaches"),
}
LEAKS = [name for name, told in TOLD.items() if told.leak]


Rows = Mapping[str, Outcome]  # by the names of the controls


class Verdict(NamedTuple):
    """leak: FOUND, NOT_FOUND or UNDECIDED; because: why; reasons: further sentences."""

    leak: str
    because: str
    reasons: list[str]

    @property
    def head(self) -> str:
        """The conclusion in one sentence."""
        if self.leak == UNDECIDED:
            return f"Leak: cannot be decided because {self.because}."
        return f"Leak: {self.leak}. {self.because[0].upper()}{self.because[1:]}."

    @property
    def lines(self) -> list[str]:
        """The conclusion, then the reasons, as sentences."""
        return [self.head, *(f"{reason[0].upper()}{reason[1:]}." for reason in self.reasons)]

    def to_json(self) -> dict[str, Any]:
        """The verdict for result files."""
        return self._asdict()

    @classmethod
    def from_json(cls, of: Mapping[str, Any]) -> "Verdict":
        """Read what `to_json` returned; raises KeyError, TypeError or ValueError for anything else."""
        if of["leak"] not in (FOUND, NOT_FOUND, UNDECIDED):
            raise ValueError(f"verdict {of['leak']!r}")
        return cls(of["leak"], str(of["because"]), [str(reason) for reason in of["reasons"]])


def verdict(rows: Sequence[Outcome], alone: Sequence[str] = ()) -> Verdict:
    """The conclusion from all rows. alone: the classes that are a single run (`Bench.alone`)."""
    by_name = {row.control: row for row in rows}
    network = by_name.get("network")
    leaks = list(_leaks(by_name))
    reasons = [*leaks, *_doubts(by_name), *_switched(by_name), *_unseen(rows, network)]
    reasons += [*_energy(rows), *_no_better(by_name)]
    if leaks:
        because = "the runs can be told apart without lasing, so the accuracy proves nothing"
        return Verdict(FOUND, because, reasons)
    undecided = [*_at_chance(network), *_single_runs(alone), *_too_few(by_name, network)]
    if undecided:
        return Verdict(UNDECIDED, "; and because ".join(undecided), reasons)
    because = "what was tried without the picture of the beam does not tell the classes apart"
    return Verdict(NOT_FOUND, because, reasons)


def _at_chance(network: Optional[Outcome]) -> Iterator[str]:
    if network is not None and network.finding not in ABOVE:
        yield (
            f"the network, trained anew for the controls, is {network.finding} ({network}), so there is no "
            "accuracy to explain"
        )


def _single_runs(alone: Sequence[str]) -> Iterator[str]:
    if len(alone) > 1:
        yield (
            f"{' and '.join(alone)} are a single run each, so what tells the classes apart cannot be told "
            "from what tells these runs apart; another run of each class is needed"
        )


def _too_few(by_name: Rows, network: Optional[Outcome]) -> Iterator[str]:
    """Why controls at chance exclude nothing: they could not show a leak of PART of the network's size."""
    if network is None:
        return
    rows = [by_name[name] for name in LEAKS if name in by_name and name not in TIMES]
    short = [
        (needed, row)
        for needed, row in ((_needed(row, network), row) for row in rows)
        if needed > row.n_effective
    ]
    if short:
        needed, row = max(short, key=lambda each: each[0] / each[1].n_effective)
        shots = row.n * needed / row.n_effective
        enough = (
            f"about {_round(needed)}, of {_round(shots)} shots such as these, would be needed"
            if math.isfinite(needed)
            else "no number of shots such as these would do"
        )
        yield (
            f'there are too few effective shots: {row.n_effective:.0f} in the control "{row.what}"; to see a '
            f"leak of half of what the network is right above guessing, {enough}"
        )


def _needed(row: Outcome, network: Outcome) -> float:
    """How many effective shots the control `row` needs to show a leak of PART of the network's size."""
    seen = row.chance + PART * max(network.value - network.chance, 0)
    return effective.needed(min(seen, 1.0), row.chance, row.n_effective, row.freedom, STRICT)


def _round(n: float) -> str:
    """A number of shots rounded up to two digits."""
    unit = 10 ** max(len(str(math.ceil(n))) - 2, 0)
    return str(math.ceil(n / unit) * unit)


def _leaks(by_name: Rows) -> Iterator[str]:
    """The leaks that controls clearly above chance show, each once."""
    said = set()
    for name in LEAKS:
        row, leak = by_name.get(name), TOLD[name].leak
        if row and row.finding == "above chance" and not _explained(name, by_name) and leak not in said:
            said.add(leak)
            yield f"{TOLD[name].words} {row}: {leak}"


def _doubts(by_name: Rows) -> Iterator[str]:
    """What could not be tested, or is not clear."""
    network = by_name.get("network")
    if network is not None and "beam_free" not in by_name:
        yield "no pixel is without beam, so the camera background could not be tried by itself"
    for name, row in ((name, by_name[name]) for name in LEAKS if name in by_name):
        told = f"{TOLD[name].words} {row}"
        if _explained(name, by_name) and row.finding in ABOVE:
            why = f"in the time that all have, it is {by_name['time_common']}"
            yield f"{told}, but only because the runs differ in length: {why}"
        elif row.finding == "barely above":
            yield f"{told}, barely above chance; look again with more shots"
        elif name in TIMES and network is not None and _needed(row, network) > row.n_effective:
            yield f"{told}: {row.n_effective:.0f} effective shots tell little of drifts"


def _explained(name: str, by_name: Rows) -> bool:
    """Whether time tells the classes apart only because the runs differ in length."""
    return name == "time" and "time_common" in by_name


def _unseen(rows: Sequence[Outcome], network: Optional[Outcome]) -> Iterator[str]:
    """Whether what the network learned holds in the runs that it was trained without."""
    for row in rows:
        if not row.control.startswith("unseen_"):
            continue
        holds = row.finding in ABOVE
        meaning = "what it learned holds there" if holds else "what it learned is of the runs it saw"
        if holds and network is not None and row.interval[1] < network.value:
            meaning = f"some of the {network.value:.2f} is of the runs it saw; expect this of a new run"
        yield f"{row.what}: {row} ({_called(row.called)}): {meaning}"


def _called(of_runs: Sequence[Called]) -> str:
    """The share of each run that is called each class."""
    parts = []
    for name, of_class in itertools.groupby(of_runs, lambda of: of.class_name):
        shares = (
            f"run {of.run} {of.called / of.n:.2f} [{of.interval[0]:.2f}, {of.interval[1]:.2f}] of {of.n}"
            for of in of_class
        )
        parts.append(f"called {name}: {'; '.join(shares)}")
    return "; ".join(parts)


def _switched(by_name: Rows) -> Iterator[str]:
    """How much of the accuracy comes from the runs, according to the same shots with lasing switched.

    A network that judges only lasing is right as often as before; one that judges only the run is right
    where it was wrong. In between, with accuracies a before and c after, the run contributes (a - c) / 2 of
    the a - 1/2 above guessing.
    """
    network, switched = by_name.get("network"), by_name.get("counterfactual")
    if network is None or switched is None:
        return
    above, meaning = 2 * network.value - 1, ""
    if above > 0:
        share = min(max((network.value - switched.value) / above, 0.0), 1.0)
        meaning = f"; so {share:.0%} of what the network is right above guessing comes from the run"
    yield f"the same test shots with lasing switched, where judging the run is wrong: {switched}{meaning}"


def _energy(rows: Sequence[Outcome]) -> Iterator[str]:
    """Whether the probability rises with the pulse energy, as it should if the network sees lasing."""
    found = [row for row in rows if row.kind == "correlation"]
    if found:
        numbers = "; ".join(f"{row.what.partition('run ')[2].partition(',')[0]} {row}" for row in found)
        names = " and ".join(dict.fromkeys(row.class_name for row in found))
        rises = all(row.finding == "positive" for row in found)
        rising = "rises" if rises else "does not clearly rise"
        told = f"within the {names} runs the probability {rising} with the pulse energy (run {numbers})"
        yield f"{told}: as lasing would" if rises else told


def _no_better(by_name: Rows) -> Iterator[str]:
    """How regressions compare with the network."""
    network = by_name.get("network")
    for name in ("projection", "moments", "slices"):
        row = by_name.get(name)
        if network is None or row is None:
            continue
        told = f"{TOLD[name].words} {row}: the network's {network.value:.2f}"
        if name == "slices":
            below = network.value < row.value
            yield f"{told} {'is below it and has not earned its place' if below else 'is not below it'}"
        elif row.value >= network.value:
            yield f"{told} is no better"
