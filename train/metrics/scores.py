"""The final scores of a run, for `fit` and `evaluate`."""

from __future__ import annotations

from typing import Any, Iterator, Optional, Protocol

import numpy as np
from scipy.special import softmax

from train.data.dataset import Data
from train.data.minibatches import Samples
from train.metrics import calibration, measure
from train.metrics.calibration import EnergyError
from train.metrics.measure import Score
from train.model.predictor import Outputs


class Predicts(Protocol):
    """What tells the classes of shots: a `Predictor`, or one that has others work for it."""

    def outputs(self, split: Samples, rows: Optional[np.ndarray] = None) -> Outputs:
        """All it says of the shots `rows` of `split`, or of all."""


def of_data(predictor: Predicts, data: Data, error: Optional[EnergyError] = None) -> dict[str, Any]:
    """Per split: accuracy with its interval, chance, Z, p-value, confusion, calibration, by pulse energy.

    error: of the pulse energy that the network tells.
    """
    return {
        name: of_outputs(
            predictor.outputs(split),
            split,
            data.classes,
            data.blocks.of_times(split.ids),
            error,
        )
        for name, split in data.splits.items()
    }


def lines(of_splits: dict[str, Any], classes: list[str]) -> list[str]:
    """What `of_data` returns, as lines of text."""
    text = []
    for name, s in of_splits.items():
        score = Score.from_json(s)
        text.append(f"{name:<10} {score}; Z {score.z:.2f}, p {score.p_value:.2g}: {score.finding}")
    for name, s in of_splits.items():
        if name != "train":
            text += [f"{name:<10} {line}" for line in _lines_of_split(s, classes)]
    return text


def _lines_of_split(s: dict[str, Any], classes: list[str]) -> Iterator[str]:
    for label, counts in zip(classes, s["confusion"]):
        what = ", ".join(f"{n} called {other}" for n, other in zip(counts, classes))
        yield f"{sum(counts)} {label}: {what}"
    yield f"calibration error of the probabilities: {s['calibration_error']:.3f}"
    yield from measure.recognized(s)
    if "pulse_energy" in s:
        of = s["pulse_energy"]
        within = "" if of["covered"] is None else f", {of['covered']:.2f} within their interval (aim 0.90)"
        yield (
            f"pulse energy: R^2 {of['r2']:.3f}, Spearman {of['spearman']:.3f}, rms error "
            f"{1000 * of['rms']:.1f} uJ{within}"
        )
    for band in s["by_pulse_energy"]:
        name, (low, high) = band["class"], band["interval"]
        yield (
            f"{band['n']} {band['name']} {name} ({band['low']:.4f} to {band['high']:.4f} mJ): "
            f"{band['found'] / band['n']:.2f} [{low:.2f}, {high:.2f}] called {name}"
        )
    if s["by_pulse_energy"] and s["without_pulse_energy"]:
        yield f"{s['without_pulse_energy']} {' or '.join(classes[1:])} shots have no gas-detector record"


def of_outputs(
    outputs: Outputs,
    split: Samples,
    classes: list[str],
    block: Optional[np.ndarray],
    error: Optional[EnergyError] = None,
) -> dict[str, Any]:
    """The scores of one split from what a model says of it; block: (n,) of time, None without times.

    What is told of a class's pulse energy and thresholds is told of every class but the first.
    """
    logits, labels = outputs.logits, split.labels
    predicted, probabilities = logits.argmax(axis=1), softmax(logits.astype(np.float64), axis=1)
    bins = calibration.reliability(probabilities, labels, block)
    found: dict[str, Any] = {
        **measure.score(labels, predicted, block).to_json(),
        "confusion": measure.confusion(labels, predicted, len(classes)).tolist(),
        "by_pulse_energy": [],
        "without_pulse_energy": int((~np.isfinite(split.energy[labels > 0])).sum()),
        "cross_entropy": calibration.cross_entropy(logits, labels),
        "calibration_error": calibration.calibration_error(bins),
        "reliability": [each.to_json() for each in bins],
        "thresholds": [],
        "half_recognized": {},
        **_of_energy(outputs.energy, split, error),
    }
    for label, name in list(enumerate(classes))[1:]:
        _add_class(found, label, name, predicted, probabilities, split, block)
    return found


def _add_class(
    found: dict[str, Any],
    label: int,
    name: str,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    split: Samples,
    block: Optional[np.ndarray],
) -> None:
    """Add bands of pulse energy, thresholds, and the energy at which half is recognized, of one class."""
    mine = split.labels == label
    if not mine.any():
        return
    hit, energy = predicted[mine] == label, split.energy[mine]
    bands = measure.energy_bands(energy, hit, None if block is None else block[mine])
    found["by_pulse_energy"] += [{"class": name, **band.to_json()} for band in bands]
    rows = calibration.thresholds(probabilities[:, label], mine)
    found["thresholds"] += [{"class": name, **row._asdict()} for row in rows]
    half = calibration.half_recognized(energy, hit)
    if half is not None:
        found["half_recognized"][name] = half


def _of_energy(
    estimate: Optional[np.ndarray], split: Samples, error: Optional[EnergyError]
) -> dict[str, Any]:
    found = None if estimate is None else calibration.energy_score(estimate, split.energy, error)
    return {} if found is None else {"pulse_energy": found._asdict()}
