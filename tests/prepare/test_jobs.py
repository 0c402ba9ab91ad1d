"""Builds by several processes of one machine, `build --jobs N`: one file, one end."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from common import parallel
from tests.limits import HANGS
from tests.prepare.conftest import SLOWED, XTC1, digest, settings, whole


def slowed(config: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SLOWED, config, "--jobs", "3"],
        env={**os.environ, "PAUSE": "0.2", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def pids(tmp_path: Path) -> list:
    """Of the processes that make the files 0, 1 and 2, as soon as each has written an image."""
    files = [tmp_path / f"000{n}.pid" for n in (0, 1, 2)]
    deadline = time.monotonic() + HANGS
    while not all(path.exists() for path in files):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(path.read_text()) for path in files]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_end(processes: list) -> None:
    deadline = time.monotonic() + HANGS
    while any(running(pid) for pid in processes):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def left_over(tmp_path) -> set:
    """What is in the data folder, apart from the lock of a process that was killed."""
    return {path.name for path in (tmp_path / "data").iterdir()} - {".small.lock"}


def goes_on(prepare, config, tmp_path, expected: str) -> None:
    result = prepare("build", config)
    assert result.exit_code == 0, result.output
    assert digest(tmp_path) == expected
    assert left_over(tmp_path) == {"small"}
    assert prepare("verify", str(tmp_path / "data" / "small")).exit_code == 0


@pytest.mark.parametrize("dtype, compression", [("float32", "none"), ("float16", "bitshuffle-lz4")])
def test_any_number_of_jobs_gives_the_same_content(write_config, prepare, tmp_path, dtype, compression):
    config = write_config(image__dtype=dtype, image__compression=compression, shard=7)
    prepare("select", config)
    expected = whole(config, prepare, tmp_path)
    for jobs in (2, 5):
        command = [sys.executable, "-m", "prepare", "build", config, "--jobs", str(jobs), "--force"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("content digest") == 1 and done.stdout.count("run 69: left out") == 1
        assert digest(tmp_path) == expected and left_over(tmp_path) == {"small"}


@pytest.mark.parametrize("which", [0, 1, 2, "first"])
def test_a_killed_process_ends_the_build_and_another_goes_on(ready, prepare, tmp_path, expected, which):
    """One of those that share the work, or the first, which started them."""
    process = slowed(ready)
    processes = pids(tmp_path)
    assert process.pid not in processes
    killed = process.pid if which == "first" else processes[which]
    os.kill(killed, signal.SIGKILL)
    _, errors = process.communicate(timeout=HANGS)
    all_end(processes)
    if which != "first":
        assert process.returncode == 2
        assert f"process {killed} of --jobs 3 was ended by SIGKILL" in errors
        assert errors.count("\n") == 1
    assert left_over(tmp_path) <= {"small.building"}
    goes_on(prepare, ready, tmp_path, expected)


@pytest.mark.parametrize("number", ["0000", "0002"])
def test_a_process_that_fails_ends_the_build_with_its_line(ready, prepare, tmp_path, expected, number):
    process = slowed(ready, PAUSE="0.05", FAIL=number)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 2
    assert f"small-{number}.h5: No space left on device" in errors
    assert errors.count("\n") == 1
    goes_on(prepare, ready, tmp_path, expected)


def test_files_that_others_made_before_one_failed_are_kept(write_config, prepare, tmp_path):
    config = write_config(shard=5)
    prepare("select", config)
    expected = whole(config, prepare, tmp_path)
    process = slowed(config, PAUSE="0.01", FAIL="0005")
    _, errors = process.communicate(timeout=HANGS)
    assert "is kept in" in errors
    assert "files are there already" in prepare("build", config).output
    assert digest(tmp_path) == expected


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_all_stops_all_with_one_line(ready, prepare, tmp_path, expected, number, code):
    """As from Slurm or the terminal."""
    process = slowed(ready)
    processes = pids(tmp_path)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == code
    assert errors.count("\n") == 1 and "prepare build" in errors
    all_end(processes)
    goes_on(prepare, ready, tmp_path, expected)


def test_a_signal_ends_processes_that_were_stopped(ready, tmp_path):
    process = slowed(ready)
    processes = pids(tmp_path)
    os.kill(processes[1], signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 143
    assert errors.count("\n") == 1 and "prepare build" in errors
    all_end(processes)


def test_only_the_first_process_listens_to_signals(ready, prepare, tmp_path, expected):
    process = slowed(ready)
    for pid in pids(tmp_path):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 0, errors
    assert digest(tmp_path) == expected


def test_a_mistake_is_told_once(write_config, ready, prepare):
    assert prepare("build", ready).exit_code == 0
    changed = write_config(shard=10, image__log=False)
    command = [sys.executable, "-m", "prepare", "build", changed, "--jobs", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 2
    assert "exists already" in done.stderr and done.stderr.count("\n") == 1


def test_the_shell_that_a_launcher_started_is_one_process(ready, prepare, tmp_path, expected):
    """`srun -n 4 --pty bash` has the variables of four; without a terminal they are believed."""
    command = [sys.executable, "-m", "prepare", "build", ready, "--jobs", "2"]
    environment = {**os.environ, "SLURM_STEP_NUM_TASKS": "4"}
    shell, terminal = os.openpty()
    try:
        done = subprocess.run(command, env=environment, stdin=terminal, capture_output=True, timeout=HANGS)
    finally:
        os.close(shell)
        os.close(terminal)
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path) == expected


def test_that_shell_without_a_terminal(ready, prepare, tmp_path):
    """`nohup ... &` in it: there is no mpi4py to ask, and the shell says of itself that it is one."""
    environment = {**os.environ, "SLURM_STEP_NUM_TASKS": "4", "SLURM_PTY_PORT": "40000"}
    code = (
        "import sys; sys.modules['mpi4py'] = None\n"
        "from common.start import start; start('prepare', 'xtcav-prepare')"
    )
    command = [sys.executable, "-c", code, "build", ready]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    del environment["SLURM_PTY_PORT"]
    done = subprocess.run(
        [*command, "--force"], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "4 processes were started, and mpi4py" in done.stderr


def test_a_limit_of_processes_is_one_line(prepare):
    """`ulimit -u`, which does not bind root: root becomes a user of whom nothing else runs."""
    as_user, theirs = [], sum(map(threads_of, Path("/proc").glob("[0-9]*")))
    with tempfile.TemporaryDirectory() as folder:  # pytest's, and this repository, may be closed to others
        source = Path(shutil.copytree(XTC1 / "experiment", Path(folder, "experiment")))
        config = Path(folder, "small.yaml")
        config.write_text(yaml.safe_dump({**settings(Path(folder), source), "shard": 10}, sort_keys=False))
        assert prepare("select", str(config)).exit_code == 0
        if os.getuid() == 0:
            user = 100_000 + os.getpid()  # not that of the same test beside this one
            rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]  # to read Python and this
            as_user, theirs = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *rights], 0
            for path in (folder, *Path(folder).rglob("*")):
                os.chown(path, user, user)
        some = 14 + min(os.cpu_count() or 1, 64)  # of which a command asks for 7 and one for each core
        codes = []
        for jobs in (some, some // 2, some // 2 - 1, 2):  # each process has one more thread
            done = subprocess.run(
                [*as_user, sys.executable, "-m", "prepare", "build", config, "--force", "--jobs", str(jobs)],
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (theirs + some,) * 2),
                capture_output=True, text=True, timeout=HANGS,
            )  # fmt: skip
            codes.append(done.returncode)
            if done.returncode:
                assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
                assert "no more processes or threads can be started" in done.stderr
        assert codes[:3] == [2, 2, 2] and (theirs or codes[3] == 0)


def threads_of(process: Path) -> int:
    """How many threads a process has, if it is of this user."""
    try:
        if process.stat().st_uid == os.getuid():
            return len(list((process / "task").iterdir()))
    except OSError:  # it has ended
        pass
    return 0


# --- the executor ----------------------------------------------------------------------------------


def double(n: int) -> int:
    if n == 13:
        raise ValueError("unlucky")
    return 2 * n


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_are_those_of_one_process(jobs):
    with parallel.executor(jobs) as workers:
        assert sorted(parallel.results(workers, double, [(n,) for n in range(10)])) == list(range(0, 20, 2))
        with pytest.raises(ValueError, match="unlucky"):
            list(parallel.results(workers, double, [(n,) for n in range(10, 20)]))


def test_work_is_begun_in_its_order():
    with parallel.executor(1) as workers:
        assert list(parallel.results(workers, double, [(n,) for n in (5, 3, 4)])) == [10, 6, 8]
