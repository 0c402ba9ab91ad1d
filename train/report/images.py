"""The sections of a training report that are drawn from the images."""

from __future__ import annotations

import numpy as np

from common.report.camera import camera_image, thumbnail
from common.report.drawing import SIGNED_COLORS, clip, new, png
from common.report.page import Block, Picture, Pictures, Text
from train.report import aligned, yardstick
from train.report.evidence import EXAMPLES, Evidence, Run


def slices(run: Run, shots: Evidence) -> list[Block]:
    """Slices, and whether the network is better than a regression on them."""
    return yardstick.section(shots.yardstick, shots.labels, shots.predicted, run.classes, shots.view)


def means(run: Run, shots: Evidence) -> list[Block]:
    """The mean image of each class, and their differences."""
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


def aligned_means(run: Run, shots: Evidence) -> list[Block]:
    """The same, each image aligned on the centroid of its light; and the energy projections."""
    return aligned.section(run.classes, shots.aligned, shots.mean_shots, shots.view)


def gallery(run: Run, shots: Evidence) -> list[Block]:
    """Shots that are classified correctly, and those that are not."""
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


_BEAM = (
    " Black outline: half height of the class's mean image. Color far from the beam is a warning: there the "
    "network tells the runs apart by the camera's background."
)


def decision(run: Run, shots: Evidence) -> list[Block]:
    """What each pixel adds to the decision, and the kernels of the first convolution."""
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
        Pictures([*pictures, *_kernels(shots)]),
        Text(
            "Gradient times input: (pixel - mean image) times the gradient of the decision by that pixel, "
            "averaged over shots. The decision is the logit of the class minus the mean of the others.",
            "note",
        ),
    ]


def _kernels(shots: Evidence) -> list[Picture]:
    """Each channel of the first convolution's kernel, on one scale around 0."""
    rows, columns, inputs, channels = shots.kernel.shape
    if not channels:
        return []
    kernel = shots.kernel.mean(axis=2)
    across = min(channels, 4 if channels <= 16 else 8)
    down = -(-channels // across)
    figure, grid = new(5.0, 0.6 + 1.1 * down * (4 / across), nrows=down, ncols=across, squeeze=False)
    reach = float(np.abs(kernel).max()) or 1.0
    for axes in grid.flat:
        axes.axis("off")
    for n, axes in zip(range(channels), grid.flat):
        picture = shots.view.picture(kernel[..., n])
        shown = axes.imshow(picture, cmap=SIGNED_COLORS, vmin=-reach, vmax=reach)
        axes.set_title(f"{n + 1}", fontsize=7, fontweight="normal", pad=2)
    figure.colorbar(shown, ax=grid, shrink=0.7, label="weight")
    return [
        Picture(
            png(figure),
            f"The {channels} kernels of the first convolution, {rows} x {columns} pixels each",
            f"First convolution: {channels} kernels of {rows} x {columns} stored pixels, turned as the "
            "camera sees. Red weights answer to bright pixels, blue ones to dark.",
        )
    ]
