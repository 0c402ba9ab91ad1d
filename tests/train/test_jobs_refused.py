"""`--jobs N` of the commands that train and predict, where the system refuses processes or threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.jobs import FAILING, JOBS, refused
from tests.limits import HANGS
from tests.train.test_ranks import MPIRUN


@pytest.mark.parametrize(
    ("command", "failing"),
    [
        (["sweep", "none.yaml"], {"fork": "2 EAGAIN"}),
        (["controls", "none.yaml"], {"thread": "0 1"}),
        (["predict", "none", "none.h5"], {"thread": "0 2"}),
        (["evaluate", "none"], {"thread": f"{JOBS} 1"}),
    ],
)
def test_refused_processes_are_one_line(command, failing):
    assert "ulimit -u" in refused("train", *command, **failing)


def test_a_refused_thread_of_the_first_rank_ends_all_ranks():
    done = subprocess.run(
        [str(MPIRUN), "-n", "2", sys.executable, "-c", FAILING, "train", "sweep", "none.yaml"],
        env={**os.environ, "THREAD": "0 1"}, capture_output=True, text=True, timeout=HANGS,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if "ulimit -u" in line and line.startswith("error: ")]
