"""Explain the outcomes of the controls in words."""

from __future__ import annotations

from typing import Optional, Sequence

from train.controls.outcome import Outcome

# A control of these above chance says that runs can be told apart without lasing.
LEAKS = {
    "permuted": "the test shots are not independent of the training shots",
    "beam_free": "the camera background tells the runs apart",
    "beam_free_intensity": "the camera background tells the runs apart",
    "ebeam": "the machine was not in the same state, and a picture shows that, too",
    "time": "something drifts alike in the runs of a class",
    "time_common": "something drifts alike in the runs of a class",
}
NAMES = {
    "permuted": "permuted labels reach",
    "beam_free": "beam-free pixels alone reach",
    "beam_free_intensity": "the mean intensity of beam-free pixels alone reaches",
    "ebeam": "the EBeam record alone reaches",
    "time": "time within the run alone reaches",
    "time_common": "time within the run alone reaches",
    "slices": "logistic regression on slices reaches",
    "projection": "logistic regression on the energy projection reaches",
    "moments": "logistic regression on four moments reaches",
}


def verdict(rows: Sequence[Outcome]) -> list[str]:
    """The conclusion, then its reasons, one sentence each."""
    by_name = {row.control: row for row in rows}
    network = by_name.get("network")
    leaks = _leaks(by_name)
    lines = [*leaks, *_doubts(by_name), *_switched(by_name), *_unseen(rows, network)]
    lines += [*_energy(rows), *_no_better(by_name)]
    if leaks:
        head = "A leak: the runs can be told apart without lasing, so the accuracy proves nothing."
    elif network is not None and network.finding not in ("above chance", "barely above"):
        head = f"Nothing learned: the network is {network.finding}, so there is nothing to believe."
    else:
        head = (
            "No leak found: what was tried without the picture of the beam does not tell the classes apart."
        )
    return [head, *lines]


def _leaks(by_name: dict[str, Outcome]) -> list[str]:
    found, said = [], set()
    for name, reason in LEAKS.items():
        row = by_name.get(name)
        if row is None or row.finding != "above chance" or _explained(name, by_name) or reason in said:
            continue
        said.add(reason)
        found.append(f"{NAMES[name]} {row}: {reason}")
    return found


def _doubts(by_name: dict[str, Outcome]) -> list[str]:
    found = []
    if "network" in by_name and "beam_free" not in by_name:
        found.append("no pixel is without beam, so the camera background could not be tried by itself")
    for name in LEAKS:
        row = by_name.get(name)
        if row is None:
            continue
        if _explained(name, by_name) and row.finding in ("above chance", "barely above"):
            found.append(
                f"{NAMES[name]} {row}, but only because the runs differ in length: in the time "
                f"that all have, it is {by_name['time_common']}"
            )
        elif row.finding == "barely above":
            found.append(f"{NAMES[name]} {row}, barely above chance; look again with more shots")
    return found


def _explained(name: str, by_name: dict[str, Outcome]) -> bool:
    """Whether time separates the classes only because the runs differ in length."""
    return name == "time" and "time_common" in by_name


def _unseen(rows: Sequence[Outcome], network: Optional[Outcome]) -> list[str]:
    found = []
    for row in rows:
        if not row.control.startswith("unseen_"):
            continue
        holds = row.finding in ("above chance", "barely above")
        meaning = "what it learned holds there" if holds else "what it learned is of the runs it saw"
        if holds and network is not None and row.interval[1] < network.value:
            meaning = f"some of the {network.value:.2f} is of the runs it saw; expect this of a new run"
        called = "; ".join(
            f"run {of.run} {of.called / of.n:.2f} [{of.wilson[0]:.2f}, {of.wilson[1]:.2f}] of {of.n}"
            for of in row.called
        )
        found.append(f"{row.what}: {row} (called {row.class_name}: {called}): {meaning}")
    return found


def _switched(by_name: dict[str, Outcome]) -> list[str]:
    """What the same shots with lasing switched say: how much of the accuracy comes from the runs.

    Who judges lasing alone is right as often as before; who judges the run alone is right where it was
    wrong. Between them, of the accuracy a above guessing, a - 1/2, the run gives (a - c) / 2 when it is c
    with lasing switched.
    """
    network, switched = by_name.get("network"), by_name.get("counterfactual")
    if network is None or switched is None:
        return []
    above = 2 * network.value - 1
    text = f"the same test shots with lasing switched, where judging the run is wrong: {switched}"
    if above <= 0:
        return [text]
    share = min(max((network.value - switched.value) / above, 0.0), 1.0)
    return [f"{text}; so {share:.0%} of what the network is right above guessing comes from the run"]


def _energy(rows: Sequence[Outcome]) -> list[str]:
    found = [row for row in rows if row.kind == "correlation"]
    if not found:
        return []
    numbers = "; ".join(f"run {row.control.partition('_')[2]} {row}" for row in found)
    if all(row.finding == "positive" for row in found):
        return [
            f"within the lasing runs the probability rises with the pulse energy ({numbers}): as lasing would"
        ]
    return [f"within the lasing runs the probability does not clearly rise with the pulse energy ({numbers})"]


def _no_better(by_name: dict[str, Outcome]) -> list[str]:
    network: Optional[Outcome] = by_name.get("network")
    found = []
    for name in ("projection", "moments"):
        row = by_name.get(name)
        if network is None or row is None:
            continue
        if row.value >= network.value:
            found.append(f"{NAMES[name]} {row}: the network's {network.value:.2f} is no better")
    slices = by_name.get("slices")
    if network is not None and slices is not None:
        below = network.value < slices.value
        meaning = "is below it and has not earned its place" if below else "is not below it"
        found.append(f"{NAMES['slices']} {slices}: the network's {network.value:.2f} {meaning}")
    return found
