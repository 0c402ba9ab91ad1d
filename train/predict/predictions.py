"""The predictions for a data set, as columns in memory and as a file, CSV or HDF5 by its name.

    split, label, run, seconds, nanoseconds, fiducial   as in a manifest; label is empty if unknown
    predicted                                           the class with the largest probability
    probability_CLASS                                   one column for each class, together 1
    pulse_energy, pulse_energy_low, pulse_energy_high   mJ, with an interval that holds 90 % of the shots,
                                                        where the network tells it
    flag                                                why the shot is unlike those trained on; empty if not
    simulated                                           true for a shot of no real machine, else false

In HDF5 the columns are datasets (N,); `label` and `predicted` are int8, an index into the root
attribute `classes`, -1 where unknown; `probability` is (N, classes) float64, `pulse_energy` (N, 3).
"""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence, Union

import h5py
import numpy as np

from common.errors import UserError
from common.files.hdf5 import NewFile
from common.manifest import SPLITS
from common.shots import ID_FIELDS
from train.data.dataset import Data

FORMAT, FORMAT_VERSION = "xtcav-lasing predictions", 2
ENERGY_COLUMNS = ["pulse_energy", "pulse_energy_low", "pulse_energy_high"]
HDF5_ENDINGS = (".h5", ".hdf5")
BLOCK = 4096  # shots of which the file's text is in memory


@dataclass
class Predictions:
    """The predictions for n shots, split by split; some 50 bytes a shot.

    split: (n,) uint8, index into SPLITS. ids: (n,) ID_DTYPE. label: (n,) int8, index into `classes`, -1
    where unknown. simulated: (n,) bool, shots of no real machine. probability: (n, classes) float64.
    energy: (n, 3) float32, mJ, estimate and ends of its interval, or None. flag: (n,) uint8, index into
    `reasons`, of which the first is '' for shots like those trained on; or None.
    """

    classes: Sequence[str]
    split: np.ndarray
    ids: np.ndarray
    label: np.ndarray
    simulated: np.ndarray
    probability: np.ndarray
    energy: Optional[np.ndarray]
    flag: Optional[np.ndarray]
    reasons: list[str]

    @classmethod
    def begun(cls, data: Data, energy: bool, flag: bool) -> "Predictions":
        """Columns for the shots of `data`, still without predictions. energy, flag: whether to have those."""
        splits = list(data.splits.values())
        labels = [
            np.full(len(of), -1, "i1") if of.labels is None else of.labels.astype("i1") for of in splits
        ]
        n = sum(map(len, splits))
        return cls(
            data.classes,
            np.repeat(np.array([SPLITS.index(of.name) for of in splits], np.uint8), list(map(len, splits))),
            np.concatenate([of.ids for of in splits]),
            np.concatenate(labels),
            np.concatenate([of.simulated for of in splits]),
            np.empty((n, len(data.classes))),
            np.empty((n, len(ENERGY_COLUMNS)), np.float32) if energy else None,
            np.zeros(n, np.uint8) if flag else None,
            [""],
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> np.ndarray:
        """The class with the largest probability, (n,) int8."""
        return self.probability.argmax(axis=1).astype("i1")

    def set_flags(self, rows: Union[slice, np.ndarray], reasons: Sequence[str]) -> None:
        """Set the reasons for which the shots `rows` are flagged, '' for those that are not."""
        self.reasons += [reason for reason in dict.fromkeys(reasons) if reason not in self.reasons]
        self.flag[rows] = np.fromiter(map(self.reasons.index, reasons), np.uint8, len(reasons))

    def flag_runs(self) -> None:
        """Flag all shots of a run if many of its shots in a split are flagged."""
        from train.model.novelty import with_runs

        for run, split in itertools.product(np.unique(self.ids["run"]), np.unique(self.split)):
            rows = np.flatnonzero((self.ids["run"] == run) & (self.split == split))
            reasons = [self.reasons[code] for code in self.flag[rows]]
            self.set_flags(rows, with_runs(reasons, self.ids["run"][rows]))


def check_name(path: Path) -> None:
    """Raise UserError if `path` has none of the endings that are written."""
    if path.suffix not in (".csv", *HDF5_ENDINGS):
        raise UserError(f"--out {path}: give a name that ends in .csv or .h5")


def write(path: Path, of: Predictions, origin: dict[str, str]) -> None:
    """Write the predictions as CSV or HDF5, by the ending of `path`.

    origin: which model made them from which data, kept as HDF5 attributes; CSV has no place for it.
    """
    if path.suffix == ".csv":
        _write_csv(path, of)
    else:
        _write_hdf5(path, of, origin)


def _write_csv(path: Path, of: Predictions) -> None:
    columns = [f"probability_{name}" for name in of.classes]
    columns += ENERGY_COLUMNS if of.energy is not None else []
    columns += ["flag"] if of.flag is not None else []
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["split", "label", *ID_FIELDS, "predicted", *columns, "simulated"])
        names = np.array([*of.classes, ""], object)  # the last is that of -1
        for rows in _blocks(len(of)):
            writer.writerows(
                zip(
                    np.array(SPLITS, object)[of.split[rows]],
                    names[of.label[rows]],
                    *(of.ids[name][rows].tolist() for name in ID_FIELDS),
                    names[of.probability[rows].argmax(axis=1)],
                    # Nine digits: what a float32 logit is worth.
                    *([f"{value:.9g}" for value in column] for column in of.probability[rows].T.tolist()),
                    *([f"{value:.5f}" for value in column] for column in _columns(of.energy, rows)),
                    *([] if of.flag is None else [np.array(of.reasons, object)[of.flag[rows]]]),
                    np.where(of.simulated[rows], "true", "false").tolist(),
                )
            )


def _write_hdf5(path: Path, of: Predictions, origin: dict[str, str]) -> None:
    with NewFile(path) as file:
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, **origin})
        file.attrs["classes"] = json.dumps(of.classes)
        for name, words, code in (("split", SPLITS, of.split), ("flag", of.reasons, of.flag)):
            if code is not None:
                texts = file.create_dataset(name, (len(of),), h5py.string_dtype())
                for rows in _blocks(len(of)):
                    texts[rows] = np.array(words, object)[code[rows]]
                    file.check()
        columns = {"label": of.label, "predicted": of.predicted, "simulated": of.simulated}
        columns.update({name: of.ids[name] for name in ID_FIELDS}, probability=of.probability)
        for name, column in columns.items():
            file.create_dataset(name, data=column)
        if of.energy is not None:
            file.create_dataset("pulse_energy", data=of.energy, dtype="<f8").attrs["unit"] = "mJ"


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))


def _columns(energy: Optional[np.ndarray], rows: slice) -> list[list[float]]:
    return [] if energy is None else energy[rows].T.astype(np.float64).tolist()
