"""What a source says of each shot of a run: its key, whether its frame can be used, its records."""

from __future__ import annotations

import numpy as np

from common.shots import ID_DTYPE, RECORD_DTYPE

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


def mark_repeats(shots: np.ndarray) -> None:
    """Of shots with the same key only the first stays usable (sorted by time, so neighbors)."""
    same = np.ones(max(len(shots) - 1, 0), bool)
    for name in ("seconds", "nanoseconds", "fiducial"):
        same &= shots[name][1:] == shots[name][:-1]
    again = np.flatnonzero(same) + 1
    shots["status"][again[shots["status"][again] == USABLE]] = DUPLICATE
