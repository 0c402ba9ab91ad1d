"""From a manifest to the data set: make the files that are not there yet, by however many processes."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

import h5py
import numpy as np

from common import parallel
from common.dataset import layout, reading
from common.dataset.checksums import content_digest, stored_checksums
from common.dataset.index import Entry, Index
from common.dataset.safety import read_json
from common.errors import DataError, ManifestError, OutputExists
from common.manifest import Row
from common.progress import bar, say
from common.shots import ID_FIELDS, ShotId
from prepare.build.output import Check, Output
from prepare.build.shard import Place, Task, TooManyMissing, check_missing, make, make_elsewhere
from prepare.config import PrepareConfig
from prepare.image.dark import Dark, average
from prepare.select import eligible_in, uniform_hash
from prepare.shots import USABLE
from prepare.sources import Source, open_source


class Built(NamedTuple):
    """What came out of a build. missing: {reason: shots} of the rows that have no image."""

    path: Path
    files: int
    counts: dict[str, dict[str, int]]
    skipped: dict[int, dict[str, int]]
    missing: dict[str, int]
    dark: Dark
    content_digest: str
    simulated: bool
    bytes: int
    seconds: float


class _File(NamedTuple):
    """What a finished file of the data set says of itself."""

    path: Path
    entry: Entry
    counts: dict[str, dict[str, int]]
    missing: dict[str, int]
    example: str
    sources: dict[str, list]
    dark: Dark


def build(
    config: PrepareConfig,
    rows: Sequence[Row],
    force: bool = False,
    workers: Optional[Executor] = None,
    damage: Optional[Check] = None,
) -> Optional[Built]:
    """Make the data set of `config` with the shots of `rows`; None if it was there, complete.

    Every shot is in a file or among its missing shots. Goes on from what an interrupted build left,
    and adds to a finished data set what its manifest has more, unless `force`. damage: says what is
    damaged in a finished file, which is then made again. Files appear under their names only when
    they are complete. Raises OutputExists, OutputBusy, ManifestError for rows that do not fit the config
    or the runs, and DataError for sources that cannot be read or have too many shots missing.
    """
    start = time.perf_counter()
    for split in config.select.sizes:
        if not any(row.split == split for row in rows):
            raise ManifestError(
                f"{config.manifest_path}: has no shot of split {split}, which select.{split} asks for; "
                "draw them: python -m prepare select CONFIG"
            )
    output = Output(config, rows)
    with output.held():
        output.begin(force)
        found = output.found(force, damage)
        if output.is_finished(found):
            say(f"{output.path}: is complete, nothing is left to do")
            return None
        try:
            files, skipped = _make(output, found, workers or parallel.Here(), damage is not None)
        except TooManyMissing:
            for path in output.made():  # what may have failed to be read for a while is tried again
                if _read_back(path).missing:
                    path.unlink()
            raise
        index = _index(output, files)
        output.put(index)
    paths = [output.final(shard) for shard in output.shards]
    return Built(
        output.path,
        len(files),
        _summed([file.counts for file in files]),
        skipped,
        dict(sum((Counter(file.missing) for file in files), Counter())),
        files[0].dark,
        index.content_digest,
        config.simulate is not None,
        sum(path.stat().st_size for path in paths),
        time.perf_counter() - start,
    )


def locate(source: Source, config: PrepareConfig, rows: Sequence[Row]) -> list[Place]:
    """The place of every row, in the order of the rows; raises ManifestError if one has none.

    A shot that is in its run has a place, even if its frame is damaged or missing.
    """
    index: dict[ShotId, int] = {}
    for run in sorted({row.shot.run for row in rows}):
        shots = source.shots(run)
        columns = (shots[name].tolist() for name in ID_FIELDS)
        for i, key in enumerate(zip(*columns)):
            index.setdefault(ShotId(*key), i)  # a repeated key: the first is the usable one
    gone = [row.shot for row in rows if row.shot not in index]
    for row in rows:
        _check_label(config, row)
    if gone:
        raise ManifestError(
            f"{config.manifest_path}: {len(gone)} of its {len(rows)} shots are not in the runs in "
            f"{config.source.place}, first {gone[0]}; is this the data it was drawn from? "
            "`select --force` draws anew"
        )
    return [Place(row, row.shot.run, index[row.shot]) for row in rows]


def average_dark(source: Source, config: PrepareConfig) -> Dark:
    """The dark of `config.runs.dark`: at most `dark.max_frames` frames, drawn by uniform hash."""
    chosen: list[tuple[float, int, int]] = []
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


def _make(
    output: Output, found: dict[int, Path], workers: Executor, repair: bool
) -> tuple[list[_File], dict[int, dict[str, int]]]:
    """Make the files that are not `found`; returns what all of them say, in order."""
    config, rows = output.config, [row for shard in output.shards for row in shard.rows]
    allowed = int(config.max_missing * len(rows))
    kept = {number: _read_back(path) for number, path in found.items()}
    if sum(sum(file.missing.values()) for file in kept.values()) > allowed:
        kept = {number: file for number, file in kept.items() if not file.missing}  # those are tried again
    if len(kept) == len(output.shards):  # only their folder has not its name yet
        return [kept[n] for n in sorted(kept)], {}
    with open_source(config) as source:
        for file in kept.values():
            _check_sources(source, config, file)
        skipped = {run: eligible_in(source, config, run)[1] for run in config.runs.measured}
        places = locate(source, config, rows)
        if kept:
            there = sum(len(output.shards[n].rows) for n in kept)
            say(
                f"{len(kept)} of {len(output.shards)} files are there already, with {there} of {len(rows)} "
                "shots, going on"
            )
        dark = next(iter(kept.values())).dark if kept else average_dark(source, config)
        tasks, at = [], 0
        for shard in output.shards:
            of_shard = places[at : at + len(shard.rows)]
            at += len(shard.rows)
            if shard.number not in kept:
                number = shard.number if len(output.shards) > 1 else None
                expected = output.expected(shard) if repair else ""
                path = output.target(shard)
                tasks.append(Task(config, path, number, of_shard, dark, allowed, skipped, expected))
        with bar(None, "images", "image", sum(len(task.places) for task in tasks)) as progress:
            made = [_read_back(path) for path in _results(tasks, source, workers, progress.update)]
    files = [kept[n] for n in sorted(kept)] + made
    files.sort(key=lambda file: file.path.name)
    lacking = [file for file in files if file.missing]
    if lacking:
        total = sum(sum(file.missing.values()) for file in lacking)
        check_missing(total, allowed, lacking[0].example)
    return files, skipped


def _results(tasks: list[Task], source: Source, workers: Executor, report):
    """The paths of the files, as they are done; one alone is made here, where the source is open."""
    if len(tasks) == 1 or isinstance(workers, parallel.Here):
        for task in tasks:
            yield make(task, source, report)
        return
    sizes = {task.path: len(task.places) for task in tasks}
    for path in parallel.results(workers, make_elsewhere, [(task,) for task in tasks]):
        report(sizes[path])
        yield path


def _read_back(path: Path) -> _File:
    with reading.open_data(path) as file, reading.damage_named(path):
        attributes = reading.attributes(file)
        shots = sum(file[split]["images"].shape[0] for split in layout.present(file))
        missing = reading.missing(file)
        where = f"{path}: attribute sources"
        return _File(
            path,
            Entry(path.name, shots, str(attributes["content_digest"])),
            _counts(file),
            dict(Counter(one.reason for one in missing)),
            f"{missing[0].shot}: {missing[0].reason}" if missing else "",
            read_json(attributes["sources"], where),
            _dark(file),
        )


def _counts(file: h5py.File) -> dict[str, dict[str, int]]:
    """How many shots each split has of each class: {split: {label: count}}."""
    names = reading.classes(file)
    counts = {}
    for split in layout.present(file):
        if "labels" in file[split]:
            found = Counter(file[split]["labels"][...].tolist())
            counts[split] = {names[label]: n for label, n in found.items()}
        else:
            counts[split] = {"": file[split]["images"].shape[0]}
    return counts


def _dark(file: h5py.File) -> Dark:
    numbers = [int(file["dark"].attrs[name]) for name in ("frames", "rejected_frames", "rejected_pixels")]
    return Dark(file["dark/mean"][...], file["dark/std"][...], *numbers)


def _check_sources(source: Source, config: PrepareConfig, file: _File) -> None:
    """Raise OutputExists if a file of the source is another than the one that `file` was made from."""
    for run, before in file.sources.items():
        was, now = dict(map(tuple, before)), dict(source.files(int(run)))
        # A file that has come since changes no image that was made, but it would the dark.
        for name in {**was, **now} if int(run) in config.runs.dark else was:
            if was.get(name) != now.get(name):
                sizes = (
                    f"{n} bytes" if n is not None else "not there" for n in (was.get(name), now.get(name))
                )
                raise OutputExists(
                    f"{file.path}: made from other files: the source file {name} changed: was "
                    f"{next(sizes)}, is {next(sizes)}; put that back to go on, or give --force to start anew"
                )


def _index(output: Output, files: Sequence[_File]) -> Index:
    digest = files[0].entry.content_digest
    if len(files) > 1:
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(reading.open_data(file.path)) for file in files]
            digest = content_digest(*opened, of_rows=stored_checksums)
    return Index([file.entry for file in files], digest, output.manifest_digest())


def _summed(tables: Sequence[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    total: dict[str, dict[str, int]] = {}
    for table in tables:
        for split, counts in table.items():
            of_split = total.setdefault(split, {})
            for label, n in counts.items():
                of_split[label] = of_split.get(label, 0) + n
    return total


def _check_label(config: PrepareConfig, row: Row) -> None:
    runs = config.runs.classes.get(row.label, ()) if row.label else config.runs.unlabeled
    if row.shot.run not in runs:
        what = f"labeled '{row.label}', and runs.classes" if row.label else "unlabeled, and runs.unlabeled"
        raise ManifestError(
            f"{config.manifest_path}: {row.shot} is {what} in the "
            "config does not say so of that run; `python -m prepare select --force` draws anew"
        )
