"""Processes of `--jobs N` that the system refuses: one line, exit code 2, nothing left running."""

from __future__ import annotations

import signal

import pytest

from tests.jobs import JOBS, refused, started
from tests.limits import HANGS


@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
@pytest.mark.parametrize("nth", [1, 2, JOBS])
def test_a_process_that_cannot_be_forked(error, nth):
    line = refused("prepare", "build", "none.yaml", fork=f"{nth} {error}")
    assert {"EAGAIN": "ulimit -u", "ENOMEM": "out of memory"}[error] in line


@pytest.mark.parametrize("nth", [1, 2])
def test_a_thread_of_the_first_process_that_cannot_be_started(nth):
    """The pool's manager, and the one that feeds its queue, which is started by the manager."""
    assert "ulimit -u" in refused("prepare", "build", "none.yaml", thread=f"0 {nth}")


@pytest.mark.parametrize("process", ["1", "2", str(JOBS), "any"])
def test_a_thread_of_another_process_that_cannot_be_started(process):
    assert "ulimit -u" in refused("prepare", "build", "none.yaml", thread=f"{process} 1")


def test_a_pipe_that_cannot_be_opened():
    assert "ulimit -n" in refused("prepare", "build", "none.yaml", pipe="3 EMFILE")


def test_a_process_that_is_killed_as_it_starts():
    assert "was ended as it started" in refused("prepare", "build", "none.yaml", stuck="killed")


def test_sigterm_ends_processes_that_are_stuck_as_they_start():
    with started("prepare", "build", "none.yaml", stuck="sleeping") as process:
        assert process.stdout.readline() == "stuck\n"
        process.terminate()
        _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.startswith("stopped by SIGTERM") and said.count("\n") == 1
