"""The final scores of a run, split by split: `fit` and `evaluate` print them, summary.json keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, Optional, Protocol, Sequence

import numpy as np
from scipy.special import softmax

from train.data.dataset import Data
from train.data.minibatches import Samples
from train.metrics import calibration, measure
from train.metrics.calibration import Bin, EnergyError, EnergyScore, Threshold
from train.metrics.measure import EnergyBand, Score

if TYPE_CHECKING:
    from train.model.predictor import Outputs


class Predicts(Protocol):
    """What predicts: a `Predictor`, or an object that has other processes predict."""

    def outputs(self, split: Samples, rows: Optional[np.ndarray] = None) -> Outputs:
        """The outputs for the shots `rows` of `split`, or for all."""


@dataclass(frozen=True)
class SplitScore:
    """How well a network does on the shots of one split.

    confusion: counts, a row for each true class, a column for each class called. by_pulse_energy, thresholds,
    half_recognized (mJ): {class: ...}, without the first class and without classes that have no shots.
    without_pulse_energy: number of shots of these classes without a gas-detector record. cross_entropy: mean
    over the shots, nat; it and calibration_error are None for runs trained by versions that did not measure
    them. pulse_energy: None if the network does not tell it.
    """

    score: Score
    confusion: list[list[int]]
    by_pulse_energy: dict[str, list[EnergyBand]]
    without_pulse_energy: int
    cross_entropy: Optional[float]
    calibration_error: Optional[float]
    reliability: list[Bin]
    thresholds: dict[str, list[Threshold]]
    half_recognized: dict[str, float]
    pulse_energy: Optional[EnergyScore]

    def to_json(self) -> dict[str, Any]:
        """The scores for result files."""
        return {
            **self.score.to_json(),
            "confusion": self.confusion,
            "by_pulse_energy": _rows(self.by_pulse_energy, EnergyBand.to_json),
            "without_pulse_energy": self.without_pulse_energy,
            "cross_entropy": self.cross_entropy,
            "calibration_error": self.calibration_error,
            "reliability": [each.to_json() for each in self.reliability],
            "thresholds": _rows(self.thresholds, Threshold._asdict),
            "half_recognized": self.half_recognized,
            **({"pulse_energy": self.pulse_energy._asdict()} if self.pulse_energy else {}),
        }

    @classmethod
    def from_json(cls, of: Mapping[str, Any], classes: Sequence[str]) -> "SplitScore":
        """Read what `to_json` returned, or an earlier version, which had two classes and measured less."""
        half, energy = of.get("half_recognized"), of.get("pulse_energy")
        return cls(
            Score.from_json(of),
            of["confusion"],
            _by_class(of["by_pulse_energy"], EnergyBand.from_json, classes),
            of.get("without_pulse_energy", 0),
            of.get("cross_entropy"),
            of.get("calibration_error"),
            [Bin.from_json(each) for each in of.get("reliability", [])],
            _by_class(of.get("thresholds", []), _threshold, classes),
            half if isinstance(half, dict) else {classes[1]: half} if half else {},
            EnergyScore(**energy) if energy else None,
        )

    def recognized(self) -> Iterator[str]:
        """For each class with pulse energies, a sentence that says from which energy on it is recognized."""
        for name, bands in self.by_pulse_energy.items():
            if name in self.half_recognized:
                yield f"half of the {name} shots are recognized at {self.half_recognized[name]:.4f} mJ"
            else:
                low = min(band.low for band in bands)
                where = f"at every energy, from {low:.4f} mJ on"
                yield f"more than half of the {name} shots are recognized {where}"

    def lines(self, classes: Sequence[str]) -> Iterator[str]:
        """The errors, as lines of text."""
        for label, counts in zip(classes, self.confusion):
            what = ", ".join(f"{n} called {other}" for n, other in zip(counts, classes))
            yield f"{sum(counts)} {label}: {what}"
        yield f"calibration error of the probabilities: {self.calibration_error:.3f}"
        yield from self.recognized()
        if self.pulse_energy:
            of = self.pulse_energy
            within = "" if of.covered is None else f", {of.covered:.2f} within their interval (aim 0.90)"
            yield (
                f"pulse energy: R^2 {of.r2:.3f}, Spearman {of.spearman:.3f}, rms error "
                f"{1000 * of.rms:.1f} uJ{within}"
            )
        for name, bands in self.by_pulse_energy.items():
            for band in bands:
                low, high = band.share.interval
                yield (
                    f"{band.share.n} {band.name} {name} ({band.low:.4f} to {band.high:.4f} mJ): "
                    f"{band.share.value:.2f} [{low:.2f}, {high:.2f}] called {name}"
                )
        if self.by_pulse_energy and self.without_pulse_energy:
            yield f"{self.without_pulse_energy} {' or '.join(classes[1:])} shots have no gas-detector record"


Scores = dict[str, SplitScore]


def of_data(predictor: Predicts, data: Data, error: Optional[EnergyError] = None) -> Scores:
    """The scores of each split of `data`. error: that of the pulse energies, if the network tells them."""
    return {
        name: of_outputs(
            predictor.outputs(split), split, data.classes, data.blocks.of_times(split.ids), error
        )
        for name, split in data.splits.items()
    }


def to_json(scores: Scores) -> dict[str, Any]:
    """The scores for summary.json."""
    return {name: score.to_json() for name, score in scores.items()}


def of_summary(summary: Mapping[str, Any]) -> Scores:
    """The scores in a run's summary.json; raises KeyError, TypeError or ValueError where it is damaged."""
    classes = summary["classes"]
    return {name: SplitScore.from_json(of, classes) for name, of in summary["splits"].items()}


