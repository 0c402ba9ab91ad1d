"""From a manifest to the HDF5 file: read each frame once, keep its image, assemble the file.

What is made goes into part files first (prepare/build/parts.py), so that a build that is killed at any
moment goes on from there; see `Unfinished` for what is kept, `assemble` for the file.
"""

from __future__ import annotations

import contextlib
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from common import manifest
from common.errors import DataError, ManifestError, UserError
from common.files import atomic
from common.files.lock import only_one
from common.manifest import SPLITS, Row
from common.progress import bar, say
from common.shots import ID_FIELDS, ShotId
from prepare.build import parts, ranks
from prepare.build.assemble import Contents, assemble
from prepare.build.extract import Place, Task, check_losses, extract
from prepare.build.unfinished import Unfinished, plan_of
from prepare.config import PrepareConfig
from prepare.image.dark import Dark, average
from prepare.select import eligible_in, uniform_hash
from prepare.shots import USABLE
from prepare.sources import Source


class Built(NamedTuple):
    """What came out of a build. lost: {reason: shots} of the rows that have no image."""

    counts: Dict[str, Dict[str, int]]
    skipped: Dict[int, Dict[str, int]]
    lost: Dict[str, int]
    dark: Dark
    content_digest: str
    bytes: int
    seconds: float


def build(
    source: Source,
    config: PrepareConfig,
    rows: Sequence[Row],
    force: bool = False,
    team: Optional[ranks.Team] = None,
) -> Optional[Built]:
    """Write `config.output_path` with the shots of `rows`, in their order; None on ranks but the first.

    Every shot is in the file or in its list of losses. Goes on from what an interrupted build
    left, unless `force`. The file appears under its name only when it is complete. Raises
    OutputExists, OutputBusy, ManifestError for rows that do not fit the config or the runs, and
    DataError for sources that cannot be read or have too many losses.
    """
    team = team or ranks.Team()
    if team.rank:
        task = team.receive()
        if task is not None:
            with _kept_on_failure(Unfinished(config.output_path)):
                extract(source, config, task, team.report)
            team.done()
        return None
    start = time.perf_counter()
    unfinished = Unfinished(config.output_path)
    if not unfinished.folder.exists():
        atomic.refuse_existing(config.output_path, force)
    with _held(unfinished):  # also where a build was killed while it tidied up: that is done now
        if not force and unfinished.made():
            unfinished.remove()
            team.dismiss()
            say(f"{config.output_path}: was complete when its build was interrupted; nothing is left to do")
            return None
        if not unfinished.replaces():
            atomic.refuse_existing(config.output_path, force)
        if config.select.train and not any(row.split == "train" for row in rows):
            raise ManifestError(f"{config.manifest_path}: has no shot of split train")
        places = locate(source, config, rows)
        plan = plan_of(source, config, rows)
        identity = unfinished.begin(plan, anew=force)
        skipped = {run: eligible_in(source, config, run)[1] for run in config.runs.measured}
        with _kept_on_failure(unfinished):
            dark, *images = _extract_missing(source, config, places, unfinished, identity, team)
            team.dismiss()
            digest, losses = assemble(source, config, Contents(rows, places, skipped, dark, *images))
        unfinished.remove()
    lost: Dict[str, int] = {}
    for loss in losses:
        lost[loss.reason] = lost.get(loss.reason, 0) + 1
    gone = {loss.shot for loss in losses}
    counts = manifest.counts([row for row in rows if row.shot not in gone])
    size = config.output_path.stat().st_size
    return Built(counts, skipped, lost, dark, digest, size, time.perf_counter() - start)


def locate(source: Source, config: PrepareConfig, rows: Sequence[Row]) -> List[Place]:
    """The place of every row, in the order of the rows; raises ManifestError if one has none.

    A shot that is in its run has a place, even if its frame is damaged or missing.
    """
    index: Dict[ShotId, int] = {}
    for run in sorted({row.shot.run for row in rows}):
        columns = (source.shots(run)[name].tolist() for name in ID_FIELDS)
        for i, key in enumerate(zip(*columns)):
            index.setdefault(ShotId(*key), i)  # a repeated key: the first is the usable one
    next_row = dict.fromkeys(SPLITS, 0)
    places: List[Place] = []
    lost: List[ShotId] = []
    for row in rows:
        _check_label(config, row)
        at = index.get(row.shot)
        if at is None:
            lost.append(row.shot)
            continue
        places.append(Place(row.shot.run, at, row.split, next_row[row.split], row.shot))
        next_row[row.split] += 1
    if lost:
        raise ManifestError(
            f"{config.manifest_path}: {len(lost)} of its {len(rows)} shots are not in the runs in "
            f"{config.source.place}, first {lost[0]}; is this the data it was drawn from? "
            "`select --force` draws anew"
        )
    return places


