"""The lock on an output: one process at a time, and the dead do not count."""

from __future__ import annotations

import subprocess
import sys

import pytest

from common.errors import OutputBusy
from common.files.lock import only_one

HOLD = """
import sys, time
from common.files.lock import only_one
with only_one(sys.argv[1], "out"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_refused_by_name(holder, tmp_path):
    wanted = f"out: is being worked on by process {holder.pid} on "
    with pytest.raises(OutputBusy, match=wanted), only_one(tmp_path / "lock", "out"):
        pass


def test_the_lock_of_a_dead_process_is_free(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").exists()
    with only_one(tmp_path / "lock", "out"):
        pass
    assert not (tmp_path / "lock").exists()


def test_one_after_the_other(tmp_path):
    for _ in range(2):
        with only_one(tmp_path / "lock", "out"):
            assert (tmp_path / "lock").read_text().startswith("process ")
