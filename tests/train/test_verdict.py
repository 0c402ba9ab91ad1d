"""The verdict of the controls: which outcomes make a leak, which do not, and which decide nothing."""

from __future__ import annotations

import dataclasses
import re

import pytest

from train.controls.outcome import STRICT, Called, Outcome
from train.controls.verdict import verdict
from train.metrics import effective


def row(control: str, low: float, value: float, high: float, strict: float = 0.0, **more) -> Outcome:
    return Outcome(control, control, "accuracy", 100, value, 100, (low, high), 0.5, 20, (strict, 1.0), **more)


def test_the_verdict_weighs_what_was_found():
    good, free = row("network", 0.8, 0.9, 0.95, 0.7), row("beam_free", 0.4, 0.5, 0.6)
    assert verdict([good, free]).head.startswith("Leak: not found. ")
    leak = row("beam_free", 0.7, 0.81, 0.9, 0.65)
    found = verdict([good, leak])
    assert found.head.startswith("Leak: found. ")
    assert "beam-free pixels alone reach 0.81 [0.70, 0.90] of 100" in found.reasons[0]
    once = row("ebeam", 0.52, 0.6, 0.7, 0.45)
    assert once.finding == "barely above"
    said = verdict([good, free, once])
    assert said.leak == "not found" and "look again with more shots" in said.reasons[0]
    late = [row("time", 0.7, 0.75, 0.8, 0.65), row("time_common", 0.4, 0.5, 0.6)]
    said = verdict([good, free, *late])
    assert said.leak == "not found" and "runs differ in length" in said.reasons[0]
    assert verdict([good, free, row("time", 0.7, 0.75, 0.8, 0.65)]).leak == "found"
    called = (Called(70, "lasing", 50, 40, (0.67, 0.89)),)
    unseen = row("unseen_70", 0.6, 0.7, 0.8, 0.55, called=called)
    said = verdict([good, free, unseen])
    assert "called lasing: run 70 0.80 [0.67, 0.89] of 50" in said.reasons[0]
    assert "some of the 0.90 is of the runs it saw" in said.reasons[0]
    assert "is of the runs it saw" not in verdict([row("network", 0.6, 0.75, 0.8), free, unseen]).reasons[0]
    gone = verdict([good, free, dataclasses.replace(unseen, interval=(0.4, 0.6))])
    assert gone.reasons[0].endswith("is of the runs it saw")


def test_the_verdict_is_open_where_the_data_cannot_tell():
    good, free = row("network", 0.8, 0.9, 0.95, 0.7), row("beam_free", 0.4, 0.5, 0.6)
    head = "Leak: cannot be decided because "
    lost = verdict([row("network", 0.4, 0.5, 0.6), free])
    assert lost.head.startswith(head + "the network, trained anew for the controls, is at chance (0.50 [0.40")
    one_run = verdict([good, free], ["nolasing", "lasing"])
    assert one_run.head.startswith(head + "nolasing and lasing are a single run each")
    assert verdict([good, free], ["nolasing"]).leak == "not found"  # the other class has several
    few = dataclasses.replace(free, n=400, n_effective=24.0, freedom=6)
    said = verdict([good, few])
    assert said.head.startswith(head + 'there are too few effective shots: 24 in the control "beam_free"')
    needed = effective.needed(0.7, 0.5, 24, 6, STRICT)  # half of what 0.9 is above 0.5
    numbers = [int(number) for number in re.findall(r"about (\d+), of (\d+) shots", said.head)[0]]
    assert needed <= numbers[0] < 1.1 * needed and numbers[1] == pytest.approx(needed * 400 / 24, rel=0.1)
    enough = dataclasses.replace(few, n_effective=needed, freedom=round(6 * needed / 24))
    assert verdict([good, enough]).leak == "not found"
    found = row("beam_free", 0.7, 0.81, 0.9, 0.65)
    assert verdict([good, found], ["nolasing", "lasing"]).leak == "found"  # what is found is found
