"""How far the probabilities, the pulse energy and the flag of a run can be relied on."""

from __future__ import annotations

from typing import Any

from common.report.drawing import svg
from common.report.page import Block, Columns, Picture, Pictures, Table, Text
from train.metrics import measure
from train.report import figures
from train.report.card import calibration_sentence
from train.report.evidence import Run


def blocks(run: Run) -> list[Block]:
    """The reliability diagram of the test split, what a threshold costs, the energy, the flags."""
    test = run.summary["splits"]["test"]
    if not test["reliability"]:  # runs of earlier versions
        return [Text("This run was trained by a version that did not measure it; train it again.")]
    found: list[Block] = [Text(calibration_sentence(run))]
    splits = {name: s["reliability"] for name, s in run.summary["splits"].items() if name != "train"}
    told = "; ".join(
        f"{name}: of {each['n']} shots called with {each['confidence']:.2f}, {each['correct']} are correct"
        for name, bins in splits.items()
        for each in bins
    )
    beside: list[Block] = [
        Pictures([Picture(svg(figures.reliability(splits)), f"Reliability diagram. {told}")])
    ]
    if test["thresholds"]:
        beside.append(_thresholds(test["thresholds"]))
    if "pulse_energy" in test:
        beside.append(_energies(run.summary["splits"]))
    found.append(Columns(beside))
    found += [Text(f"{line[0].upper()}{line[1:]}.") for line in measure.recognized(test)]
    for name, of in run.summary.get("flags", {}).items():
        found.append(
            Text(f"{of['flagged']} of {of['n']} {name} shots are flagged as unlike those trained on.")
        )
    return found


def _thresholds(rows: list[dict[str, Any]]) -> Table:
    return Table(
        ("class", "called so from a probability of", "its shots found", "others called so"),
        [
            (
                row["class"],
                f"{row['threshold']:g}",
                f"{row['found']} of {row['of']} ({row['found'] / max(row['of'], 1):.3f})",
                f"{row['false']} of {row['of_others']} ({row['false'] / max(row['of_others'], 1):.3f})",
            )
            for row in rows
        ],
        "What a threshold finds and what it costs, test split.",
    )


def _energies(splits: dict[str, Any]) -> Table:
    return Table(
        ("split", "shots", "R²", "Spearman", "rms error, µJ", "within the 90 % interval"),
        [
            (
                name,
                s["pulse_energy"]["n"],
                f"{s['pulse_energy']['r2']:.3f}",
                f"{s['pulse_energy']['spearman']:.3f}",
                f"{1000 * s['pulse_energy']['rms']:.1f}",
                "" if s["pulse_energy"]["covered"] is None else f"{s['pulse_energy']['covered']:.3f}",
            )
            for name, s in splits.items()
            if "pulse_energy" in s
        ],
        "Pulse energy told by the network against the gas detector's.",
    )