def average_dark(source: Source, config: PrepareConfig) -> Dark:
    """The dark of `config.runs.dark`: at most `dark.max_frames` frames, drawn by uniform hash."""
    chosen: List[Tuple[float, int, int]] = []
    for run in config.runs.dark:
        shots = source.shots(run)
        for i in np.flatnonzero(shots["status"] == USABLE).tolist():
            chosen.append((uniform_hash(config.select.seed, shots[list(ID_FIELDS)][i].item()), run, i))
    if len(chosen) < 2:
        runs = ", ".join(map(str, config.runs.dark))
        raise DataError(
            f"{config.source.place}: the dark run {runs} has {len(chosen)} usable frames; 2 are needed"
        )
    chosen = sorted(sorted(chosen)[: config.dark.max_frames], key=lambda c: c[1:])

    def frames():
        with bar(None, "dark", "frame", len(chosen)) as progress:
            for run in dict.fromkeys(run for _, run, _ in chosen):
                for frame in source.good_frames(run, [i for _, of, i in chosen if of == run]):
                    yield frame
                    progress.update(1)

    return average(frames, config.dark.reject_frames, config.dark.reject_pixels)


def _extract_missing(
    source: Source,
    config: PrepareConfig,
    places: Sequence[Place],
    unfinished: Unfinished,
    identity: bytes,
    team: ranks.Team,
) -> Tuple[Dark, parts.Found, Optional[parts.Slots]]:
    """Make the images that are not there yet, on all ranks; returns the dark, and all that are there.

    Processes of one machine write them to their places in the file to be; those of several, each to
    its own part file: a network file system may mix up what two machines write side by side into one.
    """
    keys: Dict[str, List[ShotId]] = {}
    for place in places:
        keys.setdefault(place.split, []).append(place.shot)
    found = parts.scan(unfinished.folder, identity, keys)
    dark = unfinished.load_dark()
    if found.count:
        dropped = f"; {found.dropped} damaged or cut-off records are left out" if found.dropped else ""
        say(f"{found.count} of {len(places)} images are there already, going on{dropped}")
    if dark is None:
        dark = average_dark(source, config)
        unfinished.save_dark(dark)
    allowed = int(config.max_missing * len(places))
    missing = sorted(place for place in places if not found.images[place.split]["part"][place.row])
    slots = None
    if team.one_machine:
        sizes = {split: len(of_split) for split, of_split in keys.items()}
        slots = unfinished.slots(config, sizes, found)
    if slots:
        atomic.check_room(slots.path, slots.path.stat().st_size)
    shares = ranks.split(missing, team.size)
    files = unfinished.new_parts(team.size)
    tasks = [Task(share, dark.mean, path, identity, allowed, slots) for share, path in zip(shares, files)]
    with bar(None, "images", "image", len(places), initial=found.count) as progress:
        task = team.deal(tasks)
        extract(source, config, task, lambda n: progress.update(n + team.news()))
        while team.busy():
            progress.update(team.news())
    found = parts.scan(unfinished.folder, identity, keys, check=False)
    if found.losses:
        (split, row), why = next(iter(found.losses.items()))
        check_losses(len(found.losses), allowed, f"{keys[split][row]}: {why}")
    return dark, found, slots


def _check_label(config: PrepareConfig, row: Row) -> None:
    runs = config.runs.classes.get(row.label, ()) if row.label else config.runs.unlabeled
    if row.shot.run not in runs:
        what = f"labeled '{row.label}', and runs.classes" if row.label else "unlabeled, and runs.unlabeled"
        raise ManifestError(
            f"{config.manifest_path}: {row.shot} is {what} in the "
            "config does not say so of that run; `python -m prepare select --force` draws anew"
        )


@contextlib.contextmanager
def _held(unfinished: Unfinished) -> Iterator[None]:
    """Hold the build's folder; remove it at the end if it has nothing to go on from."""
    try:
        with only_one(unfinished.lock, unfinished.output):
            try:
                yield
            finally:
                if not unfinished.started():
                    unfinished.remove()
    finally:
        with contextlib.suppress(OSError):
            unfinished.folder.rmdir()  # fails, as it should, while something is in it


@contextlib.contextmanager
def _kept_on_failure(unfinished: Unfinished) -> Iterator[None]:
    """Have the line on what goes wrong say that what was made is not lost."""
    try:
        yield
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        if unfinished.started():
            error.advice = f"what was made so far is kept in {unfinished.folder}, build again to go on"
        raise
