"""Which events of a run's streams are one shot, by psana's rules (PSXtcInput, XtcInput)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from prepare.formats.xtc1.format import FIDUCIALS, FIRST_RECORDER_STREAM, JOIN_SECONDS
from prepare.formats.xtc1.walk import LOCATION_DTYPE
from prepare.shots import DUPLICATE, NO_FRAME, SHOT_DTYPE, USABLE, merge_repeats, quality


class Joined(NamedTuple):
    """shots (n,) SHOT_DTYPE in order of time, locations (n,) LOCATION_DTYPE, and warnings."""

    shots: np.ndarray
    locations: np.ndarray
    warnings: list[str]


def join(run: int, events: np.ndarray) -> Joined:
    """The shots of `run` from the events of all its streams, (n,) EVENT_DTYPE.

    A DAQ event and one of a camera recorder are one shot when their fiducials are equal and
    their seconds differ by less than JOIN_SECONDS (fiducials repeat every 364 s); the DAQ's time
    then is the shot's time, without one that of the first stream. Left out, as by psana: what
    the level-3 trigger trimmed, what holds EPICS values alone, and two events of one time in a
    recorder's stream.
    """
    warnings: list[str] = []
    table = events[events["stream"] < FIRST_RECORDER_STREAM]
    recorder = _without_twins(run, events[events["stream"] >= FIRST_RECORDER_STREAM], warnings)
    again = []
    for stream in np.unique(recorder["stream"]):
        table, more = _attach(table, recorder[recorder["stream"] == stream])
        again.append(more)
    trimmed = table["trimmed"] & (table["stream"] < FIRST_RECORDER_STREAM)
    if trimmed.any():
        warnings.append(f"run {run}: {trimmed.sum()} events that the level-3 trigger trimmed are left out")
    empty = table["empty"] & ~table["incomplete"] & ~trimmed
    if empty.any():
        warnings.append(f"run {run}: {empty.sum()} events without any data but EPICS are left out")
    table = np.concatenate([table[~trimmed & ~empty], *again])
    table = table[np.lexsort([table["fiducial"], table["nanoseconds"], table["seconds"]])]
    shots = np.zeros(len(table), SHOT_DTYPE)
    for name in SHOT_DTYPE.names:
        shots[name] = run if name == "run" else table[name]
    shots, kept = merge_repeats(shots)
    locations = np.zeros(len(table), LOCATION_DTYPE)
    for name in LOCATION_DTYPE.names:
        locations[name] = table[name]
    return Joined(shots, locations[kept], warnings)


def _attach(table: np.ndarray, recorder: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`table` with the frames of one recorder's events, those without a partner added; second frames."""
    table = table[np.argsort(_clock(table), kind="stable")]
    partner = _partners(_clock(table), _clock(recorder))
    joined = np.flatnonzero(partner >= 0)
    table["empty"][partner[joined]] &= recorder["empty"][joined]
    # Of several events for a shot the earliest counts, of a split one the part with the frame.
    of = recorder[joined]
    joined = joined[np.lexsort([quality(of["status"]), of["nanoseconds"], of["seconds"]])]
    _, first = np.unique(partner[joined], return_index=True)
    best = joined[first]
    best = best[table["status"][partner[best]] != USABLE]  # a frame in an earlier stream comes first
    better = best[(recorder["status"][best] != NO_FRAME) & (recorder["fiducial"][best] < FIDUCIALS)]
    for name in ("status", *LOCATION_DTYPE.names):
        table[name][partner[better]] = recorder[name][better]
    second = np.zeros(len(recorder), bool)
    second[joined] = recorder["status"][joined] == USABLE
    second[better] = False
    again = recorder[second]
    again["status"] = DUPLICATE
    return np.concatenate([table, recorder[partner < 0]]), again


def _without_twins(run: int, recorder: np.ndarray, warnings: list[str]) -> np.ndarray:
    """Recorders' events less those that share stream and time with another one.

    psana trusts neither of the two, unless the later one is marked as a part of a split event.
    """
    columns = [recorder[name] for name in ("nanoseconds", "seconds", "stream")]
    order = np.lexsort(columns)
    again = np.ones(len(recorder), bool)
    again[:1] = False
    for column in columns:
        again[1:] &= column[order][1:] == column[order][:-1]
    suspect = np.zeros(len(recorder), bool)
    later = np.flatnonzero(again & ~recorder["dropped"][order])
    suspect[order[later]] = suspect[order[later - 1]] = True
    if suspect.any():
        warnings.append(
            f"run {run}: {suspect.sum()} events of the camera recorder share their time with another one "
            "and are left out: which shot they are of cannot be told"
        )
    return recorder[~suspect]


def _clock(events: np.ndarray) -> np.ndarray:
    """(fiducial, seconds) as one sortable int64."""
    return (events["fiducial"].astype("i8") << 33) + events["seconds"]


def _partners(table: np.ndarray, recorder: np.ndarray) -> np.ndarray:
    """For each recorder clock the index of the nearest matching clock of `table` (sorted), or -1."""
    partner = np.full(len(recorder), -1)
    best = np.full(len(recorder), JOIN_SECONDS, "i8")
    right = np.searchsorted(table, recorder)
    for candidate in (right - 1, right):
        inside = (candidate >= 0) & (candidate < len(table))
        distance = np.full(len(recorder), JOIN_SECONDS, "i8")
        distance[inside] = np.abs(table[candidate[inside]] - recorder[inside])
        nearer = distance < best  # another fiducial is at least 2**33 - 2**32 away
        partner[nearer], best[nearer] = candidate[nearer], distance[nearer]
    return partner
