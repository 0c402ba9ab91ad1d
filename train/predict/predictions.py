"""The file of predictions: a row for each shot, as CSV or as HDF5 by the name's ending.

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

import contextlib
import csv
import json
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Protocol

import h5py
import numpy as np

from common.errors import UserError
from common.files import atomic
from common.files.hdf5 import NewFile
from common.shots import ID_DTYPE, ID_FIELDS

FORMAT, FORMAT_VERSION = "xtcav-lasing predictions", 2
ENERGY_COLUMNS = ["pulse_energy", "pulse_energy_low", "pulse_energy_high"]
HDF5_ENDINGS = (".h5", ".hdf5")


class Part(NamedTuple):
    """Shots of one split. ids: (n,) ID_DTYPE; labels: (n,) or None; probability: (n, classes) float64.

    simulated: (n,) bool, those of no real machine.
    energy: (n, 3) float64, mJ, estimate and ends of its interval, or None. flags: n reasons, '' for
    shots like those trained on, or None.
    """

    split: str
    ids: np.ndarray
    labels: Optional[np.ndarray]
    probability: np.ndarray
    simulated: np.ndarray
    energy: Optional[np.ndarray] = None
    flags: Optional[list[str]] = None

    @property
    def predicted(self) -> np.ndarray:
        """The class with the largest probability, (n,) int64."""
        return self.probability.argmax(axis=1)


class Writer(Protocol):
    """Takes the parts in order."""

    def write(self, part: Part) -> None: ...


def check_name(path: Path) -> None:
    """Raise UserError if `path` has none of the endings that are written."""
    if path.suffix not in (".csv", *HDF5_ENDINGS):
        raise UserError(f"--out {path}: give a name that ends in .csv or .h5")


@contextlib.contextmanager
def writing(
    path: Path, classes: list[str], n: int, origin: dict[str, str], energy: bool = False, flags: bool = False
) -> Iterator[Writer]:
    """A writer of `n` shots to `path`, which appears when all are written.

    energy, flags: whether the parts have them.
    origin: what made the predictions from what, kept as HDF5 attributes; CSV has no place for it.
    """
    with atomic.replacing(path) as partial:
        if path.suffix in HDF5_ENDINGS:
            with NewFile(partial) as file:
                yield _Hdf5(file, classes, n, origin, energy, flags)
        else:
            with open(partial, "w", encoding="utf-8", newline="") as file:
                yield _Csv(file, classes, energy, flags)


class _Csv:
    def __init__(self, file, classes: list[str], energy: bool, flags: bool) -> None:
        self._classes = classes
        self._writer = csv.writer(file, lineterminator="\n")
        columns = [f"probability_{name}" for name in classes]
        columns += ENERGY_COLUMNS if energy else []
        columns += ["flag"] if flags else []
        columns += ["simulated"]
        self._writer.writerow(["split", "label", *ID_FIELDS, "predicted", *columns])

    def write(self, part: Part) -> None:
        names = self._classes
        labels = [""] * len(part.ids) if part.labels is None else [names[label] for label in part.labels]
        for n, (shot, label, predicted) in enumerate(zip(part.ids, labels, part.predicted)):
            # Nine digits: what a float32 logit is worth.
            values = [f"{value:.9g}" for value in part.probability[n]]
            values += [] if part.energy is None else [f"{value:.5f}" for value in part.energy[n]]
            values += [] if part.flags is None else [part.flags[n]]
            values += ["true" if part.simulated[n] else "false"]
            self._writer.writerow([part.split, label, *shot.tolist(), names[predicted], *values])


class _Hdf5:
    def __init__(
        self, file: NewFile, classes: list[str], n: int, origin: dict[str, str], energy: bool, flags: bool
    ) -> None:
        self._file, self._done = file, 0
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, **origin})
        file.attrs["classes"] = json.dumps(classes)
        file.create_dataset("split", (n,), h5py.string_dtype())
        for name in ("label", "predicted"):
            file.create_dataset(name, (n,), "i1", fillvalue=-1)
        file.create_dataset("simulated", (n,), bool)
        for name in ID_FIELDS:
            file.create_dataset(name, (n,), ID_DTYPE[name])
        file.create_dataset("probability", (n, len(classes)), "<f8")
        if energy:
            file.create_dataset("pulse_energy", (n, len(ENERGY_COLUMNS)), "<f8").attrs["unit"] = "mJ"
        if flags:
            file.create_dataset("flag", (n,), h5py.string_dtype())

    def write(self, part: Part) -> None:
        file, rows = self._file, np.s_[self._done : self._done + len(part.ids)]
        file["split"][rows] = part.split
        if part.labels is not None:
            file["label"][rows] = part.labels
        file["predicted"][rows] = part.predicted
        for name in ID_FIELDS:
            file[name][rows] = part.ids[name]
        file["probability"][rows] = part.probability
        file["simulated"][rows] = part.simulated
        if part.energy is not None:
            file["pulse_energy"][rows] = part.energy
        if part.flags is not None:
            file["flag"][rows] = part.flags
        file.check()
        self._done += len(part.ids)
