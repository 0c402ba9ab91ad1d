"""How far the probabilities, the pulse energy and the flag of a run can be relied on."""

from __future__ import annotations

from common.report.drawing import GRAY, new, svg
from common.report.page import Block, Columns, Picture, Pictures, Table, Text
from train.metrics.calibration import Threshold
from train.metrics.scores import Scores
from train.report.card import calibration_sentence
from train.report.evidence import Run
from train.report.figures import SPLIT_COLORS, intervals


def blocks(run: Run) -> list[Block]:
    """The reliability diagram of the test split, what a threshold costs, the energy, the flags."""
    test = run.splits["test"]
    if not test.reliability:  # runs of earlier versions
        return [Text("This run was trained by a version that did not measure it; train it again.")]
    found: list[Block] = [Text(calibration_sentence(run))]
    beside: list[Block] = [Pictures([_reliability(run)])]
    if test.thresholds:
        beside.append(_thresholds(test.thresholds))
    if test.pulse_energy:
        beside.append(_energies(run.splits))
    found.append(Columns(beside))
    found += [Text(f"{line[0].upper()}{line[1:]}.") for line in test.recognized()]
    for name, of in run.summary.get("flags", {}).items():
        found.append(
            Text(f"{of['flagged']} of {of['n']} {name} shots are flagged as unlike those trained on.")
        )
    return found


def _reliability(run: Run) -> Picture:
    """The share of shots that are correct against the probability they are called with, for each split."""
    figure, axes = new(4.3, 3.9)
    axes.plot([0, 1], [0, 1], color=GRAY, ls=":", label="calibrated")
    told = []
    for name, bins in ((name, of.reliability) for name, of in run.splits.items() if name != "train"):
        at, style = [each.confidence for each in bins], {"fmt": "o", "color": SPLIT_COLORS[name]}
        intervals(axes, at, [each.share for each in bins], label=name, **style)
        told += [
            f"{name}: of {of.share.n} shots called with {of.confidence:.2f}, {of.share.k} are correct"
            for of in bins
        ]
    axes.set(title="Reliability", xlabel="probability of the called class", ylabel="share correct")
    axes.set(xlim=(-0.01, 1.02), ylim=(-0.02, 1.04))
    axes.legend(loc="upper left")
    return Picture(svg(figure), f"Reliability diagram. {'; '.join(told)}")


def _thresholds(of_classes: dict[str, list[Threshold]]) -> Table:
    return Table(
        ("class", "called so from a probability of", "its shots found", "others called so"),
        [
            (
                name,
                f"{row.threshold:g}",
                f"{row.found} of {row.of} ({row.found / max(row.of, 1):.3f})",
                f"{row.false} of {row.of_others} ({row.false / max(row.of_others, 1):.3f})",
            )
            for name, rows in of_classes.items()
            for row in rows
        ],
        "What a threshold finds and what it costs, test split.",
    )


def _energies(splits: Scores) -> Table:
    return Table(
        ("split", "shots", "R²", "Spearman", "rms error, µJ", "within the 90 % interval"),
        [
            (
                name,
                of.n,
                f"{of.r2:.3f}",
                f"{of.spearman:.3f}",
                f"{1000 * of.rms:.1f}",
                "" if of.covered is None else f"{of.covered:.3f}",
            )
            for name, of in ((name, s.pulse_energy) for name, s in splits.items())
            if of
        ],
        "Pulse energy told by the network against the gas detector's.",
    )
