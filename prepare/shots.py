"""The table of shots that a source returns for a run: key, status of the frame, machine records."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS, GMD_UNITS, ID_DTYPE, RECORD_DTYPE

# Why a shot has no usable frame; USABLE (0) has one.
USABLE, NO_FRAME, DAMAGED, BAD_FIDUCIAL, DUPLICATE = range(5)
REASONS = {
    NO_FRAME: "no camera frame",
    DAMAGED: "damaged frame",
    BAD_FIDUCIAL: "invalid fiducial",
    DUPLICATE: "second frame of the same shot",
}

# One row per shot: its key, `status` (above), and the records (NaN where there is none).
SHOT_DTYPE = np.dtype([*ID_DTYPE.descr, ("status", "u1"), *RECORD_DTYPE.descr])


# Which of two events of one shot is kept: one with a frame, else one that says that there was a frame.
_QUALITY = np.argsort([USABLE, DAMAGED, NO_FRAME, BAD_FIDUCIAL, DUPLICATE])
_RECORDS = (tuple(EBEAM_UNITS), tuple(GAS_DETECTOR_UNITS), tuple(GMD_UNITS))


def quality(status: np.ndarray) -> np.ndarray:
    """The rank of each status among events of one shot, 0 the best."""
    return _QUALITY[status]


def same_as_before(rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(n,) bool: whether a row equals the one before it in the fields `names`."""
    same = np.ones(len(rows), bool)
    same[:1] = False
    for name in names:
        same[1:] &= rows[name][1:] == rows[name][:-1]
    return same


def merge_repeats(shots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One row for each shot, of rows that are sorted by key: the rows kept, and their indices in `shots`.

    The DAQ splits an event whose parts come late into several of one key: the one with the
    camera's frame is kept, with the records of whichever has them. A second frame of a shot is
    kept, too, as DUPLICATE.
    """
    group = np.cumsum(~same_as_before(shots, ("seconds", "nanoseconds", "fiducial"))) - 1
    order = np.lexsort([quality(shots["status"]), group])  # stable: the first of a group is its best
    first = np.ones(len(shots), bool)
    first[1:] = group[order][1:] != group[order][:-1]
    best, others = order[first], order[~first]
    merged = shots[best]
    for i in others:  # few
        for fields in _RECORDS:
            if all(np.isnan(merged[name][group[i]]) for name in fields):
                for name in fields:
                    merged[name][group[i]] = shots[name][i]
    others = others[np.isin(shots["status"][others], (USABLE, DUPLICATE))]
    again = shots[others]
    again["status"] = DUPLICATE
    kept = np.concatenate([best, others])
    place = np.argsort(group[kept], kind="stable")
    return np.concatenate([merged, again])[place], kept[place]
