"""The sections of a training report that need the images and the predictions."""

from __future__ import annotations

import numpy as np

from common.report.camera import camera_image, thumbnail
from common.report.drawing import clip, png, svg
from common.report.page import Block, Picture, Pictures, Section, Table, Text
from train.metrics import measure, roc
from train.report import figures, yardstick
from train.report.evidence import EXAMPLES, Evidence, Run


def sections(run: Run, shots: Evidence) -> list[Section]:
    """All of these sections, in order."""
    return [Section(id_, title, make(run, shots)) for id_, title, make in _PARTS]


def left_out(missing: str) -> list[Section]:
    """The same sections, each saying why it is left out."""
    text = f"Left out, because it is drawn from the images, and they cannot be read: {missing}"
    return [Section(id_, title, [Text(text, "note")]) for id_, title, _ in _PARTS]


def _slices(run: Run, shots: Evidence) -> list[Block]:
    return yardstick.section(shots.yardstick, shots.labels, shots.predicted, run.classes, shots.view)


def _roc(run: Run, shots: Evidence) -> list[Block]:
    labels = [1] if len(run.classes) == 2 else range(len(run.classes))
    pictures, areas = [], []
    for label in labels:
        positive, scores, name = shots.labels == label, shots.probabilities[:, label], run.classes[label]
        if positive.all() or not positive.any():
            continue
        value, low, high = roc.area(positive, scores)
        areas.append(f"{name}: {value:.3f} ({low:.3f} to {high:.3f})")
        pictures.append(
            Picture(
                svg(figures.roc_curve(name, positive, scores)),
                f"ROC curve of {name}, area {value:.3f}",
                f"{positive.sum()} {name} shots against {(~positive).sum()} others, split {shots.split}.",
            )
        )
    return [
        Text(f"Area under the curve, AUC (95 % interval): {'; '.join(areas)}. 0.5 is guessing."),
        Pictures(pictures),
        Text(
            "Interval of the area: DeLong's, on the logit scale. Band: bootstrap of both classes apart, 500 "
            "resamples, percentiles point by point.",
            "note",
        ),
    ]


def _energy(run: Run, shots: Evidence) -> list[Block]:
    known = np.isfinite(shots.energy)
    if not known.any():
        return [Text("The data have no gas-detector records, so there is no pulse energy to compare with.")]
    right = shots.predicted == shots.labels
    of_class = {
        name: measure.shares_by_energy(shots.energy[shots.labels == label], right[shots.labels == label])
        for label, name in enumerate(run.classes)
    }
    of_class = {name: shares for name, shares in of_class.items() if shares}
    told = "; ".join(
        f"{name} from {shares[0].k / shares[0].n:.2f} at {shares[0].energy:.3f} mJ to "
        f"{shares[-1].k / shares[-1].n:.2f} at {shares[-1].energy:.3f} mJ"
        for name, shares in of_class.items()
    )
    without = f" {(~known).sum()} shots have no record." if not known.all() else ""
    caption = (
        f"Split {shots.split}, {known.sum()} shots in bins of equal numbers, at their median energy.{without}"
    )
    return [
        Pictures([Picture(svg(figures.by_energy(of_class)), f"Share classified correctly: {told}", caption)])
    ]


def _runs(run: Run, shots: Evidence) -> list[Block]:
    right = shots.predicted == shots.labels
    found: list[tuple[str, int, int, int]] = []
    for number in np.unique(shots.runs):
        for label in np.unique(shots.labels[shots.runs == number]):
            of_run = (shots.runs == number) & (shots.labels == label)
            found.append((f"run {number}", int(label), int(right[of_run].sum()), int(of_run.sum())))
    rows = []
    for name, label, correct, n in found:
        low, high = measure.wilson(correct, n)
        rows.append((name, run.classes[label], n, f"{correct / n:.3f}", f"{low:.3f} to {high:.3f}"))
    told = "; ".join(f"{name} {correct} of {n}" for name, _, correct, n in found)
    return [
        Pictures(
            [
                Picture(
                    svg(figures.by_run(found, run.classes)),
                    f"Classified correctly: {told}",
                    f"Split {shots.split}, with 95 % Wilson intervals.",
                )
            ]
        ),
        Table(("run", "class", "shots", "classified correctly", "95 % interval"), rows),
    ]


