"""`controls` and `predict` over processes and ranks of which one is killed: an end, and a clean start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest

from common.files import atomic
from tests.train.conftest import write_data
from tests.train.test_controls import SETTINGS, write_runs
from tests.train.test_ranks import MPIRUN

PYTHON = [sys.executable, "-m", "train"]
FEW = {**SETTINGS, "steps": 5}
SECONDS = 200  # in which all that is waited for must come


@contextlib.contextmanager
def working(words: list, way: str, data: Path) -> Iterator[tuple]:
    """A command on two processes that work: it, and {number: process} of those that have `data` open.

    They are stopped, one after the other, as soon as they have: the command cannot end without them.
    """
    command = [*PYTHON, *words, "--jobs", "2"] if way == "jobs" else [str(MPIRUN), "-n", "3", *PYTHON, *words]
    mark = f"OF={data.parent}"
    process = subprocess.Popen(
        command, env={**os.environ, "OF": str(data.parent)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    workers: list = []
    try:
        with waiting(process) as go_on:
            while len(workers) < 2:
                go_on()
                for pid, words in of_command(mark).items():
                    first = pid == process.pid or "PMI_RANK=0" in words
                    if not first and pid not in workers and has_open(pid, data):
                        os.kill(pid, signal.SIGSTOP)
                        workers.append(pid)
        yield process, workers
    finally:
        for pid in of_command(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


@contextlib.contextmanager
def waiting(process: subprocess.Popen) -> Iterator:
    deadline = time.monotonic() + SECONDS

    def go_on() -> None:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=5)
        time.sleep(0.05)

    yield go_on


def of_command(mark: str) -> dict:
    """{process: its environment} of all processes of a command that are not dead; `mark` is in that."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "environ").read_text().split("\0")
            if mark in words and (path / "stat").read_text().rpartition(") ")[2][0] != "Z":
                found[int(path.name)] = words
    return found


def has_open(pid: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(fd) == str(path):
                    return True
    return False


def ended(process: subprocess.Popen, killed: int, way: str, place: Path) -> None:
    """Nothing hangs, nothing is left running, and of one of --jobs that was killed a line says so."""
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode not in (0, None)
    deadline = time.monotonic() + SECONDS
    while of_command(f"OF={place}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if way == "jobs" and killed != process.pid:
        assert process.returncode == 2 and errors.count("\n") == 1, errors
        assert f"error: process {killed} of --jobs 2 was ended by SIGKILL" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("way", ["jobs", "ranks"])
def test_controls_go_on_where_one_of_their_processes_was_killed(write_config, train, tmp_path, way):
    write_runs(tmp_path / "data.h5")
    config, run = write_config(**FEW), tmp_path / "runs/small"
    with working(["controls", config, "-q"], way, tmp_path / "data.h5") as (process, workers):
        other, killed = workers
        os.kill(other, signal.SIGCONT)
        with waiting(process) as go_on:
            while not (run / "controls.json").exists():
                go_on()
        os.kill(killed, signal.SIGKILL)
        ended(process, killed, way, tmp_path)
    assert not (run / "controls.csv").exists()
    again = train("controls", config)
    assert again.exit_code == 0, again.output
    other = write_config(**FEW, name="undisturbed")
    assert train("controls", other).exit_code == 0
    assert (run / "controls.csv").read_text() == (tmp_path / "runs/undisturbed/controls.csv").read_text()


@pytest.mark.parametrize("way, which", [("jobs", "the first"), ("ranks", "another")])
def test_predictions_begin_anew_where_one_of_their_processes_was_killed(
    data, write_config, train, tmp_path, way, which
):
    assert train("fit", write_config()).exit_code == 0
    shots = write_data(tmp_path / "next.h5", {"test": 600, "predict": 700}, seed=3)
    run, out = str(tmp_path / "runs/small"), tmp_path / "out/there.csv"
    out.parent.mkdir()
    words = ["predict", run, str(shots), "-q", "--out"]
    with working([*words, str(out)], way, shots) as (process, (other, killed)):
        target = process.pid if which == "the first" else killed
        os.kill(target, signal.SIGKILL)
        for pid in (other, killed):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        ended(process, target, way, tmp_path)
    left = [path.name for path in out.parent.iterdir()]
    assert not [name for name in left if not name.startswith(atomic.PARTIAL_PREFIX)]
    assert not left or which == "the first" or way == "ranks"  # mpirun kills rank 0, too
    assert train(*words, str(out)).exit_code == 0
    assert train(*words, str(tmp_path / "here.csv")).exit_code == 0
    assert out.read_bytes() == (tmp_path / "here.csv").read_bytes()
