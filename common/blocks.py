"""Blocks of time: shots of one block are alike, shots of different blocks less so.

Splits are drawn by whole blocks, and intervals count blocks rather than shots. Both use the lengths
that the data file's config names, counted from the Unix epoch, so that more data never move a block.
"""

from __future__ import annotations

import json
from typing import Any, Iterable, Mapping, NamedTuple, Optional

import numpy as np

from common.shots import nanoseconds


class Blocks(NamedTuple):
    """How long a block is and how much is left out at the start of each, s."""

    length: float = 30.0
    guard: float = 5.0

    @classmethod
    def of(cls, files: Iterable[Mapping[str, Any]]) -> "Blocks":
        """The blocks of data files with these root attributes; the longest, where files differ.

        Files whose config has no blocks (images that no camera took) have the default lengths.
        """
        found = [_in_config(json.loads(attributes["config"])) for attributes in files]
        return cls(max(of.length for of in found), max(of.guard for of in found))

    def number(self, ids: np.ndarray) -> np.ndarray:
        """The number of the block of each shot, counted from the Unix epoch, (n,) int64."""
        return nanoseconds(ids) // round(self.length * 1e9)

    def in_guard(self, ids: np.ndarray) -> np.ndarray:
        """Which shots lie in the guard gap at the start of their block, (n,) bool."""
        return nanoseconds(ids) % round(self.length * 1e9) < round(self.guard * 1e9)

    def apart(self, ids: np.ndarray) -> np.ndarray:
        """A number from 0 for the block of each shot, (n,) int64; no two runs share a block.

        Images of no run (number 0) were drawn one by one: each is a block.
        """
        number = self.number(ids) + ids["run"].astype(np.int64) * 10**9
        number = np.where(ids["run"] == 0, -1 - np.arange(len(ids)), number)
        return np.unique(number, return_inverse=True)[1]

    def of_times(self, ids: np.ndarray) -> Optional[np.ndarray]:
        """What `apart` gives, or None where no shot has a time, because all are images of no run."""
        return self.apart(ids) if (ids["run"] != 0).any() else None


def _in_config(config: Any) -> Blocks:
    select = config.get("select") if isinstance(config, dict) else None
    blocks = select.get("blocks") if isinstance(select, dict) else None
    if not isinstance(blocks, dict):
        return Blocks()
    return Blocks(float(blocks.get("length", Blocks().length)), float(blocks.get("guard", Blocks().guard)))
