"""`--jobs N` of the commands that train and predict, where the system refuses processes or threads."""

from __future__ import annotations

import pytest

from tests.jobs import JOBS, refused


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
