"""How far a run's predictions can be trusted: the error of its energies, and the shots it knows.

runs/NAME/summary.json     "calibration": temperature (already in model.keras), error of the energy
runs/NAME/reference.npz    the training shots, as far as the flag needs them (train.model.novelty)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from common.errors import DataError
from common.files import atomic
from common.stats import evenly
from train.data.dataset import Data
from train.data.validation import VALIDATION, Part
from train.metrics.calibration import EnergyError
from train.model.network import with_features
from train.model.novelty import Reference, reference
from train.model.predictor import Predictor
from train.run import folder
from train.run.archive import ZIP_ERRORS, read_arrays

MOST_SHOTS = 4000  # of a split; more tell nothing new


class Trust(NamedTuple):
    """error: of the pulse energy; reference: of the flag. None where the run has none."""

    error: Optional[EnergyError] = None
    reference: Optional[Reference] = None


def learn(model: Any, data: Data) -> Reference:
    """What the flag needs, from the train split and, where there is one, the validation split."""
    predictor = Predictor(with_features(model))
    train = _some(data.splits["train"])
    held_out = data.splits.get(VALIDATION)
    features = predictor.outputs(train).features
    others = features[:0] if held_out is None else predictor.outputs(_some(held_out)).features
    return reference(features, train.labels, others)


def flagged(model: Any, known: Reference, data: Data) -> dict[str, dict[str, int]]:
    """Of each split but train: how many shots were looked at, how many of them are flagged."""
    predictor, found = Predictor(with_features(model)), {}
    for split in (_some(split) for name, split in data.splits.items() if name != "train"):
        beyond = known.distance(predictor.outputs(split).features) > known.limit
        found[split.name] = {"n": len(split), "flagged": int(beyond.sum())}
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
            known = Reference(*(arrays[name].astype(np.float64) for name in Reference._fields))
    except (*ZIP_ERRORS, OSError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error}); train again with --force") from None
    try:
        summary = json.loads((run_dir / folder.SUMMARY).read_text(encoding="utf-8"))
        found = summary.get("calibration", {}).get("pulse_energy")
        return Trust(EnergyError(**{k: float(v) for k, v in found.items()}) if found else None, known)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{run_dir / folder.SUMMARY}: is damaged ({error})") from None


def _some(split: Any) -> Part:
    return Part(split, evenly(np.arange(len(split)), MOST_SHOTS), split.name)
