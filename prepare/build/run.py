"""From a manifest to the data set: make the files that are not there yet, by however many processes."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import Executor
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from common import parallel
from common.dataset import reading
from common.dataset.checksums import Content, object_digest
from common.dataset.index import Entry, Index
from common.dataset.layout import SAID, SHA256, Missing
from common.dataset.reading import Header, read_header
from common.errors import DataError, ManifestError
from common.manifest import Row, Rows
from common.progress import bar, say
from prepare.build.inputs import Skipped, average_dark, check_labels, check_sources, locate
from prepare.build.output import Check, Output
from prepare.build.shard import Task, TooManyMissing, check_missing, make, make_elsewhere
from prepare.config import PrepareConfig
from prepare.image.dark import Dark
from prepare.select import left_out_in
from prepare.sources import Source, open_source


class Built(NamedTuple):
    """What came out of a build. missing: {reason: shots} of the rows that have no image."""

    path: Path
    files: int
    counts: dict[str, dict[str, int]]
    skipped: Skipped
    missing: dict[str, int]
    dark: Dark
    content_digest: str
    simulated: bool
    bytes: int
    seconds: float


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
    output = Output(config, rows)
    for split in config.select.sizes:
        if not output.rows.of_split(split).any():
            raise ManifestError(
                f"{config.manifest_path}: has no shot of split {split}, which select.{split} asks for; "
                "draw them: python -m prepare select CONFIG"
            )
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
                if read_header(path).missing:
                    path.unlink()
            raise
        index = _index(output, files)
        dark = _dark_of(files[0])
        output.put(index)
    missing = [one for file in files for one in file.missing]
    return Built(
        output.path,
        len(files),
        _counts(output.rows, missing, list(config.runs.classes)),
        skipped,
        dict(Counter(one.reason for one in missing)),
        dark,
        index.content_digest,
        config.simulate is not None,
        sum(output.final(shard).stat().st_size for shard in output.shards),
        time.perf_counter() - start,
    )


def _make(
    output: Output, found: dict[int, Header], workers: Executor, repair: bool
) -> tuple[list[Header], Skipped]:
    """Make the files that are not `found`; returns the headers of all, in order, and what was skipped."""
    config, shards = output.config, output.shards
    allowed = int(config.max_missing * len(output.rows))
    if sum(len(file.missing) for file in found.values()) > allowed:
        found = {n: file for n, file in found.items() if not file.missing}  # those are tried again
    new = [shard for shard in shards if shard.number not in found]
    if not new:  # only their folder has not its name yet
        return [found[shard.number] for shard in shards], {}
    check_labels(config, output.rows)
    with open_source(config) as source:
        known = check_sources(source, config, found.values())
        rows = Rows.joined(shard.rows for shard in new)
        places = locate(source, config, rows)
        listed = set(np.unique(rows.table["run"]).tolist())
        skipped = {
            run: known[run] if run in known.keys() - listed else left_out_in(source, config, run)
            for run in config.runs.measured
        }
        if found:
            say(
                f"{len(found)} of {len(shards)} files are there already, with {len(output.rows) - len(rows)} "
                f"of {len(output.rows)} shots, going on"
            )
        dark = _dark_of(next(iter(found.values()))) if found else average_dark(source, config)
        shares = np.split(places, np.cumsum([len(shard.rows) for shard in new])[:-1])
        tasks = [
            Task(
                config,
                output.target(shard),
                shard.number if len(shards) > 1 else None,
                shard.rows,
                share,
                dark,
                allowed,
                skipped,
                output.expected(shard) if repair else "",
            )
            for shard, share in zip(new, shares)
        ]
        with bar(None, "images", "image", len(rows)) as progress:
            made = {path: read_header(path) for path in _results(tasks, source, workers, progress.update)}
    files = [found.get(shard.number) or made[output.target(shard)] for shard in shards]
    missing = [one for file in files for one in file.missing]
    if missing:
        check_missing(len(missing), allowed, f"{missing[0].shot}: {missing[0].reason}")
    return files, skipped


def _results(
    tasks: list[Task], source: Source, workers: Executor, report: Callable[[int], object]
) -> Iterator[Path]:
    """The paths of the files, as they are done; one alone is made here, where the source is open."""
    if len(tasks) == 1 or isinstance(workers, parallel.Here):
        for task in tasks:
            yield make(task, source, report)
        return
    sizes = {task.path: len(task.rows) for task in tasks}
    for path in parallel.results(workers, make_elsewhere, [(task,) for task in tasks]):
        report(sizes[path])
        yield path


def _dark_of(header: Header) -> Dark:
    """The dark of a finished file; raises DataError if it is not what was written."""
    with reading.open_data(header.path, only=SAID) as file, reading.damage_named(header.path):
        group = file["dark"]
        for name in ("mean", "std"):
            if reading.attributes(group[name]).get(SHA256) != object_digest(group[name]):
                raise DataError(
                    f"{header.path}: dark/{name} is not what was written; `python -m prepare repair` makes "
                    "the file again"
                )
        numbers = [int(group.attrs[name]) for name in ("frames", "rejected_frames", "rejected_pixels")]
        return Dark(group["mean"][...], group["std"][...], *numbers)


def _index(output: Output, files: Sequence[Header]) -> Index:
    content = Content()
    for header in files:
        with reading.open_data(header.path, only=SAID) as file, reading.damage_named(header.path):
            content.add(file, written=True)
    entries = [Entry(file.path.name, file.images, str(file.attributes["content_digest"])) for file in files]
    return Index(entries, content.digest(), output.manifest_digest())


def _counts(rows: Rows, missing: Sequence[Missing], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many of `rows` that are not `missing` each split has of each class: {split: {label: count}}."""
    gone = Counter((one.split, classes[one.label] if one.label >= 0 else "") for one in missing)
    return {
        split: {label: n - gone[split, label] for label, n in of_split.items() if n > gone[split, label]}
        for split, of_split in rows.counts().items()
    }
