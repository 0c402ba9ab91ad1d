"""How far a run's predictions can be trusted: the error of its energies, and the shots it knows.

runs/NAME/summary.json     "calibration": temperature (already in model.keras), error of the energy
runs/NAME/reference.npz    the training shots, as far as the flag needs them (train.model.novelty)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

import numpy as np

from common.errors import DataError
from common.files import atomic
from common.stats import evenly
from train.data.dataset import Data
from train.data.minibatches import Samples
from train.data.validation import VALIDATION
from train.metrics.calibration import EnergyError
from train.metrics.scores import Predicts
from train.model.novelty import Reference, one_for_each_class, reference, with_runs
from train.run import folder
from train.run.archive import ZIP_ERRORS, read_arrays

if TYPE_CHECKING:
    from train.model.predictor import Outputs

MOST_SHOTS = 4000  # of a split; more tell nothing new


class Trust(NamedTuple):
    """error: of the pulse energy; reference: of the flag. None where the run has none."""

    error: Optional[EnergyError] = None
    reference: Optional[Reference] = None


def learn(predictor: Predicts, data: Data) -> Reference:
    """What the flag needs, from the train split and, where there is one, the validation split.

    predictor: of a model `with_features`.
    """
    train, held_out = data.splits["train"], data.splits.get(VALIDATION)
    of_train, labels = predictor.outputs(train, _rows(train)), train.labels[_rows(train)]
    others = None if held_out is None else predictor.outputs(held_out, _rows(held_out))
    features = of_train.features[:0] if others is None else others.features
    others_labels = labels[:0] if others is None else held_out.labels[_rows(held_out)]
    no_lasing = None
    if of_train.energy is not None:
        no_lasing = of_train.energy[labels == 0]
        if others is not None:
            no_lasing = np.concatenate([no_lasing, others.energy[others_labels == 0]])
    return reference(of_train.features, labels, features, others_labels, no_lasing)


def flags(known: Reference, outputs: Outputs, run: np.ndarray) -> np.ndarray:
    """Which of the shots are flagged, by themselves or with their `run`, (n,) bool.

    outputs: of a model `with_features`.
    """
    features, predicted = outputs.features.astype(np.float64), outputs.logits.argmax(axis=1)
    reasons = with_runs(known.reasons(features, predicted, outputs.energy), run)
    return np.array([bool(reason) for reason in reasons], bool)


def flagged(predictor: Predicts, known: Reference, data: Data) -> dict[str, dict[str, int]]:
    """Of each split but train: how many shots were looked at, how many of them are flagged."""
    found = {}
    for name, split in data.splits.items():
        if name != "train":
            rows = _rows(split)
            beyond = flags(known, predictor.outputs(split, rows), split.ids["run"][rows])
            found[name] = {"n": len(beyond), "flagged": int(beyond.sum())}
    return found


def lines(flags: dict[str, dict[str, int]]) -> list[str]:
    """`flagged` as lines of text."""
    return [
        f"{name:<10} {of['flagged']} of {of['n']} shots are flagged as unlike those trained on"
        for name, of in flags.items()
    ]


def save(run_dir: Path, known: Reference) -> None:
    """Write the reference of a run."""
    with atomic.replacing(run_dir / folder.REFERENCE) as partial, open(partial, "wb") as file:
        np.savez(file, **{name: np.ascontiguousarray(array) for name, array in known._asdict().items()})


def load(run_dir: Path) -> Trust:
    """What is kept of a finished run; raises DataError for damaged files."""
    path = run_dir / folder.REFERENCE
    known = None
    try:
        if path.exists():
            arrays = read_arrays(path)
            names = [name for name in Reference._fields if name in arrays or name != "energy_limit"]
            known = one_for_each_class(Reference(**{name: arrays[name].astype(np.float64) for name in names}))
    except (*ZIP_ERRORS, OSError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error}); train again with --force") from None
    try:
        summary = json.loads((run_dir / folder.SUMMARY).read_text(encoding="utf-8"))
        found = summary.get("calibration", {}).get("pulse_energy")
        return Trust(EnergyError(**{k: float(v) for k, v in found.items()}) if found else None, known)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{run_dir / folder.SUMMARY}: is damaged ({error})") from None


def _rows(split: Samples) -> np.ndarray:
    return evenly(np.arange(len(split)), MOST_SHOTS)
