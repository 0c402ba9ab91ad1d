"""Builds on several ranks, started by mpirun. Needs mpi4py and an MPI library."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from prepare.commands import main
from tests.limits import HANGS
from tests.prepare.conftest import SLOWED, XTC1, digest, settings
from tests.prepare.test_jobs import all_end

if importlib.util.find_spec("mpi4py") is None:  # never a silent skip
    raise pytest.UsageError("tests/psana/test_ranks.py needs mpi4py; run `make test-psana`")

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
    """A config of a data set of three files, with its manifest drawn."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**settings(tmp_path, XTC1 / "experiment"), "shard": 10}))
    with contextlib.suppress(SystemExit):
        main(["select", str(path)])
    return str(path)


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
    output, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return output


def remove(tmp_path) -> None:
    shutil.rmtree(tmp_path / "data")


def left_over(tmp_path) -> set:
    """What is in the data folder, apart from the lock of a process that was killed."""
    return {path.name for path in (tmp_path / "data").iterdir()} - {".small.lock"}


def processes(tmp_path: Path, count: int) -> list:
    """Those that make the first `count` files, as soon as each has written an image."""
    files = [tmp_path / f"{n:04d}.pid" for n in range(count)]
    deadline = time.monotonic() + HANGS
    while not all(path.exists() for path in files):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(path.read_text()) for path in files]


def test_any_number_of_ranks_gives_the_same_content(config, tmp_path):
    made = {}
    for ranks in (1, 2, 4, 7):
        output = build(ranks, config, "--force")
        assert output.count("content digest") == 1
        assert output.count("run 69: left out") == 1
        made[ranks] = digest(tmp_path)
        assert left_over(tmp_path) == {"small"}
    assert len(set(made.values())) == 1, made


@pytest.mark.parametrize("which", [0, 1, "leader"])
def test_a_killed_rank_ends_the_job_and_other_ranks_go_on(config, tmp_path, which):
    build(1, config)
    expected = digest(tmp_path)
    remove(tmp_path)
    process = mpirun(3, "-c", SLOWED, config, PAUSE="0.2")
    workers = processes(tmp_path, 2)
    lock = (tmp_path / "data" / ".small.lock").read_text()
    leader = int(lock.split()[1])
    assert leader not in workers
    os.kill(leader if which == "leader" else workers[which], signal.SIGKILL)
    process.communicate(timeout=HANGS)
    assert process.returncode != 0
    assert left_over(tmp_path) <= {"small.building"}
    build(2, config)
    assert digest(tmp_path) == expected


def test_a_finished_data_set_is_finished_for_all_ranks(config, tmp_path):
    build(1, config)
    assert build(3, config).count("is complete, nothing is left to do") == 1


@pytest.mark.parametrize("number", ["0000", "0002"])
def test_a_rank_that_fails_ends_the_job_with_its_error(config, tmp_path, number):
    process = mpirun(3, "-c", SLOWED, config, PAUSE="0.01", FAIL=number)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode != 0
    lines = [line for line in errors.splitlines() if "error: " in line]
    assert len(lines) == 1, errors
    assert f"small-{number}.h5: No space left on device" in lines[0]
    assert "Traceback" not in errors
    assert left_over(tmp_path) <= {"small.building"}


def test_sigterm_stops_all_ranks(config, tmp_path):
    process = mpirun(3, "-c", SLOWED, config, PAUSE="0.2")
    workers = processes(tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode != 0
    assert "Traceback" not in errors
    all_end(workers)
    build(2, config)


@pytest.mark.parametrize(
    "options, words", [([], "exists already"), (["--no-such"], "No such option"), (None, "no such config")]
)
def test_a_mistake_is_told_once(config, options, words):
    build(1, config)
    Path(config).write_text(Path(config).read_text() + "image: {log: false}\n")
    args = ["-m", "prepare", "build", *([config, *options] if options is not None else ["nowhere.yaml"])]
    process = mpirun(3, *args)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 2
    assert "Traceback" not in errors
    if options != ["--no-such"]:  # a mistake on the command line ends each process by itself
        assert errors.count(words) == 1, errors


def test_jobs_of_ranks_are_refused(config):
    process = mpirun(2, "-m", "prepare", "build", config, "--jobs", "2")
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 2
    assert "--jobs 2: 2 processes were started already" in errors


def test_a_process_that_mpi_knows_alone_is_alone(config, tmp_path):
    """Whatever a launcher's variables say that its shell has."""
    process = subprocess.run(
        [sys.executable, "-m", "prepare", "build", config],
        env={**os.environ, "SLURM_STEP_NUM_TASKS": "4"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert left_over(tmp_path) == {"small"}


def test_without_mpi4py_several_processes_are_refused(config):
    code = (
        "import sys; sys.modules['mpi4py.MPI'] = None; from prepare.commands import main; main(sys.argv[1:])"
    )
    process = mpirun(2, "-c", code, "build", config)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode != 0
    assert "mpi4py, with which they would talk, cannot be loaded" in errors
    assert "Traceback" not in errors
