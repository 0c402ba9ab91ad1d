"""The batch scripts: what they run, and that a job that is stopped queues itself again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.limits import HANGS

SCRIPTS = Path(__file__).parents[2] / "configs" / "slurm"
COMMANDS = {
    "prepare": "-m prepare build configs/prepare/demo.yaml",
    "train": "-m train fit configs/train/demo.yaml --resume",
}


@pytest.fixture
def start(tmp_path):
    """Start a script with stand-ins for python, mpirun, srun and scontrol that note how they were called."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    called = tmp_path / "called"
    texts = {
        "python": f'echo "python $*" >> {called}; trap "exit 143" TERM\n'
        'for i in $(seq 100); do [ -z "$HOLD" ] && break; sleep 0.1; done; exit "$CODE"',
        "mpirun": f'echo "mpirun $1 $2" >> {called}; shift 2; exec "$@"',
        "srun": f'echo "srun $1" >> {called}; shift; exec "$@"',
        "scontrol": f'echo "scontrol $*" >> {called}',
    }
    for name, text in texts.items():
        (stubs / name).write_text(f"#!/bin/bash\n{text}\n")
        (stubs / name).chmod(0o755)

    def run(name: str, code: int = 0, hold: str = "", tasks: int = 3) -> subprocess.Popen:
        environment = {
            **os.environ,
            "PATH": f"{stubs}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "77",
            "SLURM_NTASKS": str(tasks),
            "CODE": str(code),
            "HOLD": hold,
        }
        script = SCRIPTS / f"{name}.sbatch"
        config = COMMANDS[name].split()[3]
        return subprocess.Popen(["bash", str(script), config], env=environment, cwd=tmp_path)

    run.called = called
    return run


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("code", [0, 2])
def test_a_job_that_ends_by_itself_is_not_queued_again(start, name, code):
    assert start(name, code).wait(HANGS) == code
    calls = start.called.read_text()
    assert f"python {COMMANDS[name]}" in calls
    assert ("mpirun -n 3" if name == "prepare" else "srun --kill-on-bad-exit=1") in calls
    assert "scontrol" not in calls


@pytest.mark.parametrize("name", COMMANDS)
def test_a_job_that_is_stopped_queues_itself_again(start, name):
    job = start(name, hold="1")
    deadline = time.monotonic() + HANGS
    while not (start.called.exists() and "python" in start.called.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)  # until the stand-in is ready for the signal
    job.send_signal(signal.SIGTERM)
    assert job.wait(HANGS) == 143
    assert "scontrol requeue 77" in start.called.read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_header_reserves_and_asks_for_notice(name):
    text = (SCRIPTS / f"{name}.sbatch").read_text()
    for option in ("--cpus-per-task=", "--ntasks=", "--signal=B:TERM@", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {option}" in text


def test_a_training_of_one_task_needs_no_srun(start):
    assert start("train", tasks=1).wait(HANGS) == 0
    assert "srun" not in start.called.read_text()
