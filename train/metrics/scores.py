"""The final scores of a run, for `fit` and `evaluate`."""

from __future__ import annotations

from typing import Any, Optional, Protocol

import numpy as np
from scipy.special import softmax

from train.data.dataset import Data
from train.data.minibatches import Samples
from train.metrics import calibration, measure
from train.metrics.calibration import EnergyError
from train.model.predictor import Outputs


class Predicts(Protocol):
    """What tells the classes of shots: a `Predictor`, or one that has others work for it."""

    def outputs(self, split: Samples, rows: Optional[np.ndarray] = None) -> Outputs:
        """All it says of the shots `rows` of `split`, or of all."""


def of_data(predictor: Predicts, data: Data, error: Optional[EnergyError] = None) -> dict[str, Any]:
    """Per split: n, accuracy, its interval, chance, Z, p-value, confusion, calibration, by pulse energy.

    error: of the pulse energy that the network tells.
    """
    return {
        name: _of_split(predictor.outputs(split), split, data.classes, error)
        for name, split in data.splits.items()
    }


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
        text += _calibration_lines(name, s, classes)
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


def _calibration_lines(name: str, s: dict[str, Any], classes: list[str]) -> list[str]:
    lines = [f"{name:<10} calibration error of the probabilities: {s['calibration_error']:.3f}"]
    if s.get("half_recognized") is not None:
        lines.append(
            f"{name:<10} half of the {classes[1]} shots are recognized at {s['half_recognized']:.4f} mJ"
        )
    if "pulse_energy" in s:
        of = s["pulse_energy"]
        within = "" if of["covered"] is None else f", {of['covered']:.2f} within their interval (aim 0.90)"
        lines.append(
            f"{name:<10} pulse energy: R^2 {of['r2']:.3f}, Spearman {of['spearman']:.3f}, rms error "
            f"{1000 * of['rms']:.1f} uJ{within}"
        )
    return lines


def _of_split(
    outputs: Outputs, split: Samples, classes: list[str], error: Optional[EnergyError]
) -> dict[str, Any]:
    logits = outputs.logits
    predicted, probabilities = logits.argmax(axis=1), softmax(logits.astype(np.float64), axis=1)
    bins = calibration.reliability(probabilities, split.labels)
    score = measure.score(split.labels, predicted)
    bands, unknown, two = [], 0, {}
    if len(classes) == 2:
        lasing = split.labels == 1
        two["thresholds"] = [each._asdict() for each in calibration.thresholds(probabilities[:, 1], lasing)]
        two["half_recognized"] = calibration.half_recognized(split.energy[lasing], predicted[lasing] == 1)
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
        "cross_entropy": calibration.cross_entropy(logits, split.labels),
        "calibration_error": calibration.calibration_error(bins),
        "reliability": [each._asdict() for each in bins],
        **two,
        **_of_energy(outputs.energy, split, error),
    }


def _of_energy(
    estimate: Optional[np.ndarray], split: Samples, error: Optional[EnergyError]
) -> dict[str, Any]:
    found = None if estimate is None else calibration.energy_score(estimate, split.energy, error)
    return {} if found is None else {"pulse_energy": found._asdict()}
