"""Builds by several processes of one machine, `build --jobs N`: one file, one end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.prepare.conftest import SLOWED, digest, whole
from tests.prepare.test_commands import refused


def slowed(config: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SLOWED, config, "--jobs", "3"],
        env={**os.environ, "PAUSE": "0.2", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def pids(tmp_path: Path) -> list:
    """Of ranks 0, 1 and 2, as soon as each has written an image."""
    files = [tmp_path / f"0000{n}.pid" for n in (1, 2, 3)]
    deadline = time.monotonic() + 60
    while not all(path.exists() and path.read_text() for path in files):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(path.read_text()) for path in files]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_end(processes: list, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while any(running(pid) for pid in processes):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def goes_on(prepare, config, tmp_path, expected: str) -> None:
    result = prepare("build", config)
    assert "images are there already, going on" in result.output
    assert digest(tmp_path) == expected
    assert prepare("verify", str(tmp_path / "data" / "small.h5")).exit_code == 0


@pytest.mark.parametrize("dtype, compression", [("float32", "none"), ("float16", "bitshuffle-lz4")])
def test_any_number_of_jobs_gives_the_same_content(
    write_config, prepare, tmp_path, folder, dtype, compression
):
    config = write_config(image__dtype=dtype, image__compression=compression)
    prepare("select", config)
    expected = whole(config, prepare, tmp_path)
    for jobs in (2, 5):
        command = [sys.executable, "-m", "prepare", "build", config, "--jobs", str(jobs), "--force"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("content digest") == 1 and done.stdout.count("run 69: left out") == 1
        assert digest(tmp_path) == expected and not folder.exists()


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_killed_process_ends_the_build_and_another_goes_on(ready, prepare, tmp_path, folder, rank):
    expected = whole(ready, prepare, tmp_path)
    process = slowed(ready)
    processes = pids(tmp_path)
    assert processes[0] == process.pid
    os.kill(processes[rank], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    all_end(processes)
    if rank:
        assert process.returncode == 2
        assert f"rank {rank}, was ended by SIGKILL" in errors and "is kept in" in errors
        assert errors.count("\n") == 1
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    goes_on(prepare, ready, tmp_path, expected)


@pytest.mark.parametrize("part", ["00001", "00003"])
def test_a_process_that_fails_ends_the_build_with_its_line(ready, prepare, tmp_path, folder, part):
    expected = whole(ready, prepare, tmp_path)
    process = slowed(ready, PAUSE="0.01", FAIL=part)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"{part}.part: No space left on device" in errors and "is kept in" in errors
    assert errors.count("\n") == 1
    goes_on(prepare, ready, tmp_path, expected)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_all_stops_all_with_one_line(ready, prepare, tmp_path, number, code):
    """As from Slurm or the terminal."""
    expected = whole(ready, prepare, tmp_path)
    process = slowed(ready)
    processes = pids(tmp_path)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors.count("\n") == 1 and "prepare build" in errors
    all_end(processes)
    goes_on(prepare, ready, tmp_path, expected)


def test_only_the_first_process_listens_to_signals(ready, prepare, tmp_path):
    expected = whole(ready, prepare, tmp_path)
    process = slowed(ready)
    for pid in pids(tmp_path)[1:]:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert digest(tmp_path) == expected


def test_a_mistake_is_told_once(ready, prepare):
    assert prepare("build", ready).exit_code == 0
    command = [sys.executable, "-m", "prepare", "build", ready, "--jobs", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "exists already" in done.stderr and done.stderr.count("\n") == 1


def test_jobs_of_a_rank_are_refused(ready, prepare, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "4")
    refused(prepare("build", ready, "--jobs", "2"), "--jobs 2: 4 processes were started already")
