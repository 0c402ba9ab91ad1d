"""The learning curves of a run as pictures."""

from __future__ import annotations

import math

import numpy as np

from common.report.drawing import COLORS, GRAY, clip, svg
from common.report.page import Picture
from train.metrics import effective
from train.report.evidence import Run
from train.report.figures import SPLIT_COLORS, finite_log, lines
from train.run import history


def pictures(run: Run) -> list[Picture]:
    """Loss, accuracy, |grad|, gr-ang, learning rate, shots called each class against the step."""
    steps, norm, rate = run.column("step"), run.column("gradient_norm"), run.column("learning_rate")
    of_norm, axes = lines("Length of the gradient, |grad|", "|grad|", steps, {"": norm})
    finite_log(axes, norm)
    of_cosine, axes = lines(
        "Angle to the last gradient, gr-ang", "cosine", steps, {"": run.column("gradient_cosine")}
    )
    axes.set_ylim(-1.05, 1.05)
    axes.axhline(0, color=GRAY, ls=":")
    of_rate, axes = lines("Learning rate", "learning rate", steps, {"": rate})
    finite_log(axes, rate)
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    return [
        _loss(run),
        _accuracy(run),
        Picture(
            svg(of_norm),
            f"Curve of the gradient's length, between {norm.min():.2g} and {norm.max():.2g}",
            "All variables as one vector, before clipping.",
        ),
        Picture(
            svg(of_cosine),
            "Curve of the cosine between one step's gradient and the next",
            "1: the same way again; 0: unrelated; under 0: it swings back.",
        ),
        Picture(svg(of_rate), f"Curve of the learning rate, from {rate[0]:.3g} to {rate[-1]:.3g}"),
        _called(run),
    ]


def splits_of(run: Run) -> list[str]:
    """The splits whose accuracies are in the table of `run`."""
    return [name for name in ("train", "validation", "test") if f"{name}_accuracy" in run.rows[0]]


def _loss(run: Run) -> Picture:
    losses = {"with regularization": run.column("loss"), "without": run.column("cross_entropy")}
    styles = {"with regularization": {"ls": "--"}}
    unit = "mean cross entropy (nat)"
    figure, axes = lines("Loss of the minibatch", unit, run.column("step"), losses, styles)
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
    """Accuracy of each split; the effective sample size of the last test score gives the band."""
    steps, test = run.column("step"), run.splits["test"].score
    correct = {name: run.column(f"{name}_accuracy") for name in splits_of(run)}
    styles = {name: {"color": SPLIT_COLORS[name]} for name in correct}
    figure, axes = lines("Accuracy on whole splits", "accuracy", steps, correct, styles)
    n, freedom = test.share.n_effective, test.share.freedom
    band = zip(*(effective.interval(value, n, freedom) for value in correct["test"]))
    shade = {"color": SPLIT_COLORS["test"], "alpha": 0.18, "lw": 0}
    axes.fill_between(steps, *band, label="test, 95 % interval", **shade)
    axes.axhline(test.chance, color=GRAY, ls=":", label="larger class")
    axes.legend(loc="best")
    ends = ", ".join(f"{name} {values[-1]:.3f}" for name, values in correct.items())
    counts = ", ".join(f"{run.splits[name].score.n} {name}" for name in correct)
    caption = f"Of all shots: {counts}. Band: for the {n:.0f} effective test shots of the end."
    return Picture(svg(figure), f"Curves of accuracy, at the end {ends}", caption)


def _called(run: Run) -> Picture:
    """The share of shots called the second of two classes, by split, or each of more, in split test."""
    scores, many = run.splits, len(run.classes) > 2
    labels = [1] if not many else range(1, len(run.classes))
    shares, styles = {}, {}
    for label in labels:
        for split in ["test"] if many else splits_of(run):
            name = clip(run.classes[label]) if many else split
            shares[name] = run.column(history.called_column(split, label)) / scores[split].score.n
            styles[name] = {"color": COLORS[label % len(COLORS)] if many else SPLIT_COLORS[split]}
    one = "each class, test" if many else clip(run.classes[1])
    figure, axes = lines(f"Shots called {one}", "share of the split", run.column("step"), shares, styles)
    for label in labels:
        truth = sum(scores["test"].confusion[label]) / scores["test"].score.n
        axes.axhline(truth, color=GRAY, ls=":", label="truth, test" if label == labels[-1] else None)
    axes.set_ylim(-0.03, 1.03)
    axes.legend()
    return Picture(
        svg(figure),
        f"Curves of the share of shots called {' or '.join(run.classes[label] for label in labels)}",
        "At 0 or 1 the network calls everything one class.",
    )
