"""What a build takes from the runs: the places of the shots, the dark, and whether they are as before."""

from __future__ import annotations

import json
from typing import Any, Iterable, Iterator

import numpy as np

from common.dataset.reading import Header
from common.dataset.safety import read_json
from common.errors import DataError, ManifestError, OutputExists
from common.manifest import SPLITS, Rows
from common.progress import bar
from common.shots import ID_DTYPE, ID_FIELDS, places_of
from prepare.config import PrepareConfig
from prepare.image.dark import Dark, average
from prepare.select import uniform_hashes
from prepare.shots import USABLE
from prepare.sources import Source

Skipped = dict[int, dict[str, int]]  # {run: {reason: shots}} that could not be selected


def locate(source: Source, config: PrepareConfig, rows: Rows) -> np.ndarray:
    """The place of each row's shot in `source.shots(its run)`, (n,) int64; ManifestError if one has none.

    A shot that is in its run has a place, even if its frame is damaged or missing; of a repeated key it is
    the first one's, the usable one's.
    """
    check_labels(config, rows)
    places = np.empty(len(rows), np.int64)
    for run in np.unique(rows.table["run"]).tolist():
        of_run = rows.table["run"] == run
        places[of_run] = places_of(rows.table[of_run], source.shots(run))
    gone = np.flatnonzero(places < 0)
    if len(gone):
        raise ManifestError(
            f"{config.manifest_path}: {len(gone)} of its {len(rows)} shots are not in the runs in "
            f"{config.source.place}, first {rows[int(gone[0])].shot}; is this the data it was drawn from? "
            "`select --force` draws anew"
        )
    return places


def average_dark(source: Source, config: PrepareConfig) -> Dark:
    """The dark of `config.runs.dark`: at most `dark.max_frames` frames, drawn by uniform hash."""
    parts = [np.empty(0, ID_DTYPE)]
    places = [np.empty(0, int)]
    for run in config.runs.dark:
        shots = source.shots(run)
        places.append(np.flatnonzero(shots["status"] == USABLE))
        parts.append(shots[list(ID_FIELDS)][places[-1]].astype(ID_DTYPE))
    ids, index = np.concatenate(parts), np.concatenate(places)
    if len(ids) < 2:
        runs = ", ".join(map(str, config.runs.dark))
        raise DataError(
            f"{config.source.place}: the dark run {runs} has {len(ids)} usable frames; 2 are needed"
        )
    chosen = np.argsort(uniform_hashes(config.select.seed, ids), kind="stable")[: config.dark.max_frames]

    def frames() -> Iterator[np.ndarray]:
        with bar(None, "dark", "frame", len(chosen)) as progress:
            for run in np.unique(ids["run"][chosen]).tolist():
                of_run = np.sort(index[chosen][ids["run"][chosen] == run])
                for frame in source.good_frames(run, of_run.tolist()):
                    yield frame
                    progress.update(1)

    return average(frames, config.dark.reject_frames, config.dark.reject_pixels)


def check_sources(source: Source, config: PrepareConfig, files: Iterable[Header]) -> Skipped:
    """Raise OutputExists if a file of the source is another than one that `files` were made from.

    Returns what they say was left out of runs whose files are all the same: these need not be listed again.
    """
    sizes: dict[int, dict[str, int]] = {}
    known: Skipped = {}
    for file in files:
        sources, left_out, before = (
            read_json(file.attributes[name], f"{file.path}: attribute {name}")
            for name in ("sources", "skipped", "config")
        )
        for run, was in ((int(run), dict(map(tuple, of_run))) for run, of_run in sources.items()):
            now = sizes[run] if run in sizes else sizes.setdefault(run, dict(source.files(run)))
            # A file that has come since changes no image that was made, but it would the dark.
            for name in {**was, **now} if run in config.runs.dark else was:
                if was.get(name) != now.get(name):
                    then, today = (
                        "not there" if n is None else f"{n} bytes" for n in (was.get(name), now.get(name))
                    )
                    raise OutputExists(
                        f"{file.path}: made from other files: the source file {name} changed: was {then}, "
                        f"is {today}; put that back to go on, or give --force to start anew"
                    )
            if (
                was == now
                and str(run) in left_out
                and _rules(before) == _rules(json.loads(config.canonical()))
            ):
                known[run] = left_out[str(run)]
    return known


def _rules(config: dict[str, Any]) -> list[Any]:
    """What decides which shots of a run are left out."""
    select = {name: value for name, value in config.get("select", {}).items() if name not in SPLITS}
    return [select, config.get("runs", {}).get("unlabeled")]


def check_labels(config: PrepareConfig, rows: Rows) -> None:
    """Raise ManifestError if the config says of a row's run that it is of another class."""
    pairs = rows.table["label"].astype(np.int64) << 32 | rows.table["run"]
    for first in np.sort(np.unique(pairs, return_index=True)[1]).tolist():
        row = rows[first]
        runs = config.runs.classes.get(row.label, ()) if row.label else config.runs.unlabeled
        if row.shot.run not in runs:
            what = (
                f"labeled '{row.label}', and runs.classes" if row.label else "unlabeled, and runs.unlabeled"
            )
            raise ManifestError(
                f"{config.manifest_path}: {row.shot} is {what} in the "
                "config does not say so of that run; `python -m prepare select --force` draws anew"
            )
