"""A logistic regression on slices, the domain's own reading of the pictures, as a yardstick for networks."""

from __future__ import annotations

from typing import NamedTuple, Optional

import numpy as np

from common import bunches, slices
from common.dataset.view import View
from common.report.page import Block, Text
from common.report.slices import slice_blocks
from common.stats import evenly
from train.controls import baselines
from train.data.dataset import Data
from train.data.minibatches import Split
from train.metrics import measure

MOST_SHOTS = 2000  # of a split, evenly spread over it: some 2 s of processor time
_BATCH = 32


class Yardstick(NamedTuple):
    """The slices of the test shots `rows`, and the score of a logistic regression on slices.

    score: None where a class is missing or nothing could be read.
    """

    slices: slices.Slices
    rows: np.ndarray
    score: Optional[measure.Score]


def of_data(data: Data) -> Optional[Yardstick]:
    """The yardstick for open data, trained on the train split; None if the images have no slices."""
    train, test = data.splits["train"], data.splits["test"]
    chosen = [evenly(np.arange(len(split)), MOST_SHOTS) for split in (train, test)]
    found = [_slices(split, rows, data.view) for split, rows in zip((train, test), chosen)]
    if found[0] is None or found[1] is None:
        return None
    features = np.concatenate([of_split.features for of_split in found])
    labels, ids = (
        np.concatenate([getattr(split, name)[rows] for split, rows in zip((train, test), chosen)])
        for name in ("labels", "ids")
    )
    n = len(chosen[0])
    known = np.isfinite(features[:n]).any(axis=1)
    score = None
    if known.any() and len(np.unique(labels[:n])) > 1 and (found[1].status == bunches.FOUND).any():
        every = np.arange(len(labels))
        predicted = baselines.predict(features, labels, data.blocks.apart(ids), every[:n], every[n:])
        score = measure.score(labels[n:], predicted, data.blocks.of_times(ids[n:]))
    return Yardstick(found[1], chosen[1], score)


def section(
    yardstick: Optional[Yardstick], labels: np.ndarray, predicted: np.ndarray, classes: list, view: View
) -> list[Block]:
    """The yardstick in a report. labels, predicted: (n,) of all test shots, the latter by the network."""
    if yardstick is None:
        return [Text("These images have no slices: no camera took them, or they are of too few pixels.")]
    rows = yardstick.rows
    found = slice_blocks(yardstick.slices, labels[rows], dict(enumerate(classes)), view)
    if yardstick.score is None:
        return found
    score, network = yardstick.score, float((labels[rows] == predicted[rows]).mean())
    place = "is below it and has not earned its place" if network < score.accuracy else "is not below it"
    text = (
        f"A logistic regression on mean energy and spread of the slices classifies {score.share} correctly "
        f"(95 % interval by {score.share.by}); the network, with {network:.3f} of them, {place}."
    )
    return [Text(text, "strong"), *found]


def _slices(split: Split, rows: np.ndarray, view: View) -> Optional[slices.Slices]:
    parts = [slices.of_images(images[..., 0], view) for images in split.batches(_BATCH, rows)]
    return slices.joined([part for part in parts if part is not None])
