"""The final scores of a run, for `fit` and `evaluate`."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from common.ranks import Ranks
from train.data.dataset import Data
from train.data.minibatches import Samples, Split
from train.metrics import measure
from train.model.predictor import Predictor


def of_data(predictor: Predictor, data: Data, ranks: Optional[Ranks] = None) -> dict[str, Any]:
    """Per split: n, accuracy, its interval, chance, Z, p-value, confusion, and by pulse energy.

    `ranks` predict a share each, and all get all.
    """
    return {
        name: _of_split(predict(predictor, split, ranks or Ranks()), split, data.classes)
        for name, split in data.splits.items()
    }


def predict(
    predictor: Predictor, split: Samples, ranks: Ranks, rows: Optional[np.ndarray] = None
) -> np.ndarray:
    """Logits of the shots `rows` of `split`, or of all, (n, classes) float32, each rank making a share."""
    if ranks.size == 1:
        return predictor.predict(split, rows)
    rows = np.arange(len(split)) if rows is None else rows
    return ranks.gather(predictor.predict(split, rows[ranks.share(len(rows))]))


def lines(of_splits: dict[str, Any], classes: list[str]) -> list[str]:
    """What `of_data` returns, as lines of text."""
    text = []
    for name, s in of_splits.items():
        score = measure.Score(s["n"], s["correct"], s["chance"])
        text.append(f"{name:<10} {score}; Z {score.z:.2f}, p {score.p_value:.2g}")
    for name, s in of_splits.items():
        if name == "train":
            continue
        for label, counts in zip(classes, s["confusion"]):
            what = ", ".join(f"{n} called {other}" for n, other in zip(counts, classes))
            text.append(f"{name:<10} {sum(counts)} {label}: {what}")
        for band in s["by_pulse_energy"]:
            low, high = measure.wilson(band["found"], band["n"])
            share = band["found"] / band["n"]
            text.append(
                f"{name:<10} {band['n']} {band['name']} {classes[1]} ({band['low']:.4f} to "
                f"{band['high']:.4f} mJ): {share:.2f} [{low:.2f}, {high:.2f}] called {classes[1]}"
            )
        if s["by_pulse_energy"] and s["without_pulse_energy"]:
            text.append(
                f"{name:<10} {s['without_pulse_energy']} {classes[1]} shots have no gas-detector record"
            )
    return text


def _of_split(logits: np.ndarray, split: Split, classes: list[str]) -> dict[str, Any]:
    predicted = logits.argmax(axis=1)
    score = measure.score(split.labels, predicted)
    bands, unknown = [], 0
    if len(classes) == 2:
        bands, unknown = measure.energy_bands(split.energy, split.labels, predicted, lasing=1)
    return {
        "n": score.n,
        "correct": score.correct,
        "accuracy": score.accuracy,
        "interval": score.interval,
        "chance": score.chance,
        "z": score.z,
        "p_value": score.p_value,
        "confusion": measure.confusion(split.labels, predicted, len(classes)).tolist(),
        "by_pulse_energy": [band._asdict() for band in bands],
        "without_pulse_energy": unknown,
    }
