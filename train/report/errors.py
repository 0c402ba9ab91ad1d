"""The sections of a training report that are drawn from the predictions of the held-out shots."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from common.manifest import SPLITS
from common.report.drawing import COLORS, GRAY, clip, new, png, svg
from common.report.page import Block, Columns, Picture, Pictures, Table, Text
from train.metrics import effective, roc
from train.metrics.effective import Share
from train.predict import probability_plot
from train.report import energy, figures
from train.report.evidence import Evidence, Run

_SPLITS = ("test", "validation", "train")
_NOTE = (
    "Area under the ROC curve, AUC (95 % interval): {areas}. 0.5 is guessing. The point is where the network "
    "decides, which calls a shot the class of the largest probability. Interval of the area: Obuchowski's of "
    "{units}, on the logit scale; band: bootstrap of {units}, both kinds apart, 500 resamples, percentiles "
    "point by point."
)


def blocks(run: Run, shots: Optional[Evidence], missing: str) -> list[Block]:
    """Where the network errs: confusion, probabilities by class, ROC, by pulse energy, run by run.

    shots: None if the images cannot be read; `missing` says why.
    """
    test, *others = [_confusion(run, name) for name in sorted(run.splits, key=_SPLITS.index)]
    if shots is None:
        return [Pictures([test, *others]), Text(missing, "note")]
    by_run, table = _runs(run, shots)
    # Of two classes the second says it all, of more each is shown against the others.
    told = [1] if len(run.classes) == 2 else range(len(run.classes))
    rocs = [_roc(run, shots, label) for label in told if 0 < (shots.labels == label).mean() < 1]
    histograms = [_probabilities(run, shots, label) for label in told]
    by_energy = energy.pictures(run, shots)
    unknown = Text("The data have no gas-detector records, so nothing is shown by pulse energy.", "note")
    areas = "; ".join(area for _, area in rocs)
    return [
        Pictures([test, *histograms, *(picture for picture, _ in rocs), *by_energy, by_run, *others]),
        Columns([table, Text(_NOTE.format(areas=areas, units=shots.units), "note")]),
        *([] if by_energy else [unknown]),
    ]


def time(run: Run, shots: Evidence) -> list[Block]:
    """The probabilities over time, run by run."""
    split, pictures = np.full(len(shots.labels), SPLITS.index(shots.split)), []
    drawn = probability_plot.Shots(run.classes, shots.ids, shots.probabilities, shots.labels, split)
    for number in np.unique(shots.runs)[: probability_plot.MOST_PANELS]:
        n = int((shots.runs == number).sum())
        what = f"Probabilities of the {n} {shots.split} shots of run {number} over time"
        pictures.append(Picture(png(probability_plot.figure_of_run(number, drawn)), what))
    return [Pictures(pictures)]


def _confusion(run: Run, name: str) -> Picture:
    """The confusion matrix, row the true class, shaded by the share of its row."""
    of, classes = run.splits[name], [clip(each) for each in run.classes]
    counts, size = np.array(of.confusion), max(4.3, 1.4 + 0.75 * len(classes))
    figure, axes = new(size, 0.85 * size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), n in np.ndenumerate(counts):
        color = "white" if shares[i, j] > 0.6 else "black"
        axes.text(j, i, f"{n}\n{100 * shares[i, j]:.0f} %", ha="center", va="center", color=color)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes, rotation=90, va="center")
    axes.set(title=f"{name}, {of.score.n} shots", xlabel="called", ylabel="true class")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    told = "; ".join(
        f"of {sum(row)} {label} {row[n]} called {label}"
        for n, (label, row) in enumerate(zip(run.classes, of.confusion))
    )
    return Picture(svg(figure), f"Confusion matrix of the {name} split: {told}")


def _probabilities(run: Run, shots: Evidence, label: int) -> Picture:
    """How the probability of a class is spread among the shots of each."""
    name, p, edges = run.classes[label], shots.probabilities[:, label], np.linspace(0, 1, 26)
    figure, axes = new(4.3, 3.2)
    medians = []
    for k, other in enumerate(run.classes):
        mine, color = p[shots.labels == k], COLORS[k % len(COLORS)]
        counts, _ = np.histogram(mine, edges)
        axes.stairs(counts, edges, color=color, fill=True, alpha=0.25)
        axes.stairs(counts, edges, color=color, lw=1.5, label=f"{clip(other)} shots")
        medians += [f"{other} shots median {np.median(mine):.2f}"] if len(mine) else []
    axes.axvline(0.5, color=GRAY, ls=":", lw=1)
    axes.set(title=f"Probability of {clip(name)}", xlabel=f"p({clip(name)})", ylabel="shots")
    axes.set(yscale="log", xlim=(0, 1))
    axes.set_ylim(bottom=0.7)
    figure.legend(loc="outside lower center", ncols=len(run.classes))
    alt = f"Histogram of p({name}) by class: {'; '.join(medians)}"
    return Picture(svg(figure), alt, f"Split {shots.split}, {len(p)} shots.")


def _roc(run: Run, shots: Evidence, label: int) -> tuple[Picture, str]:
    """The ROC of a class against the others, and its area in words."""
    positive, scores, name = shots.labels == label, shots.probabilities[:, label], run.classes[label]
    area = roc.area(positive, scores, shots.block)
    figure = roc_figure(name, positive, scores, shots.predicted == label, shots.block, area)
    what = f"{positive.sum()} {name} shots against {(~positive).sum()} others, split {shots.split}."
    value, low, high = area
    picture = Picture(svg(figure), f"ROC curve of {name}, area {value:.3f}", what)
    return picture, f"{name}: {value:.3f} ({low:.3f} to {high:.3f})"


def roc_figure(
    name: str,
    positive: np.ndarray,
    scores: np.ndarray,
    called: np.ndarray,
    block: Optional[np.ndarray],
    area: tuple[float, float, float],
) -> Any:
    """The curve with its band by blocks of time, and the point where the network decides.

    positive, scores, block: (n,), as `roc.curve` takes them; called: (n,) bool, the shots whose largest
    probability is this class's; area: with its interval.
    """
    value, low, high = area
    figure, axes = new(4.3, 3.9)
    axes.fill_between(roc.GRID, *roc.band(positive, scores, block), color=COLORS[0], alpha=0.18, lw=0)
    axes.fill_between([], [], [], color=COLORS[0], alpha=0.18, lw=0, label="95 % band")
    label = f"AUC {value:.3f} [{low:.3f}, {high:.3f}]"
    axes.plot(*roc.curve(positive, scores), color=COLORS[0], label=label)
    axes.plot([0, 1], [0, 1], color=GRAY, ls=":", label="guessing")
    decided = called[~positive].mean(), called[positive].mean()
    axes.plot(*decided, "o", color=COLORS[1], ms=7, label="as decided")
    axes.set(title=f"ROC: finding {clip(name)}", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel=f"others called {clip(name)}", ylabel=f"{clip(name)} found")
    axes.legend(loc="lower right")
    return figure


def _runs(run: Run, shots: Evidence) -> tuple[Picture, Table]:
    """Shares classified correctly run by run."""
    right = shots.predicted == shots.labels
    found: list[tuple[str, int, Share]] = []
    for number in np.unique(shots.runs):
        for label in np.unique(shots.labels[shots.runs == number]):
            of_run = (shots.runs == number) & (shots.labels == label)
            share = effective.share(right, shots.block, rows=of_run)
            found.append((f"run {number}", int(label), share))
    rows = [(name, run.classes[label], *share.cells) for name, label, share in found]
    told = "; ".join(f"{name} {share.k} of {share.n}" for name, _, share in found)
    named = [(f"{name}, {clip(run.classes[label])}", label, share) for name, label, share in found]
    picture = Picture(
        svg(figures.accuracies("Accuracy by run", named)[0]),
        f"Classified correctly: {told}",
        f"Split {shots.split}, with 95 % intervals by {shots.units}.",
    )
    header = ("run", "class", "shots", "effective", "classified correctly", "95 % interval")
    return picture, Table(header, rows)
