"""Progress where there is no terminal: a line now and then, and none where it is not wanted."""

from __future__ import annotations

import pytest

from common import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set forth, with no terminal and the usual loudness."""
    times = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[0])
    monkeypatch.setattr(progress.voice, "loudness", progress.NORMAL)
    return times


def work(clock: list, seconds: int) -> None:
    with progress.bar(None, "sweep", "run", total=8) as bar:
        for _ in range(seconds):
            clock[0] += 1
            bar.update(0)


def test_a_line_every_ten_seconds_and_rarer_in_hours(clock, capsys):
    work(clock, 35)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"sweep: 0 of 8 runs after {n} s" for n in (10, 20, 30)]
    work(clock, 20_000)
    assert 150 < len(capsys.readouterr().err.splitlines()) < 400  # not 2,000


def test_quiet_has_none(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.voice, "loudness", progress.QUIET)
    work(clock, 35)
    assert capsys.readouterr().err == ""