def _means(run: Run, shots: Evidence) -> list[Block]:
    limits = (float(shots.means.min()), float(shots.means.max()))
    view, pictures = shots.view, []
    for name, image, n in zip(run.classes, shots.means, shots.mean_shots):
        figure = camera_image(f"Mean of {clip(name)}", view, image, view.unit, limits)
        pictures.append(Picture(png(figure), f"Mean image of {n} {name} shots", f"{n} shots of split train."))
    for name, image in zip(run.classes[1:], shots.means[1:]):
        title = f"{clip(name)} minus {clip(run.classes[0])}"
        figure = camera_image(title, view, image - shots.means[0], view.unit, signed=True)
        pictures.append(
            Picture(png(figure), f"Difference of the mean images, {title}", "Red: brighter; blue: darker.")
        )
    return [Pictures(pictures)]


def _gallery(run: Run, shots: Evidence) -> list[Block]:
    sample = np.array([example.image for example in shots.examples])
    limits = (float(np.percentile(sample, 1)), float(np.percentile(sample, 99.8)))
    blocks: list[Block] = [
        Text(
            f"Evidence of split {shots.split}, on one color scale. Of each class up to {EXAMPLES} right ones "
            f"drawn at random, and the {EXAMPLES} wrong ones that the network was surest of."
        )
    ]
    for label, name in enumerate(run.classes):
        for right in (True, False):
            of_kind = [e for e in shots.examples if e.label == label and (e.predicted == e.label) == right]
            others = [other for other in run.classes if other != name]
            called = name if right else others[0] if len(others) == 1 else "another class"
            title = f"{name}, called {called}"
            if not of_kind:
                blocks.append(Text(f"{title}: none.", "note"))
                continue
            pictures = [
                Picture(
                    png(thumbnail(shots.view, e.image, limits), dpi=140),
                    f"A {name} shot called {run.classes[e.predicted]} with probability {e.probability:.2f}",
                    f"{run.classes[e.predicted]} {e.probability:.2f}; {e.shot}",
                )
                for e in of_kind
            ]
            blocks.append(Pictures(pictures, "small", title))
    return blocks


def _kernels(run: Run, shots: Evidence) -> list[Block]:
    rows, columns, inputs, channels = shots.kernel.shape
    if not channels:
        return [Text("The network has no convolution.")]
    figure = figures.kernels(shots.view, shots.kernel.mean(axis=2))
    return [
        Pictures(
            [
                Picture(
                    png(figure),
                    f"The {channels} kernels of the first convolution, {rows} x {columns} pixels each",
                    f"First convolution: {channels} kernels of {rows} x {columns} stored pixels, turned as "
                    "the camera sees. Red weights answer to bright pixels, blue ones to dark.",
                )
            ]
        )
    ]


_BEAM = (
    " Black outline: half height of the class's mean image. Color far from the beam is a warning: there the "
    "network tells the runs apart by the camera's background."
)


def _saliency(run: Run, shots: Evidence) -> list[Block]:
    reach = float(np.percentile(np.abs(shots.contributions), 99.9)) or 1.0
    pictures = []
    for label, name in enumerate(run.classes):
        image, n = shots.contributions[label], shots.contribution_shots[label]
        figure = camera_image(
            f"For {clip(name)}", shots.view, image, "contribution per pixel", (-reach, reach),
            signed=True, outline=shots.means[label] if shots.view.camera else None,
        )  # fmt: skip
        pictures.append(
            Picture(
                png(figure),
                f"What each pixel adds to the decision for {name}, mean of {n} shots",
                f"Mean of {n} {name} shots of split {shots.split}. All pixels together: {image.sum():+.2f}.",
            )
        )
    return [
        Text(f"Red pixels spoke for the class, blue ones against it.{_BEAM if shots.view.camera else ''}"),
        Pictures(pictures),
        Text(
            "Gradient times input: (pixel - mean image) times the gradient of the decision by that pixel, "
            "averaged over shots. The decision is the logit of the class minus the mean of the others.",
            "note",
        ),
    ]


_PARTS = (
    ("slices", "Energy and spread along the bunches: the yardstick", _slices),
    ("roc", "ROC", _roc),
    ("energy", "Accuracy against pulse energy", _energy),
    ("runs", "Accuracy per run", _runs),
    ("means", "Mean images", _means),
    ("gallery", "Right and wrong shots", _gallery),
    ("kernels", "Learned kernels", _kernels),
    ("saliency", "Where in the image the decision comes from", _saliency),
)
