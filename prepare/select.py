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
from common.manifest import LABELED, Row, Rows
from common.shots import ID_DTYPE, ID_FIELDS, places_of
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

_HASHED = 50_000  # shots at a time: 10 MB

# (run, index of the shot) -> mean of the dark-subtracted frame, counts
Intensity = Callable[[int, int], float]


# An eligible shot: its key, its place in its run, its uniform hash, and its block's split, -1 for any, by its
# place in LABELED. 33 bytes: runs have many more shots than are drawn.
CANDIDATE_DTYPE = np.dtype([*ID_DTYPE.descr, ("index", "<i8"), ("hash", "<f8"), ("split", "i1")])


class Selection(NamedTuple):
    """rows: the manifest. left_out: {run: {reason: shots}} of all runs but the dark ones."""

    rows: Rows
    left_out: dict[int, dict[str, int]]


def select(
    source: Source, config: PrepareConfig, drawn: Sequence[Row] = (), intensity: Optional[Intensity] = None
) -> Selection:
    """Draw the shots that `config.select` asks for, keeping the rows `drawn` before.

    `intensity` is needed if `select.beam.min_mean_intensity` is set; it is asked only for shots that come up
    in the draw. Raises ManifestError when a class has too few eligible shots, and when a row
    drawn before is not eligible any more.
    """
    drawn, settings = Rows.of(drawn), config.select
    if settings.beam.min_mean_intensity is None:
        intensity = None
    left_out: dict[int, dict[str, int]] = {}
    added: list[Rows] = []
    classes = config.runs.with_runs
    of_class = {split: settings.sizes[split] // len(classes) for split in _ORDER if split in settings.sizes}
    for label, runs in {**classes, "": config.runs.unlabeled}.items():
        draw = _Draw(source, config, label, runs, drawn[drawn.of_label(label)], left_out, intensity)
        sizes = of_class if label else {"predict": settings.predict}
        added += [draw.fill(split, size) for split, size in sizes.items() if runs]
    new = Rows.joined(added)
    unknown = sorted({label for of_split in drawn.counts().values() for label in of_split} - {"", *classes})
    if unknown:
        raise ManifestError(
            f"the manifest has the class '{unknown[0]}', of which the config has no run; --force draws anew"
        )
    return Selection(Rows.joined([drawn, new[new.reading_order()]]), left_out)


def has_all(config: PrepareConfig, drawn: Sequence[Row]) -> bool:
    """Whether the rows `drawn` are at least as many of every split and class as `config` asks for."""
    runs, settings = config.runs, config.select
    counts = Rows.of(drawn).counts()
    unlabeled = sum(counts.get("predict", {}).values())
    if runs.unlabeled and (not unlabeled or settings.predict not in (None, unlabeled)):
        return False
    return bool(counts) and all(
        counts.get(split, {}).get(label, 0) >= size // len(runs.with_runs)
        for split, size in settings.sizes.items()
        for label in runs.with_runs
    )


def eligible_in(source: Source, config: PrepareConfig, run: int) -> tuple[np.ndarray, dict[str, int]]:
    """`eligible` for a run of the config; what is not labeled is not split by blocks of time."""
    return eligible(source.shots(run), _settings_of(config, run))


def left_out_in(source: Source, config: PrepareConfig, run: int) -> dict[str, int]:
    """{reason: shots} that `eligible_in` leaves out of a run of the config."""
    return _leave_out(source.shots(run), _settings_of(config, run))[2]


def eligible(shots: np.ndarray, settings: SelectConfig) -> tuple[np.ndarray, dict[str, int]]:
    """The shots of one run, (n,) SHOT_DTYPE, that may be drawn, (m,) CANDIDATE_DTYPE, and how many may not
    by reason."""
    good, splits, left_out = _leave_out(shots, settings)
    chosen = np.flatnonzero(good)
    candidates = np.empty(len(chosen), CANDIDATE_DTYPE)
    for name in ID_FIELDS:
        candidates[name] = shots[name][chosen]
    candidates["index"], candidates["split"] = chosen, splits[chosen]
    candidates["hash"] = uniform_hashes(settings.seed, candidates)
    return candidates, left_out


def _settings_of(config: PrepareConfig, run: int) -> SelectConfig:
    unlabeled = run in config.runs.unlabeled
    return config.select.model_copy(update={"by": "event"}) if unlabeled else config.select


def _leave_out(shots: np.ndarray, settings: SelectConfig) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Which shots may be drawn, (n,) bool; the split of each one's block, (n,) int8; what is left out."""
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
    splits = np.full(len(shots), -1, np.int8)
    if settings.by == "block":
        splits, guard = _block_splits(shots, settings.blocks, settings.seed)
        leave_out(guard, "guard gap between blocks")
    return good, splits, left_out


def uniform_hash(seed: int, shot: Iterable[int]) -> float:
    """The shot's uniform hash in [0, 1): BLAKE2b of its key, keyed by the seed, as a 53-bit fraction."""
    values = tuple(shot)
    return float(_fractions(seed, [struct.pack(f"<{len(values)}q", *values)])[0])


def uniform_hashes(seed: int, shots: np.ndarray) -> np.ndarray:
    """`uniform_hash` of every shot, (n,) float64; shots: (n,) with the fields of ID_DTYPE."""
    hashes = np.empty(len(shots))
    for first in range(0, len(shots), _HASHED):
        part = shots[first : first + _HASHED]
        keys = np.stack([part[name].astype("<i8") for name in ID_FIELDS], axis=1).view("V32")[:, 0]
        hashes[first : first + _HASHED] = _fractions(seed, map(bytes, keys))
    return hashes


def _fractions(seed: int, texts: Iterable[bytes]) -> np.ndarray:
    key = str(seed).encode()
    digests = b"".join(hashlib.blake2b(text, key=key, digest_size=8).digest() for text in texts)
    return (np.frombuffer(digests, "<u8") >> np.uint64(11)) / 2.0**53


class _Draw:
    """The draw of one class, or of the shots without label; adds to `left_out` what is not eligible.

    Raises ManifestError if a row that was `kept` is not eligible.
    """

    def __init__(
        self,
        source: Source,
        config: PrepareConfig,
        label: str,
        runs: Sequence[int],
        kept: Rows,
        left_out: dict[int, dict[str, int]],
        intensity: Optional[Intensity],
    ) -> None:
        self.label, self.runs, self.kept, self.left_out = label, runs, kept, left_out
        self.settings, self.intensity = config.select, intensity
        parts = [np.empty(0, CANDIDATE_DTYPE)]
        for run in runs:
            of_run, left_out[run] = eligible_in(source, config, run)
            parts.append(of_run)
        self.candidates = np.concatenate(parts)
        self.free = np.ones(len(self.candidates), bool)
        places = places_of(kept.table, self.candidates)
        gone = np.flatnonzero(places < 0)
        if len(gone):
            raise ManifestError(
                f"the manifest has {len(gone)} shots{self._of_class} that are not eligible in these runs, "
                f"first {kept[int(gone[0])].shot}; build from the runs it was drawn from, or draw anew with "
                "--force"
            )
        self.free[places] = False

    def fill(self, split: str, size: Optional[int]) -> Rows:
        """The rows that bring `split` to `size` rows of this class, or to all there are."""
        have = int(self.kept.of_split(split).sum())
        if size is not None and have > size:
            raise ManifestError(
                f"select.{split}: the manifest has {have} shots{self._of_class}, the config asks for "
                f"{size}; ask for at least as many, or draw anew with --force"
            )
        of_split = self.candidates["split"]
        fitting = of_split < 0
        if split in LABELED:
            fitting |= of_split == LABELED.index(split)
        pool = np.flatnonzero(self.free & fitting)
        pool = pool[np.argsort(_RANK[split](self.candidates["hash"][pool]), kind="stable")]
        taken = self._bright(pool, None if size is None else size - have)
        if have + len(taken) < (size or 1):
            raise ManifestError(self._too_few(split, size, have + len(taken)))
        self.free[taken] = False
        return Rows.made(split, [self.label], 0, self.candidates[taken])

    def _bright(self, pool: np.ndarray, most: Optional[int]) -> np.ndarray:
        """The first `most` of the candidates `pool` whose frame is bright enough; those not are counted."""
        if self.intensity is None:
            return pool[:most]
        floor, taken = self.settings.beam.min_mean_intensity, []
        for i in pool.tolist():
            if len(taken) == most:
                break
            run, index = self.candidates[["run", "index"]][i].item()
            if self.intensity(run, index) >= floor:
                taken.append(i)
                continue
            counts = self.left_out[run]
            reason = f"no beam (mean intensity under {floor:g} counts)"
            counts[reason] = counts.get(reason, 0) + 1
            self.free[i] = False
        return np.array(taken, int)

    @property
    def _of_class(self) -> str:
        return f" of class '{self.label}'" if self.label else " without label"

    def _too_few(self, split: str, size: int, found: int) -> str:
        reasons = sum((Counter(self.left_out[run]) for run in self.runs), Counter())
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"
        blocks = " in its blocks of time" if self.settings.by == "block" and self.label else ""
        return (
            f"select.{split}: {size or 'some'} shots{self._of_class} are needed, "
            f"{found} are left{blocks}; in run {', '.join(map(str, self.runs))} there are "
            f"{len(self.candidates)} eligible shots for all splits (left out: {why})"
        )


def _block_splits(shots: np.ndarray, blocks: BlocksConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The split of each shot's block of time, (n,) places in LABELED, and which shots lie in a guard gap.

    Each cycle of consecutive blocks is shuffled by itself, so that more data never move a block
    to another split.
    """
    of_time = Blocks(blocks.length, blocks.guard)
    of_cycle = np.repeat(np.arange(len(LABELED)), [blocks.cycle.get(split, 0) for split in LABELED])
    splits, number = np.empty(len(shots), np.int8), of_time.number(shots)
    for run in np.unique(shots["run"]).tolist():
        of_run = np.flatnonzero(shots["run"] == run)
        cycle, place = np.divmod(number[of_run], len(of_cycle))
        cycles, which = np.unique(cycle, return_inverse=True)
        orders = [
            sorted(range(len(of_cycle)), key=lambda i: uniform_hash(seed, (run, cycle, i)))
            for cycle in cycles.tolist()
        ]
        splits[of_run] = of_cycle[np.array(orders, int).reshape(-1, len(of_cycle))[which, place]]
    return splits, of_time.in_guard(shots)


def mean_intensity_of(source: Source, config: PrepareConfig, dark_mean: np.ndarray) -> Intensity:
    """The function that `select` asks for a frame's mean above the dark, in counts."""
    pedestal = float(dark_mean.mean())
    return lambda run, index: float(source.frame(run, index).mean()) - pedestal
