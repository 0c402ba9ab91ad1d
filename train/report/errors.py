"""The sections of a training report that are drawn from the predictions of the held-out shots."""

from __future__ import annotations

from typing import Optional, Sequence

import numpy as np

from common.report.drawing import png, svg
from common.report.page import Block, Columns, Picture, Pictures, Table, Text
from train.metrics import effective, measure, roc
from train.metrics.effective import Share
from train.predict import probability_plot
from train.report import figures
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
    test, *others = [_confusion(run, name) for name in sorted(run.summary["splits"], key=_SPLITS.index)]
    if shots is None:
        return [Pictures([test, *others]), Text(missing, "note")]
    rocs, areas = _rocs(run, shots)
    by_run, table = _runs(run, shots)
    known = np.isfinite(shots.energy).any()
    unknown = [Text("The data have no gas-detector records, so nothing is shown by pulse energy.", "note")]
    return [
        Pictures([test, *_probabilities(run, shots), *rocs, *_energy(run, shots), by_run, *others]),
        Columns([table, Text(_NOTE.format(areas=areas, units=shots.units), "note")]),
        *([] if known else unknown),
    ]


def time(run: Run, shots: Evidence) -> list[Block]:
    """The probabilities over time, run by run."""
    split, pictures = np.full(len(shots.labels), shots.split), []
    for number in np.unique(shots.runs)[: probability_plot.MOST_PANELS]:
        figure = probability_plot.figure_of_run(
            number, shots.ids, shots.probabilities, shots.labels, split, run.classes
        )
        n = int((shots.runs == number).sum())
        what = f"Probabilities of the {n} {shots.split} shots of run {number} over time"
        pictures.append(Picture(png(figure), what))
    return [Pictures(pictures)]


def _confusion(run: Run, name: str) -> Picture:
    s = run.summary["splits"][name]
    figure = figures.confusion(f"{name}, {s['n']} shots", np.array(s["confusion"]), run.classes)
    told = "; ".join(
        f"of {sum(row)} {label} {row[n]} called {label}"
        for n, (label, row) in enumerate(zip(run.classes, s["confusion"]))
    )
    return Picture(svg(figure), f"Confusion matrix of the {name} split: {told}")


def _probabilities(run: Run, shots: Evidence) -> list[Picture]:
    """How the probability of a class is spread among the shots of each."""
    pictures = []
    for label in _told(run.classes):
        name, p = run.classes[label], shots.probabilities[:, label]
        medians = "; ".join(
            f"{other} shots median {np.median(p[shots.labels == k]):.2f}"
            for k, other in enumerate(run.classes)
            if (shots.labels == k).any()
        )
        figure = figures.probability_histogram(p, shots.labels, run.classes, label)
        alt = f"Histogram of p({name}) by class: {medians}"
        pictures.append(Picture(svg(figure), alt, f"Split {shots.split}, {len(p)} shots."))
    return pictures


def _rocs(run: Run, shots: Evidence) -> tuple[list[Picture], str]:
    """The ROC of each class against the others, of two classes the second's; and the areas in words."""
    pictures, areas = [], []
    for label in _told(run.classes):
        positive, scores, name = shots.labels == label, shots.probabilities[:, label], run.classes[label]
        if positive.all() or not positive.any():
            continue
        value, low, high = roc.area(positive, scores, shots.block)
        areas.append(f"{name}: {value:.3f} ({low:.3f} to {high:.3f})")
        pictures.append(
            Picture(
                svg(figures.roc_curve(name, positive, scores, shots.predicted == label, shots.block)),
                f"ROC curve of {name}, area {value:.3f}",
                f"{positive.sum()} {name} shots against {(~positive).sum()} others, split {shots.split}.",
            )
        )
    return pictures, "; ".join(areas)


def _energy(run: Run, shots: Evidence) -> list[Picture]:
    """Shares classified correctly, and probabilities, against the pulse energy."""
    known = np.isfinite(shots.energy)
    if not known.any():
        return []
    right = shots.predicted == shots.labels
    of_class = {
        name: measure.shares_by_energy(
            *(each[shots.labels == label] for each in (shots.energy, right)),
            shots.blocks_of(shots.labels == label),
        )
        for label, name in enumerate(run.classes)
    }
    of_class = {name: shares for name, shares in of_class.items() if shares}
    told = "; ".join(
        f"{name} from {shares[0].share.value:.2f} at {shares[0].energy:.3f} mJ to "
        f"{shares[-1].share.value:.2f} at {shares[-1].energy:.3f} mJ"
        for name, shares in of_class.items()
    )
    without = f" {(~known).sum()} shots have no record." if not known.all() else ""
    caption = (
        f"Split {shots.split}, {known.sum()} shots in bins of equal numbers, at their median energy, with "
        f"95 % intervals by {shots.units}.{without}"
    )
    pictures = [Picture(svg(figures.by_energy(of_class)), f"Share classified correctly: {told}", caption)]
    for label in _told(run.classes)[-len(run.classes) + 1 :]:
        figure = figures.probability_by_energy(
            shots.energy[known], shots.probabilities[known, label], shots.labels[known], run.classes, label
        )
        what = f"p({run.classes[label]}) of each shot against its pulse energy"
        caption = "Points: shots, colored by their own class; black: running median."
        pictures.append(Picture(png(figure), what, caption))
    return pictures


def _runs(run: Run, shots: Evidence) -> tuple[Picture, Table]:
    """Shares classified correctly run by run."""
    right = shots.predicted == shots.labels
    found: list[tuple[str, int, Share]] = []
    for number in np.unique(shots.runs):
        for label in np.unique(shots.labels[shots.runs == number]):
            of_run = (shots.runs == number) & (shots.labels == label)
            share = effective.share(right[of_run], shots.blocks_of(of_run))
            found.append((f"run {number}", int(label), share))
    rows = []
    for name, label, share in found:
        low, high = share.interval
        cells = (f"{share.value:.3f}", f"{low:.3f} to {high:.3f}")
        rows.append((name, run.classes[label], share.n, f"{share.n_effective:.0f}", *cells))
    told = "; ".join(f"{name} {share.k} of {share.n}" for name, _, share in found)
    picture = Picture(
        svg(figures.by_run(found, run.classes)),
        f"Classified correctly: {told}",
        f"Split {shots.split}, with 95 % intervals by {shots.units}.",
    )
    header = ("run", "class", "shots", "effective", "classified correctly", "95 % interval")
    return picture, Table(header, rows)


def _told(classes: Sequence[str]) -> list[int]:
    """The classes whose probability is shown: of two the second, which says it all; of more, each."""
    return [1] if len(classes) == 2 else list(range(len(classes)))
