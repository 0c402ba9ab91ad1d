"""Which shots go into which split: balanced, disjoint, drawn by a keyed hash of the shot's key.

Each shot gets a uniform hash in [0, 1), from its key and the seed, whatever its place in the run. In
each class the test split takes the shots with the lowest hashes, the validation split goes up
from 1/2, and the train split comes down from 1: asking for more of one leaves the others as
they are. Of unlabeled runs, split `predict` takes all or those with the lowest hashes.

A manifest that is there already is the memory of what was drawn: its rows stay, and what is
missing is added, so that a run that has grown changes nothing. What is drawn at a time is in the order
of reading, run by run and in time, behind what was drawn before: a build then reads each run once,
and adds to a data set without changing what it has.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from typing import Callable, Iterable, NamedTuple, Optional, Sequence

import numpy as np

from common.blocks import Blocks
from common.errors import ManifestError
from common.manifest import LABELED, Row
from common.shots import ID_FIELDS, ShotId, shot_id
from prepare.config import BlocksConfig, PrepareConfig, SelectConfig
from prepare.shots import REASONS
from prepare.sources import Source

# The order in which splits are drawn, and where in [0, 1) each starts and in which direction it goes.
_ORDER = ("test", "validation", "train")
_RANK: dict[str, Callable[[float], float]] = {
    "test": lambda value: value,
    "validation": lambda value: (value - 0.5) % 1.0,
    "train": lambda value: 1.0 - value,
    "predict": lambda value: value,
}

# (run, index of the shot) -> mean of the dark-subtracted frame, counts
Intensity = Callable[[int, int], float]


class Candidate(NamedTuple):
    """An eligible shot: its key, its place in its run, its uniform hash, and its block's split, if any."""

    shot: ShotId
    index: int
    hash: float
    split: Optional[str]


class Selection(NamedTuple):
    """rows: the manifest. left_out: {run: {reason: shots}} of all runs but the dark ones."""

    rows: list[Row]
    left_out: dict[int, dict[str, int]]


