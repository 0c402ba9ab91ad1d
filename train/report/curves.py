"""The learning curves of a run as pictures."""

from __future__ import annotations

import math

import numpy as np

from common.report.drawing import COLORS, GRAY, clip, svg
from common.report.page import Picture
from train.metrics.measure import Score
from train.report import figures
from train.report.evidence import Run
from train.run import history


def pictures(run: Run) -> list[Picture]:
    """Loss, accuracy, |grad|, gr-ang, learning rate, shots called each class against the step."""
    return [_loss(run), _accuracy(run), _norm(run), _cosine(run), _rate(run), _called(run)]


def splits_of(run: Run) -> list[str]:
    """The splits that the table of `run` has accuracies of."""
    return [name for name in ("train", "validation", "test") if f"{name}_accuracy" in run.rows[0]]


def _loss(run: Run) -> Picture:
    losses = {"with regularization": run.column("loss"), "without": run.column("cross_entropy")}
    styles = {"with regularization": {"ls": "--"}}
    figure, axes = figures.lines(
        "Loss of the minibatch", "mean cross entropy (nat)", run.column("step"), losses, styles
    )
    axes.axhline(math.log(len(run.classes)), color=GRAY, ls=":", label="knowing nothing: ln(classes)")
    axes.legend()
    same = np.array_equal(*losses.values())
    return Picture(
        svg(figure),
        f"Curve of the loss, from {losses['without'][0]:.3f} to {losses['without'][-1]:.3f}",
        "Of single minibatches, hence the scatter."
        + (" This run has no regularization: both are one curve." if same else ""),
    )


def _accuracy(run: Run) -> Picture:
    correct = {name: run.column(f"{name}_accuracy") for name in splits_of(run)}
    scores = run.summary["splits"]
    test = Score.from_json(scores["test"])
    figure = figures.accuracy(run.column("step"), correct, test)
    ends = ", ".join(f"{name} {values[-1]:.3f}" for name, values in correct.items())
    counts = ", ".join(f"{scores[name]['n']} {name}" for name in correct)
    caption = (
        f"Of all shots: {counts}. Band: for the {test.share.n_effective:.0f} effective test shots of the end."
    )
    return Picture(svg(figure), f"Curves of accuracy, at the end {ends}", caption)


def _norm(run: Run) -> Picture:
    values = run.column("gradient_norm")
    figure, axes = figures.lines("Length of the gradient, |grad|", "|grad|", run.column("step"), {"": values})
    figures.finite_log(axes, values)
    return Picture(
        svg(figure),
        f"Curve of the gradient's length, between {values.min():.2g} and {values.max():.2g}",
        "All variables as one vector, before clipping.",
    )


def _cosine(run: Run) -> Picture:
    values = run.column("gradient_cosine")
    figure, axes = figures.lines(
        "Angle to the last gradient, gr-ang", "cosine", run.column("step"), {"": values}
    )
    axes.set_ylim(-1.05, 1.05)
    axes.axhline(0, color=GRAY, ls=":")
    return Picture(
        svg(figure),
        "Curve of the cosine between one step's gradient and the next",
        "1: the same way again; 0: unrelated; under 0: it swings back.",
    )


def _rate(run: Run) -> Picture:
    values = run.column("learning_rate")
    figure, axes = figures.lines("Learning rate", "learning rate", run.column("step"), {"": values})
    figures.finite_log(axes, values)
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    return Picture(svg(figure), f"Curve of the learning rate, from {values[0]:.3g} to {values[-1]:.3g}")


def _called(run: Run) -> Picture:
    """With two classes each split's shots called the second; with more, the test split's called each."""
    scores, many = run.summary["splits"], len(run.classes) > 2
    labels = [1] if not many else range(1, len(run.classes))
    shares, styles = {}, {}
    for label in labels:
        for split in ["test"] if many else splits_of(run):
            name = clip(run.classes[label]) if many else split
            shares[name] = run.column(history.called_column(split, label)) / scores[split]["n"]
            styles[name] = {"color": COLORS[label % len(COLORS)] if many else figures.SPLIT_COLORS[split]}
    one = "each class, test" if many else clip(run.classes[1])
    figure, axes = figures.lines(
        f"Shots called {one}", "share of the split", run.column("step"), shares, styles
    )
    for label in labels:
        truth = sum(scores["test"]["confusion"][label]) / scores["test"]["n"]
        axes.axhline(truth, color=GRAY, ls=":", label="truth, test" if label == labels[-1] else None)
    axes.set_ylim(-0.03, 1.03)
    axes.legend()
    return Picture(
        svg(figure),
        f"Curves of the share of shots called {' or '.join(run.classes[label] for label in labels)}",
        "At 0 or 1 the network calls everything one class.",
    )
