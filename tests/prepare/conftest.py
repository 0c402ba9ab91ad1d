"""Fixtures: the small runs of tests/data, configs for them, and a source made of arrays."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from pathlib import Path
from typing import Callable, Iterator

import numpy as np
import pytest
import yaml

from common.dataset import reading
from common.dataset.checksums import content_digest
from common.dataset.index import data_files, index_path, read_index
from prepare.children import early
from prepare.commands import main
from prepare.shots import SHOT_DTYPE
from prepare.sources import FrameResult, Source
from prepare.sources.native import XtcSource
from tests.command_line import run

XTC1 = Path(__file__).parents[1] / "data" / "xtc1"
STAND_IN = Path(__file__).parent / "stand_in"  # the folder of a module `psana`


def settings(tmp_path: Path, source: Path = XTC1 / "experiment") -> dict:
    """A config, as YAML reads it, for the small experiment; outputs under `tmp_path`."""
    return {
        "name": "small",
        "source": {"kind": "xtc", "dir": str(source)},
        "camera": {"address": "xtcav", "shape": [96, 80]},
        "runs": {"dark": [68], "classes": {"nolasing": [69], "lasing": [70, 71]}},
        "select": {"train": 20, "test": 10, "beam": {"min_charge": 0.1}},
        "manifest_dir": str(tmp_path / "manifest"),
        "output_dir": str(tmp_path / "data"),
    }


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., str]:
    """Write a config, the small experiment's with changes such as select__train=8; gives its path."""

    def write(source: Path = XTC1 / "experiment", **changes: object) -> str:
        data = settings(tmp_path, source)
        for dotted, value in changes.items():
            *parents, key = dotted.split("__")
            place = data
            for parent in parents:
                place = place.setdefault(parent, {})
            place[key] = value
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return str(path)

    return write


class _Starters(dict):
    """A command is a process, and has one psana; here there is one for each way in which it is to fail."""

    def setdefault(self, key: tuple, starter: object) -> object:
        told = (item for item in sorted(os.environ.items()) if item[0].startswith("STAND_IN"))
        return super().setdefault((*key, *told), starter)


@pytest.fixture
def stand_in(monkeypatch) -> Iterator[Path]:
    """The stand-in for psana 1 is what `import psana` finds, here and in processes that are started."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    starters = _Starters()
    monkeypatch.setattr(early, "_starters", starters)
    yield STAND_IN
    for starter in starters.values():
        starter.end()


@pytest.fixture
def prepare() -> Callable[..., object]:
    """Run `python -m prepare ARGS` in this process; the result has exit_code and output."""

    return functools.partial(run, main)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder with the manifest and the data set, one file, of the small experiment; to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(settings(folder), sort_keys=False))
    for command in ("select", "build"):
        assert run(main, command, str(config)).exit_code == 0
    return folder


@pytest.fixture
def built(finished: Path, tmp_path: Path) -> Path:
    """A data file of the small experiment, with its manifest."""
    for name in ("manifest", "data"):
        shutil.copytree(finished / name, tmp_path / name)
    return tmp_path / "data" / "small.h5"


@pytest.fixture
def expected(finished: Path) -> str:
    """The digest of the small experiment's content, in however many files."""
    return digest(finished)


class ArraySource(Source):
    """A source of shots and frames that are arrays in memory."""

    def __init__(self, shots: dict[int, np.ndarray], frame: Callable[[int, int], np.ndarray] = None) -> None:
        self._shots, self._frame = shots, frame

    def runs(self):
        return tuple(sorted(self._shots))

    def shots(self, run: int) -> np.ndarray:
        return self._shots[run]

    def _frames(self, run: int, indices):
        return (FrameResult(index, self._frame(run, index)) for index in indices)

    def files(self, run: int):
        return ((f"run {run}", 0),)


def make_shots(run: int, n: int, rate: float = 120.0, start: int = 1_435_000_000) -> np.ndarray:
    """`n` shots with beam at `rate` Hz from `start`; all usable, charge 0.3 nC."""
    shots = np.zeros(n, SHOT_DTYPE)
    for name in SHOT_DTYPE.names[5:]:
        shots[name] = np.nan
    nanoseconds = start * 10**9 + (np.arange(n) * 1e9 / rate).astype("i8")
    shots["run"] = run
    shots["seconds"], shots["nanoseconds"] = nanoseconds // 10**9, nanoseconds % 10**9
    shots["fiducial"] = (1000 + np.arange(n) * 3) % 131_040
    shots["ebeamCharge"] = 0.3
    return shots


# --- builds that are interrupted -----------------------------------------------------------------

# A build that writes its images slowly, so that there is time to interrupt it. The process that writes the
# file numbered N notes its pid in N.pid after the first image, and fails at the third if N is FAIL.
SLOWED = """
import os, sys, time
from common.dataset import image_writer
from common.dataset import reading
from common.dataset.checksums import content_digest
from common.dataset.index import data_files, index_path, read_index
from prepare.children import early
from prepare.commands import main
append, written = image_writer.ImageWriter.append, {}
def slow(self, *args):
    made = append(self, *args)
    number = self._path.stem[-4:]
    if not written.get(number):
        part = self._path.parents[2] / f"{number}.part"
        part.write_text(str(os.getpid()))
        part.rename(part.with_suffix(".pid"))
    written[number] = written.get(number, 0) + 1
    time.sleep(float(os.environ["PAUSE"]))
    if os.environ.get("FAIL") == number and written[number] == 3:
        raise OSError(28, "No space left on device", str(self._path))
    return made
image_writer.ImageWriter.append = slow
main(["build", *sys.argv[1:]], prog_name="prepare")
"""


class Stop(Exception):
    """What ends a build at a chosen frame: a fault of the software, like a kill."""


@pytest.fixture
def building(tmp_path):
    """Where an unfinished build keeps its files."""
    return tmp_path / "data" / "small.building"


@pytest.fixture
def ready(write_config, prepare):
    """A config of a data set of three files, with its manifest drawn."""
    config = write_config(shard=10)
    assert prepare("select", config).exit_code == 0
    return config


@pytest.fixture
def stop_after(monkeypatch):
    """Make the source fail after `n` frames of the measured runs; 0 mends it."""
    frames = XtcSource.frames

    def arm(n: int, error: BaseException = None) -> None:
        counter = [0]

        def failing(self, run, indices):
            for taken in frames(self, run, indices):
                counter[0] += run != 68
                if n and counter[0] > n:
                    raise error or Stop
                yield taken

        monkeypatch.setattr(XtcSource, "frames", failing)

    return arm


def digest(tmp_path) -> str:
    """Of the content of the data set `small`, whose files are checked."""
    path = tmp_path / "data" / "small"
    files = data_files(path)
    with contextlib.ExitStack() as stack:
        made = content_digest(*(stack.enter_context(reading.open_data(file)) for file in files))
    if path.is_dir():
        assert read_index(index_path(path)).content_digest == made
    return made


def whole(ready, prepare, tmp_path) -> str:
    """The digest of a build that nothing interrupts; the data set is removed."""
    assert prepare("build", ready).exit_code == 0
    made = digest(tmp_path)
    shutil.rmtree(tmp_path / "data")
    return made
