"""Check what psana returned against what was requested, so that no shot disappears silently."""

from __future__ import annotations

from collections import deque
from typing import Deque, Iterable, Iterator, Union

import numpy as np

from common.errors import DataError
from prepare.sources.base import FrameResult

Key = tuple[int, ...]
Received = Union[np.ndarray, str, None]  # a frame, or why there is none

NOT_GIVEN = "psana did not give this shot"
NO_FRAME = "psana gave the shot without a frame"


def reconcile(
    where: str,
    wanted: Iterable[tuple[int, Key]],
    received: Iterable[tuple[Key, Received]],
    hint: str,
) -> Iterator[FrameResult]:
    """One result for each of `wanted` (index, key) from what was `received` (key, frame or reason).

    Both come in the order of their keys.

    Raises DataError, beginning with `where`, when what was received ends before the last one wanted, has
    one that was not asked for, or has no frame in any of several shots, for which `hint` is the
    likely reason.
    """
    before: list[FrameResult] = []  # all without a frame
    none_yet = True
    for result in _match(where, deque(wanted), received):
        if none_yet and result.frame is None:
            before.append(result)
            continue
        if none_yet:
            yield from before
            none_yet = False
        yield result
    if none_yet:
        if len(before) > 1:
            reasons = dict.fromkeys(f": {result.reason}" for result in before if result.reason != NO_FRAME)
            raise DataError(f"{where}: no frame in any of {len(before)} shots{''.join(reasons)}; {hint}")
        yield from before


def _match(
    where: str, wanted: Deque[tuple[int, Key]], received: Iterable[tuple[Key, Received]]
) -> Iterator[FrameResult]:
    asked = len(wanted)
    for key, frame in received:
        while wanted and wanted[0][1] < key:
            yield FrameResult(wanted.popleft()[0], None, NOT_GIVEN)
        if not wanted or wanted[0][1] != key:
            raise DataError(f"{where}: gave shot {key}, which was not asked for: its filter did not apply")
        index = wanted.popleft()[0]
        if frame is None or isinstance(frame, str):
            yield FrameResult(index, None, frame or NO_FRAME)
        else:
            yield FrameResult(index, frame)
    if wanted:
        raise DataError(
            f"{where}: ended after {asked - len(wanted)} of {asked} shots; is a file cut off or still being "
            "copied?"
        )
