"""The sections of a training report that are drawn from the predictions of the held-out shots."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from common.report.drawing import png, svg
from common.report.page import Block, Picture, Pictures, Table, Text
from train.metrics import effective, measure, roc
from train.metrics.effective import Share
from train.predict import probability_plot
from train.report import figures
from train.report.evidence import Evidence, Run


def probabilities(run: Run, shots: Evidence) -> list[Block]:
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
    return [Pictures(pictures)]


def time(run: Run, shots: Evidence) -> list[Block]:
    """The probabilities over time, run by run."""
    split = np.full(len(shots.labels), shots.split)
    figure = probability_plot.figure(shots.ids, shots.probabilities, shots.labels, split, run.classes)
    what = f"Probabilities of the {shots.split} shots over time, run by run"
    return [Pictures([Picture(png(figure), what)], "wide")]


def roc_curves(run: Run, shots: Evidence) -> list[Block]:
    """The ROC of each class against the others, of two classes the second's."""
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
    return [
        Text(f"Area under the curve, AUC (95 % interval): {'; '.join(areas)}. 0.5 is guessing."),
        Pictures(pictures),
        Text(
            "The point is where the network decides, which calls a shot the class of the largest "
            "probability. "
            f"Interval of the area: Obuchowski's of {shots.units}, on the logit scale. Band: bootstrap of "
            f"{shots.units}, both kinds apart, 500 resamples, percentiles point by point.",
            "note",
        ),
    ]


def energy(run: Run, shots: Evidence) -> list[Block]:
    """Shares classified correctly, and probabilities, against the pulse energy."""
    known = np.isfinite(shots.energy)
    if not known.any():
        return [Text("The data have no gas-detector records, so there is no pulse energy to compare with.")]
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
    return [Pictures(pictures)]


def runs(run: Run, shots: Evidence) -> list[Block]:
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
    return [
        Pictures(
            [
                Picture(
                    svg(figures.by_run(found, run.classes)),
                    f"Classified correctly: {told}",
                    f"Split {shots.split}, with 95 % intervals by {shots.units}.",
                )
            ]
        ),
        Table(("run", "class", "shots", "effective", "classified correctly", "95 % interval"), rows),
    ]


def _told(classes: Sequence[str]) -> list[int]:
    """The classes whose probability is shown: of two the second, which says it all; of more, each."""
    return [1] if len(classes) == 2 else list(range(len(classes)))