def select(
    source: Source, config: PrepareConfig, drawn: Sequence[Row] = (), intensity: Optional[Intensity] = None
) -> Selection:
    """Draw the shots that `config.select` asks for, keeping the rows `drawn` before.

    `intensity` is needed if `select.beam.min_mean_intensity` is set; it is asked only for shots that come up
    in the draw. Raises ManifestError when a class has too few eligible shots, and when a row
    drawn before is not eligible any more.
    """
    settings = config.select
    if settings.beam.min_mean_intensity is None:
        intensity = None
    left_out: dict[int, dict[str, int]] = {}
    rows: list[Row] = []
    for label, runs in config.runs.with_runs.items():
        candidates: list[Candidate] = []
        for run in runs:
            of_run, left_out[run] = eligible_in(source, config, run)
            candidates += of_run
        kept = {row.shot: row.split for row in drawn if row.label == label}
        _check_kept(kept, {c.shot for c in candidates}, label)
        draw = _Draw(label, runs, candidates, kept, left_out, settings, intensity)
        for split in _ORDER:
            if split in settings.sizes:
                draw.fill(split, settings.sizes[split] // len(config.runs.with_runs))
        rows += draw.rows
    rows += _unlabeled(source, config, drawn, intensity, left_out)
    unknown = sorted({row.label for row in drawn if row.label} - set(config.runs.with_runs))
    if unknown:
        raise ManifestError(
            f"the manifest has the class '{unknown[0]}', of which the config has no run; --force draws anew"
        )
    before = [row for row in drawn if row.label or config.runs.unlabeled]
    added = sorted(set(rows).difference(before), key=lambda row: row.shot)
    return Selection([*before, *added], left_out)


def has_all(config: PrepareConfig, drawn: Sequence[Row]) -> bool:
    """Whether the rows `drawn` are at least as many of every split and class as `config` asks for."""
    runs, settings = config.runs, config.select
    counts = Counter((row.split, row.label) for row in drawn)
    asked = Counter(
        {
            (split, label): size // len(runs.with_runs)
            for split, size in settings.sizes.items()
            for label in runs.with_runs
        }
    )
    unlabeled = {key: n for key, n in counts.items() if not key[1]}
    if runs.unlabeled and (not unlabeled or settings.predict not in (None, sum(unlabeled.values()))):
        return False
    return bool(drawn) and all(counts[key] >= n for key, n in asked.items())


def eligible_in(source: Source, config: PrepareConfig, run: int) -> tuple[list[Candidate], dict[str, int]]:
    """`eligible` for a run of the config; what is not labeled is not split by blocks of time."""
    settings = config.select
    if run in config.runs.unlabeled:
        settings = settings.model_copy(update={"by": "event"})
    return eligible(source.shots(run), settings)


def eligible(shots: np.ndarray, settings: SelectConfig) -> tuple[list[Candidate], dict[str, int]]:
    """The shots of one run, (n,) SHOT_DTYPE, that may be drawn, and how many may not by reason."""
    left_out: dict[str, int] = {}
    good = np.ones(len(shots), bool)

    def leave_out(mask: np.ndarray, reason: str) -> None:
        count = int((good & mask).sum())
        if count:
            left_out[reason] = count
            good[mask] = False

    for status, reason in REASONS.items():
        leave_out(shots["status"] == status, reason)
    floor = settings.beam.min_charge
    if floor is not None:
        charge = shots["ebeamCharge"]
        leave_out(np.isnan(charge), "no charge record")
        leave_out(~(charge >= floor), f"no beam (charge under {floor:g} nC)")
    splits: Sequence[Optional[str]] = [None] * len(shots)
    if settings.by == "block":
        splits, guard = _block_splits(shots, settings.blocks, settings.seed)
        leave_out(guard, "guard gap between blocks")
    chosen = np.flatnonzero(good)
    keys = [shot_id(row) for row in shots[list(ID_FIELDS)][chosen]]
    candidates = [
        Candidate(key, int(i), uniform_hash(settings.seed, key), splits[i]) for key, i in zip(keys, chosen)
    ]
    return candidates, left_out


def uniform_hash(seed: int, shot: Iterable[int]) -> float:
    """The shot's uniform hash in [0, 1): BLAKE2b of its key, keyed by the seed, as a 53-bit fraction."""
    values = tuple(shot)
    key = str(seed).encode()
    digest = hashlib.blake2b(struct.pack(f"<{len(values)}q", *values), key=key, digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2.0**53


def _unlabeled(
    source: Source,
    config: PrepareConfig,
    drawn: Sequence[Row],
    intensity: Optional[Intensity],
    left_out: dict[int, dict[str, int]],
) -> list[Row]:
    """The rows of split predict: what was drawn before and what `select.predict` asks for besides."""
    candidates: list[Candidate] = []
    for run in config.runs.unlabeled:
        of_run, left_out[run] = eligible_in(source, config, run)
        candidates += of_run
    kept = {row.shot: row.split for row in drawn if not row.label}
    _check_kept(kept, {c.shot for c in candidates}, "")
    draw = _Draw("", config.runs.unlabeled, candidates, kept, left_out, config.select, intensity)
    if config.runs.unlabeled:
        draw.fill("predict", config.select.predict)
    return draw.rows


class _Draw:
    """The draw for one class."""

    def __init__(
        self,
        label: str,
        runs: Sequence[int],
        candidates: Sequence[Candidate],
        kept: dict[ShotId, str],
        left_out: dict[int, dict[str, int]],
        settings: SelectConfig,
        intensity: Optional[Intensity],
    ) -> None:
        self.label, self.runs, self.kept, self.left_out = label, runs, kept, left_out
        self.settings, self.intensity = settings, intensity
        self.free = [c for c in candidates if c.shot not in kept]
        self.eligible = len(candidates)
        self.rows = [Row(split, label, shot) for shot, split in kept.items()]

    def fill(self, split: str, size: Optional[int]) -> None:
        """Bring `split` to `size` rows of this class, or to all there are."""
        have = sum(1 for of in self.kept.values() if of == split)
        if size is not None and have > size:
            raise ManifestError(
                f"select.{split}: the manifest has {have} shots{_of_class(self.label)}, the config asks for "
                f"{size}; ask for at least as many, or draw anew with --force"
            )
        pool = [c for c in self.free if c.split in (None, split)]
        pool.sort(key=lambda c: _RANK[split](c.hash))
        taken: set[ShotId] = set()
        for candidate in pool:
            if have + len(taken) == size:
                break
            if self._has_beam(candidate):
                taken.add(candidate.shot)
        if have + len(taken) < (size or 1):
            raise ManifestError(self._too_few(split, size, have + len(taken)))
        self.rows += [Row(split, self.label, shot) for shot in taken]
        self.free = [c for c in self.free if c.shot not in taken]

    def _has_beam(self, candidate: Candidate) -> bool:
        """Whether the frame is bright enough; those that are not are counted."""
        floor = self.settings.beam.min_mean_intensity
        if self.intensity is None or self.intensity(candidate.shot.run, candidate.index) >= floor:
            return True
        counts = self.left_out[candidate.shot.run]
        reason = f"no beam (mean intensity under {floor:g} counts)"
        counts[reason] = counts.get(reason, 0) + 1
        self.free = [c for c in self.free if c.shot != candidate.shot]
        return False

    def _too_few(self, split: str, size: int, found: int) -> str:
        reasons = sum((Counter(self.left_out[run]) for run in self.runs), Counter())
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"
        blocks = " in its blocks of time" if self.settings.by == "block" and self.label else ""
        return (
            f"select.{split}: {size or 'some'} shots{_of_class(self.label)} are needed, "
            f"{found} are left{blocks}; in run {', '.join(map(str, self.runs))} there are "
            f"{self.eligible} eligible shots for all splits (left out: {why})"
        )


def _check_kept(kept: dict[ShotId, str], there: set[ShotId], label: str) -> None:
    gone = [shot for shot in kept if shot not in there]
    if gone:
        raise ManifestError(
            f"the manifest has {len(gone)} shots{_of_class(label)} that are not eligible in these runs, "
            f"first {gone[0]}; build from the runs it was drawn from, or draw anew with --force"
        )


def _of_class(label: str) -> str:
    return f" of class '{label}'" if label else " without label"


def _block_splits(
    shots: np.ndarray, blocks: BlocksConfig, seed: int
) -> tuple[list[Optional[str]], np.ndarray]:
    """The split of each shot's block of time, and which shots lie in a guard gap.

    Each cycle of consecutive blocks is shuffled by itself, so that more data never move a block
    to another split.
    """
    of_time = Blocks(blocks.length, blocks.guard)
    of_cycle = [split for split in LABELED for _ in range(blocks.cycle.get(split, 0))]
    shuffled: dict[tuple[int, int], list[str]] = {}
    splits: list[Optional[str]] = []
    for run, at in zip(shots["run"].tolist(), of_time.number(shots).tolist()):
        cycle, place = divmod(at, len(of_cycle))
        if (run, cycle) not in shuffled:
            order = sorted(range(len(of_cycle)), key=lambda i: uniform_hash(seed, (run, cycle, i)))
            shuffled[run, cycle] = [of_cycle[i] for i in order]
        splits.append(shuffled[run, cycle][place])
    return splits, of_time.in_guard(shots)


def mean_intensity_of(source: Source, config: PrepareConfig, dark_mean: np.ndarray) -> Intensity:
    """The function that `select` asks for a frame's mean above the dark, in counts."""
    pedestal = float(dark_mean.mean())
    return lambda run, index: float(next(source.good_frames(run, [index])).mean()) - pedestal
