"""The rows of a manifest that a data file is of: those that it holds, and those that it was asked for."""

from __future__ import annotations

import h5py
import numpy as np

from common.dataset import reading
from common.dataset.layout import present
from common.manifest import LABELED, ROW_DTYPE, SPLITS, Rows


def held(file: h5py.File) -> Rows:
    """The rows that `file` has images of, split by split; its labels are known to be good."""
    classes = reading.classes(file)
    parts = []
    for split in present(file):
        labels = file[split]["labels"][...] if split in LABELED else len(classes)
        parts.append(Rows.made(split, [*classes, ""], labels, file[split]))
    return Rows.joined(parts)


def asked(file: h5py.File) -> Rows:
    """The same with the missing shots, each in its place among the rows of its split."""
    rows, missing, tables = held(file), reading.missing(file), []
    for number, split in enumerate(SPLITS):
        table, gone = rows.table[rows.of_split(split)], [one for one in missing if one.split == split]
        places = np.clip([one.row - n for n, one in enumerate(gone)], 0, len(table)).astype(int)
        none = len(rows.labels) - 1
        added = [(number, one.label if 0 <= one.label < none else none, *one.shot) for one in gone]
        tables.append(np.insert(table, places, np.array(added, ROW_DTYPE)))
    return Rows(np.concatenate(tables), rows.labels)
