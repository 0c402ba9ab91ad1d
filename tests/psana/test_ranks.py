"""Builds on several ranks, started by mpirun. Needs mpi4py and an MPI library."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import mpi4py  # noqa: F401  without it there is nothing to test here
import pytest
import yaml

from prepare.__main__ import main
from tests.prepare.conftest import SLOWED, XTC1, settings

# Open MPI wants to be told that it may run as root, and more ranks than cores.
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
BESIDE = Path(sys.executable).with_name("mpirun")  # where PyPI's mpich puts it
MPIRUN = str(BESIDE) if BESIDE.exists() else shutil.which("mpirun")


@pytest.fixture
def config(tmp_path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path, XTC1 / "experiment")))
    with contextlib.suppress(SystemExit):
        main(["select", str(path)])
    return str(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "data" / "small.h5.parts"


def mpirun(ranks: int, *args: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [MPIRUN, "-n", str(ranks), sys.executable, *args],
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def build(ranks: int, config: str, *options: str) -> str:
    process = mpirun(ranks, "-m", "prepare", "build", config, *options)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return output


def digest(tmp_path) -> str:
    with h5py.File(tmp_path / "data" / "small.h5", "r") as file:
        return file.attrs["content_digest"]


def wait_for_parts(folder: Path, count: int, size: int = 20_000) -> None:
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size > size for path in folder.glob("*.part")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_any_number_of_ranks_gives_the_same_content(config, tmp_path, folder):
    made = {}
    for ranks in (1, 2, 4, 7):
        output = build(ranks, config, "--force")
        assert output.count("content digest") == 1
        assert output.count("run 69: left out") == 1
        made[ranks] = digest(tmp_path)
        assert not folder.exists()
    assert len(set(made.values())) == 1, made


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_killed_rank_ends_the_job_and_other_ranks_go_on(config, tmp_path, folder, ranks):
    build(1, config)
    expected = digest(tmp_path)
    (tmp_path / "data" / "small.h5").unlink()
    process = mpirun(3, "-c", SLOWED, config, PAUSE="0.2")
    wait_for_parts(folder, 3)
    os.kill(int((tmp_path / f"0000{ranks}.pid").read_text()), signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert "images are there already, going on" in build(ranks, config)
    assert digest(tmp_path) == expected


def test_a_build_that_was_complete_is_done_for_all_ranks(config, tmp_path, folder):
    killed = (
        "import os, sys; from prepare.build.unfinished import Unfinished; from prepare.__main__ import main\n"
        "Unfinished.remove = lambda self: os._exit(9)\n"
        "main(['build', sys.argv[1]])"
    )
    assert subprocess.run([sys.executable, "-c", killed, config], stdout=subprocess.PIPE).returncode == 9
    assert folder.exists()
    assert build(3, config).count("was complete when its build was interrupted") == 1
    assert not folder.exists()


@pytest.mark.parametrize("part", ["00001", "00002", "00003"])
def test_a_rank_that_fails_ends_the_job_with_its_error(config, tmp_path, folder, part):
    process = mpirun(3, "-c", SLOWED, config, PAUSE="0.01", FAIL=part)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    lines = [line for line in errors.splitlines() if "error: " in line]
    assert len(lines) == 1, errors
    assert f"{part}.part: No space left on device" in lines[0]
    assert "is kept in" in lines[0]
    assert "Traceback" not in errors
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_sigterm_stops_all_ranks(config, tmp_path, folder):
    process = mpirun(3, "-c", SLOWED, config, PAUSE="0.2")
    wait_for_parts(folder, 3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert "images are there already, going on" in build(2, config)


@pytest.mark.parametrize(
    "options, words", [([], "exists already"), (["--no-such"], "No such option"), (None, "no such config")]
)
def test_a_mistake_is_told_once(config, options, words):
    build(1, config)
    args = ["-m", "prepare", "build", *([config, *options] if options is not None else ["nowhere.yaml"])]
    process = mpirun(3, *args)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in errors
    if options != ["--no-such"]:  # a mistake on the command line ends each process by itself
        assert errors.count(words) == 1, errors


def test_processes_that_mpi_cannot_join_say_so(config, monkeypatch):
    process = subprocess.run(
        [sys.executable, "-m", "prepare", "build", config],
        env={**os.environ, "SLURM_STEP_NUM_TASKS": "4"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert "4 processes were started, and MPI sees 1" in process.stderr
    assert process.stderr.count("\n") == 1


def test_without_mpi4py_several_processes_are_refused(config):
    code = (
        "import sys; sys.modules['mpi4py.MPI'] = None; from prepare.__main__ import main; main(sys.argv[1:])"
    )
    process = mpirun(2, "-c", code, "build", config)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "mpi4py, with which they would talk, cannot be loaded" in errors
    assert "Traceback" not in errors