def lines(scores: Scores, classes: Sequence[str]) -> list[str]:
    """The scores as lines of text: the accuracy of every split, and the errors of all but `train`."""
    text = []
    for name, of in scores.items():
        score = of.score
        text.append(f"{name:<10} {score}; Z {score.z:.2f}, p {score.p_value:.2g}: {score.finding}")
    others = [(name, of) for name, of in scores.items() if name != "train"]
    return text + [f"{name:<10} {line}" for name, of in others for line in of.lines(classes)]


def of_outputs(
    outputs: Outputs,
    split: Samples,
    classes: Sequence[str],
    block: Optional[np.ndarray],
    error: Optional[EnergyError] = None,
) -> SplitScore:
    """The scores of one split from a model's outputs; block: (n,) of time, None if shots have no times."""
    logits, labels = outputs.logits, split.labels
    predicted, probabilities = logits.argmax(axis=1), softmax(logits.astype(np.float64), axis=1)
    bins = calibration.reliability(probabilities, labels, block)
    bands, thresholds, half = {}, {}, {}
    for label, name in list(enumerate(classes))[1:]:
        mine = labels == label
        if not mine.any():
            continue
        hit, energy = predicted == label, np.where(mine, split.energy, np.nan)
        of_class = measure.energy_bands(energy, hit, block)
        reached = calibration.half_recognized(energy, hit)
        thresholds[name] = calibration.thresholds(probabilities[:, label], mine)
        bands.update({name: of_class} if of_class else {})
        half.update({} if reached is None else {name: reached})
    told = outputs.energy is not None
    return SplitScore(
        measure.score(labels, predicted, block),
        measure.confusion(labels, predicted, len(classes)).tolist(),
        bands,
        int((~np.isfinite(split.energy[labels > 0])).sum()),
        calibration.cross_entropy(logits, labels),
        calibration.calibration_error(bins),
        bins,
        thresholds,
        half,
        calibration.energy_score(outputs.energy, split.energy, error) if told else None,
    )


def _threshold(of: Mapping[str, Any]) -> Threshold:
    return Threshold(*(of[name] for name in Threshold._fields))


def _rows(by_class: dict[str, list], to_json: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"class": name, **to_json(row)} for name, rows in by_class.items() for row in rows]


def _by_class(
    rows: Sequence[Mapping[str, Any]],
    from_json: Callable[[Mapping[str, Any]], Any],
    classes: Sequence[str],
) -> dict[str, list]:
    found: dict[str, list] = {}
    for row in rows:
        found.setdefault(row["class"] if "class" in row else classes[1], []).append(from_json(row))
    return found
