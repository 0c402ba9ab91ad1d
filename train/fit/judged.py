"""Which shots the rows of the table judge, and how many steps apart rows are: what a row may cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from train.config import TrainConfig
from train.data.minibatches import Part, Samples, sample
from train.data.prepared import Prepared
from train.metrics.effective import interval

# A step takes as long as the prediction of at least so many times its images: 1.9 to 2.6 times, measured. A
# number written here and not measured where a run is, so that the table is the same on every machine.
PASSES = 2.0
FEWEST = 80  # shots of a split: an accuracy of 0.5 is then known to 0.11, one of 0.9 to 0.09


class Plan(NamedTuple):
    """Rows of the table come `every` so many steps and judge `shots` of each split."""

    every: int
    shots: dict[str, int]


def plan(config: TrainConfig, sizes: Mapping[str, int]) -> Plan:
    """The rows of a training on splits of so many shots.

    Where no split has more than `table_shots` all are judged whole. Else rows judge so many of each that they
    cost `table_share` of the steps between them, but at least FEWEST, and at most `table_shots`, which are
    always judged of the split that may stop the training. If these cost more, rows are further apart, by
    a multiple of `table_every`.
    """
    most = config.table_shots
    if most is None or max(sizes.values()) <= most:
        return Plan(config.table_every, dict(sizes))
    stopping = config.stop_when.split if config.stop_when else None
    minibatch = sizes["train"] if config.minibatch == "full" else config.minibatch
    budget = config.table_share * PASSES * minibatch * config.table_every  # shots that a row may cost
    shots, left = {}, budget
    for k, name in enumerate(sorted(sizes, key=lambda name: (name != stopping, sizes[name]))):
        share = most if name == stopping else max(int(left / (len(sizes) - k)), FEWEST)
        shots[name] = min(sizes[name], most, share)
        left -= shots[name]
    shots = {name: shots[name] for name in sizes}
    return Plan(math.ceil(sum(shots.values()) / budget) * config.table_every, shots)


def chosen(split: Samples, shots: int, processes: int) -> Samples:
    """The `shots` of a split that rows judge: always the same, their images in memory if these fit.

    processes: how many of this machine keep as much.
    """
    if shots >= len(split):
        return split
    part = Part(split, sample(split, shots), split.name)
    in_memory = split.kept is not None
    return Prepared(part, lambda images: images, part.image, stream=in_memory, processes=processes)


def line(rows: Plan, judged: Mapping[str, Samples], sizes: Mapping[str, int]) -> str:
    """How rows judge splits of so many shots, for the user; '' where they judge all."""
    words = []
    for name, samples in judged.items():
        n = len(samples)
        if n < sizes[name]:
            low, high = interval(0.9, n, None)
            words.append(f"{n} of {sizes[name]} {name} shots (0.90 is then [{low:.2f}, {high:.2f}] at best)")
    if not words:
        return ""
    return f"rows every {rows.every} steps judge the same {', '.join(words)}; the end judges all"
