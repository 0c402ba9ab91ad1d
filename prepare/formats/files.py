"""The files of a run in a folder, in both formats: their names, which are there, opening one."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Iterable, NamedTuple, Optional

from common.errors import DataError

XTC, XTC2 = "xtc", "xtc2"  # LCLS-I's and LCLS-II's
_WIDTH = {XTC: 2, XTC2: 3}  # least digits of stream and chunk when written; both are read with two or more
_SPOKEN = {XTC: "XTC", XTC2: "xtc2"}
IN_PROGRESS = ".inprogress"  # appended while a file is being written
_NAME = re.compile(
    r"^(?P<prefix>.+)-r(?P<run>\d{4,})-s(?P<stream>\d{2,})-c(?P<chunk>\d{2,})"
    rf"\.(?P<form>{XTC2}|{XTC})({re.escape(IN_PROGRESS)})?$"
)


class FileName(NamedTuple):
    """The parts of a data file's name.

    LCLS-I: eNNN-rRRRR-sSS-cCC.xtc with the experiment's number, since 2020 its name; LCLS-II:
    EXPERIMENT-rRRRR-sSSS-cCCC.xtc2.
    """

    prefix: str
    run: int
    stream: int
    chunk: int
    form: str = XTC

    def __str__(self) -> str:
        width = _WIDTH[self.form]
        return f"{self.prefix}-r{self.run:04d}-s{self.stream:0{width}d}-c{self.chunk:0{width}d}.{self.form}"


Files = dict[FileName, Path]


def parse_name(name: str, form: str = XTC) -> Optional[FileName]:
    """The parts of a file's name in format `form`, or None if it is no such name."""
    match = _NAME.match(name)
    if match is None or match["form"] != form or match["prefix"].startswith("partial."):
        return None
    return FileName(match["prefix"], int(match["run"]), int(match["stream"]), int(match["chunk"]), form)


def small_data(path: Path) -> Path:
    """Where the small-data file lies that belongs to the data file `path`, of either format."""
    name = path.name[: -len(IN_PROGRESS)] if is_growing(path) else path.name
    stem, _, form = name.rpartition(".")
    return path.parent / "smalldata" / f"{stem}.smd.{form}"


def is_growing(path: Path) -> bool:
    """Whether the file's name says that it is still being written."""
    return path.name.endswith(IN_PROGRESS)


def files_by_run(directory: Path, form: str = XTC) -> dict[int, Files]:
    """{run: {parsed name: path}} of what has a data file's name in `directory`, readable or not.

    Raises DataError if `directory` is no folder. Whether its files can be read is looked at
    when their run is used (`files_of_run`, `open_file`).
    """
    if not directory.is_dir():
        raise DataError(
            f"{directory}: no such folder of {_SPOKEN[form]} files (source.dir); "
            "simulated runs are made with `python -m prepare simulate CONFIG`"
        )
    found: dict[int, Files] = {}
    for path in sorted(directory.iterdir()):  # NAME.xtc comes before NAME.xtc.inprogress and wins
        name = parse_name(path.name, form)
        if name is not None:
            found.setdefault(name.run, {}).setdefault(name, path)
    return found


def files_of_run(directory: Path, by_run: dict[int, Files], run: int, form: str = XTC) -> Files:
    """The files of `run`; raises DataError if there are none, of two experiments, or one is unreadable."""
    files = by_run.get(run)
    if not files:
        there = ", ".join(map(str, sorted(by_run))) or "none"
        raise DataError(f"{directory}: no {_SPOKEN[form]} files of run {run}; runs there: {there}")
    prefixes = sorted({name.prefix for name in files})
    if len(prefixes) > 1:
        raise DataError(f"{directory}: run {run} of more than one experiment: {', '.join(prefixes)}")
    check_readable(files[name] for name in sorted(files))
    return files


def missing_chunks(run: int, names: Iterable[FileName]) -> list[str]:
    """A warning for each stream whose chunks do not run from 0 without a gap."""
    chunks: dict[int, list[int]] = {}
    for name in names:
        chunks.setdefault(name.stream, []).append(name.chunk)
    warnings = []
    for stream, present in chunks.items():
        gaps = sorted(set(range(max(present) + 1)) - set(present))
        if gaps:
            chunk = ", ".join(map(str, gaps))
            warnings.append(f"run {run}: stream {stream} lacks chunk {chunk}; its shots are missing")
    return warnings


def check_readable(paths: Iterable[Path]) -> None:
    """Raise DataError for the first of `paths` that has a run's name and cannot be read."""
    for path in paths:
        reason = why_unreadable(path)
        if reason:
            raise DataError(f"{path}: {reason}: its shots are missing; restore the file, or remove the entry")


def why_unreadable(path: Path) -> str:
    """Why `path` cannot be read as a file: a dead link, a folder, ...; "" if it can."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"is a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "is gone"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if stat.S_ISDIR(mode):
        return "is a folder"
    if not stat.S_ISREG(mode):
        return "is no regular file"
    return "" if os.access(path, os.R_OK) else "may not be read (permission denied)"


def open_file(path: Path) -> int:
    """A descriptor of the data file `path`, which the caller closes; raises DataError if it is no file."""
    check_readable([path])
    descriptor = os.open(path, os.O_RDONLY)
    if hasattr(os, "posix_fadvise"):
        # Headers are 800 kB apart: the kernel's read-ahead would read every frame for nothing.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    return descriptor
