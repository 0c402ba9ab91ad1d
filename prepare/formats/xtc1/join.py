"""Which events of a run's streams are one shot, by psana's rules (PSXtcInput, XtcInput)."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from common.shots import nanoseconds
from prepare.formats.xtc1.format import FIDUCIALS, FIRST_RECORDER_STREAM, JOIN_SECONDS
from prepare.formats.xtc1.walk import LOCATION_DTYPE
from prepare.shots import DUPLICATE, NO_FRAME, SHOT_DTYPE, USABLE, merge_repeats, quality, same_as_before

# What an event of a recorder gives to its shot.
_FROM_RECORDER = ("status", *LOCATION_DTYPE.names)


def join(run: int, events: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The shots of `run` from the events of all its streams, (n,) EVENT_DTYPE.

    Returns the shots in order of time, (n,) SHOT_DTYPE, where their frames are, (n,) LOCATION_DTYPE, and
    warnings, a line each.

    A DAQ event and one of a camera recorder are one shot when their fiducials are equal and
    their seconds differ by less than JOIN_SECONDS (fiducials repeat every 364 s); the DAQ's time
    then is the shot's time, without one that of the first stream. Left out, as by psana: what
    the level-3 trigger trimmed, what holds EPICS values alone, and two events of one time in a
    recorder's stream; and events of a recorder whose shot cannot be told (`sharing`).
    """
    warnings: list[str] = []
    table = events[events["stream"] < FIRST_RECORDER_STREAM]
    recorder = _without_twins(run, events[events["stream"] >= FIRST_RECORDER_STREAM], warnings)
    again, unclear = [], 0
    for stream in np.unique(recorder["stream"]):
        of_stream = by_fiducial(recorder[recorder["stream"] == stream])
        shared = sharing(of_stream)
        table, more, of_shared = attach(table, of_stream[~shared], _FROM_RECORDER)
        again.append(more)
        unclear += int(shared.sum()) + of_shared
    warnings += unclear_line(run, unclear)
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
    return shots, locations[kept], warnings


def attach(
    table: np.ndarray, recorder: np.ndarray, moved: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Give the frames of one recorder's events to the shots in `table`; without a partner they are new ones.

    moved: the columns that an event gives to its shot. Returns the new table, the events with second frames,
    and how many are left out because DAQ events of different times have their fiducial (`sharing`).
    """
    table = by_fiducial(table)
    partner = partners(clock(table), clock(recorder))
    unclear = (partner >= 0) & np.append(sharing(table), False)[partner]
    partner, recorder = partner[~unclear], recorder[~unclear]
    joined = np.flatnonzero(partner >= 0)
    table["empty"][partner[joined]] &= recorder["empty"][joined]
    # Of several events for a shot the earliest counts, of a split one the part with the frame.
    of = recorder[joined]
    joined = joined[np.lexsort([quality(of["status"]), of["nanoseconds"], of["seconds"]])]
    _, first = np.unique(partner[joined], return_index=True)
    best = joined[first]
    best = best[table["status"][partner[best]] != USABLE]  # a frame in an earlier stream comes first
    better = best[(recorder["status"][best] != NO_FRAME) & (recorder["fiducial"][best] < FIDUCIALS)]
    for name in moved:
        table[name][partner[better]] = recorder[name][better]
    second = np.zeros(len(recorder), bool)
    second[joined] = recorder["status"][joined] == USABLE
    second[better] = False
    again = recorder[second]
    again["status"] = DUPLICATE
    return np.concatenate([table, recorder[partner < 0]]), again, int(unclear.sum())


def by_fiducial(events: np.ndarray) -> np.ndarray:
    """`events` sorted by fiducial, then by time."""
    return events[np.lexsort([events["nanoseconds"], events["seconds"], events["fiducial"]])]


def sharing(events: np.ndarray) -> np.ndarray:
    """Which events of the DAQ, or of one recorder, share their fiducial with another of them, (n,) bool.

    events: sorted `by_fiducial`. The other one is of another time, less than JOIN_SECONDS away, so that which
    of them belong to one shot cannot be told.
    """
    far = np.diff(clock(events)) >= JOIN_SECONDS
    group = np.append(0, np.cumsum(far))[: len(events)]
    other_time = np.diff(nanoseconds(events)) != 0
    of = group[1:][other_time & ~far & (events["fiducial"][1:] < FIDUCIALS)]
    return np.isin(group, of)


def unclear_line(run: int, events: int) -> list[str]:
    """The warning of `events` that `attach` left out, if there are any."""
    if not events:
        return []
    return [
        f"run {run}: {events} events of the camera recorder are left out: more than one event has their "
        "fiducial, and which shot they are of cannot be told"
    ]


def _without_twins(run: int, recorder: np.ndarray, warnings: list[str]) -> np.ndarray:
    """Recorders' events less those that share stream and time with another one.

    psana trusts neither of the two, unless the later one is marked as a part of a split event.
    """
    names = ("nanoseconds", "seconds", "stream")
    order = np.lexsort([recorder[name] for name in names])
    suspect = np.zeros(len(recorder), bool)
    later = np.flatnonzero(same_as_before(recorder[order], names) & ~recorder["dropped"][order])
    suspect[order[later]] = suspect[order[later - 1]] = True
    if suspect.any():
        warnings.append(
            f"run {run}: {suspect.sum()} events of the camera recorder share their time with another one "
            "and are left out: which shot they are of cannot be told"
        )
    return recorder[~suspect]


def clock(events: np.ndarray) -> np.ndarray:
    """(fiducial, seconds) as one sortable int64."""
    return (events["fiducial"].astype("i8") << 33) + events["seconds"]


def partners(table: np.ndarray, recorder: np.ndarray) -> np.ndarray:
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
