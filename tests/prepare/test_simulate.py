"""Simulated runs as files: their format, shots, damage, and what one seed gives."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest

from common.errors import ConfigError, OutputExists
from prepare.shots import DAMAGED, NO_FRAME, USABLE
from prepare.simulate import shots
from prepare.simulate.config import OpalCamera
from prepare.simulate.run import plan, simulate
from prepare.sources.native import XtcSource
from tests.prepare.simulated import config

PHY = 0x2E000300


def digests(paths) -> dict:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_one_seed_gives_byte_identical_files(tmp_path):
    first = digests(simulate(config(tmp_path / "a")))
    assert digests(simulate(config(tmp_path / "b"))) == first
    other = digests(simulate(config(tmp_path / "c", seed=2)))
    assert set(other) == set(first)
    assert all(other[name] != first[name] for name in first)


def test_the_chunks_change_nothing_but_the_files(tmp_path):
    whole, cut = config(tmp_path / "a"), config(tmp_path / "b", chunk_shots=7)
    simulate(whole)
    names = {path.name for path in simulate(cut)}
    assert {f"e815-r0069-s80-c{chunk:02d}.xtc" for chunk in range(9)} <= names
    a, b = (XtcSource(each.source.dir, each.camera.address) for each in (whole, cut))
    assert a.shots(69).tobytes() == b.shots(69).tobytes()
    for i in np.flatnonzero(a.shots(69)["status"] == USABLE)[::10]:
        assert np.array_equal(a.frame(69, i), b.frame(69, i))
    a.close(), b.close()


def test_nothing_is_overwritten_unasked(tmp_path):
    simulate(config(tmp_path))
    path = tmp_path / "xtc" / "e815-r0070-s80-c00.xtc"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExists, match="r0068"):
        simulate(config(tmp_path))
    assert simulate(config(tmp_path), if_missing=True) == []
    assert path.read_bytes() == b"mine"
    simulate(config(tmp_path), force=True)
    assert path.stat().st_size > 100_000


def test_an_interrupted_run_leaves_no_files(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shots, "frame", fail)
    with pytest.raises(KeyboardInterrupt):
        simulate(config(tmp_path))
    assert list((tmp_path / "xtc").iterdir()) == []


# --- the files, walked with nothing but struct ------------------------------------------------


def walk(raw: bytes):
    """(offset, seconds, nanoseconds, transition, fiducial, env, end) of every datagram."""
    at = 0
    while at < len(raw):
        ns, s, word2, word3, env = struct.unpack_from("<5I", raw, at)
        end = at + 20 + struct.unpack_from("<I", raw, at + 36)[0]
        yield at, s, ns, word2 >> 24 & 15, word3 & 0x1FFFF, env, end
        at = end
    assert at == len(raw)


def test_streams_have_the_transitions_and_the_clocks_of_real_ones(tmp_path):
    simulate(config(tmp_path, missing=0.0, damaged=0.0, clock_skew=3))
    streams = {n: (tmp_path / "xtc" / f"e815-r0070-s{n:02d}-c00.xtc").read_bytes() for n in (0, 1, 80)}
    events = {}
    for n, raw in streams.items():
        rows = list(walk(raw))
        other = [row[3] for row in rows if row[3] != 12]
        assert other == [4, 6, 8, 10, 11, 9, 7, 5]
        begin_run = next(row for row in rows if row[3] == 6)
        assert begin_run[5] == (70 if n < 80 else 0)
        events[n] = [row for row in rows if row[3] == 12]
        assert all(row[0] % 4 == 0 for row in rows)
    assert len(events[0]) == len(events[1]) == 30
    recorder = {row[4]: row for row in events[80]}
    for row in events[0] + events[1]:
        mine = recorder[row[4]]
        assert row[1] - mine[1] == 3
        assert mine[2] & 0x1FFFF == mine[4]
        assert mine[2] < 10**9
    fiducials = sorted(recorder)
    assert set(np.diff(fiducials)) == {3}


def test_the_first_frame_is_where_the_format_says(tmp_path):
    simulate(config(tmp_path, missing=0.0, damaged=0.0))
    raw = (tmp_path / "xtc" / "e815-r0068-s80-c00.xtc").read_bytes()
    at = next(row[0] for row in walk(raw) if row[3] == 12)
    assert struct.unpack_from("<5I", raw, at + 40)[3:] == (0x10001, 20 + 20 + 16 + 2 * 96 * 80)  # one Segment
    damage, log, phy, kind, extent = struct.unpack_from("<5I", raw, at + 60)
    assert (damage, log >> 24, phy, kind, extent) == (0, 1, PHY, 0x10002, 20 + 16 + 2 * 96 * 80)
    assert struct.unpack_from("<4I", raw, at + 80) == (80, 96, 12, 32)  # columns, rows, bits, offset
    pixels = np.frombuffer(raw, "<u2", 96 * 80, at + 96)
    assert 30 < pixels.mean() < 40


def test_missing_and_damaged_frames_are_as_configured(tmp_path):
    many = {"dark": 5, "nolasing": 400, "lasing": 5}
    simulate(config(tmp_path, shots=many, missing=0.2, damaged=0.1))
    status = XtcSource(str(tmp_path / "xtc"), "xtcav").shots(69)["status"]
    assert len(status) == 400
    assert 50 < (status == NO_FRAME).sum() < 110
    assert 15 < (status == DAMAGED).sum() < 55


def test_shots_follow_each_other_through_the_wrap_of_fiducials(tmp_path):
    simulate(config(tmp_path, rate=0.5, shots={"dark": 3, "nolasing": 250, "lasing": 3}))
    found = XtcSource(str(tmp_path / "xtc"), "xtcav").shots(69)
    assert len(found) == 250  # no shot was split in two, none joined to another
    assert found["fiducial"].max() > 130_000
    assert (found["fiducial"] < 131_040).all()
    assert (found["seconds"] - found["seconds"][0] == 2 * np.arange(250)).all()


def test_the_pattern_is_the_cameras_not_the_runs(tmp_path):
    simulate(config(tmp_path, shots={"dark": 40, "nolasing": 40, "lasing": 1}, missing=0.0, damaged=0.0))
    source = XtcSource(str(tmp_path / "xtc"), "xtcav")
    dark, beam = (np.mean([source.frame(run, i) for i in range(40)], axis=0) for run in (68, 69))
    source.close()
    edge = np.s_[:8]  # rows that the beam does not reach
    assert np.corrcoef(dark[edge].ravel(), beam[edge].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_a_planted_drift_is_the_only_other_difference_between_runs(tmp_path, strength):
    """Pixels without beam: alike in all runs, unless the config plants a difference."""
    simulate(
        config(
            tmp_path,
            shots={"dark": 5, "nolasing": 60, "lasing": 60},
            camera=OpalCamera(background_drift=strength),
        )
    )
    source = XtcSource(str(tmp_path / "xtc"), "xtcav")
    means = []
    for run in (69, 70):
        good = np.flatnonzero(source.shots(run)["status"] == USABLE)
        means.append(np.mean([source.frame(run, int(i))[:6].astype(float) for i in good], axis=0).mean())
    source.close()
    assert (abs(means[0] - means[1]) > 0.5) == bool(strength)


def test_unlabeled_runs_are_simulated_and_lase_where_asked(tmp_path):
    both = config(tmp_path, shots={"dark": 12, "nolasing": 60, "lasing": 60, "unlabeled": 9})
    both = both.model_copy(update={"runs": both.runs.model_copy(update={"unlabeled": [72, 73]})})
    simulated = both.simulate.model_copy(update={"unlabeled_lasing": [73]})
    plans = {each.run: each for each in plan(both.model_copy(update={"simulate": simulated}))}
    assert [(plans[run].what, plans[run].shots, plans[run].lasing) for run in (72, 73)] == [
        ("unlabeled", 9, False),
        ("unlabeled", 9, True),
    ]
    stray = both.simulate.model_copy(update={"unlabeled_lasing": [70]})
    with pytest.raises(ConfigError, match="unlabeled_lasing: run 70 is not one of runs.unlabeled"):
        plan(both.model_copy(update={"simulate": stray}))
