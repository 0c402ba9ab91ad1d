"""What a source gave against what it was asked for: nothing is lost without a word."""

from __future__ import annotations

from collections import deque
from typing import Deque, Iterable, Iterator, List, Optional, Tuple

import numpy as np

from common.errors import DataError
from prepare.sources import Taken

Key = Tuple[int, ...]

NOT_GIVEN = "psana did not give this shot"
NO_FRAME = "psana gave the shot without a frame"


def reconcile(
    where: str, wanted: Iterable[Tuple[int, Key]], came: Iterable[Tuple[Key, Optional[np.ndarray]]], hint: str
) -> Iterator[Taken]:
    """One Taken for each of `wanted` (index, key), in order, from what `came` (key, frame), in that order.

    Raises DataError, beginning with `where`, when what came ends before the last one wanted, has
    one that was not asked for, or has no frame in any of several shots, for which `hint` is the
    likely reason.
    """
    before: List[Taken] = []  # all without a frame
    none_yet = True
    for taken in _match(where, deque(wanted), came):
        if none_yet and taken.frame is None:
            before.append(taken)
            continue
        if none_yet:
            yield from before
            none_yet = False
        yield taken
    if none_yet:
        if len(before) > 1:
            raise DataError(f"{where}: no frame in any of {len(before)} shots; {hint}")
        yield from before


def _match(
    where: str, wanted: Deque[Tuple[int, Key]], came: Iterable[Tuple[Key, Optional[np.ndarray]]]
) -> Iterator[Taken]:
    asked = len(wanted)
    for key, frame in came:
        while wanted and wanted[0][1] < key:
            yield Taken(wanted.popleft()[0], None, NOT_GIVEN)
        if not wanted or wanted[0][1] != key:
            raise DataError(f"{where}: gave shot {key}, which was not asked for: its filter did not apply")
        yield Taken(wanted.popleft()[0], frame, NO_FRAME if frame is None else "")
    if wanted:
        raise DataError(
            f"{where}: ended after {asked - len(wanted)} of {asked} shots; is a file cut off or still being "
            "copied?"
        )
