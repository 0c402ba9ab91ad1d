"""xtc2 files through the real psana 2, against the native reader on the XTC files of the same shots."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psana
import pytest
from psana.psexp.ds_base import DataSourceBase

from common.shots import GAS_DETECTOR_UNITS
from prepare.shots import DAMAGED, NO_FRAME, USABLE
from prepare.sources import psana2_calls
from prepare.sources.native import XtcSource
from tests.psana.conftest import ADDRESS, CAMERA_FILE, CAMERA_SMALL, open_psana2, usable

# --- the same as the native reader ---------------------------------------------------------------


@pytest.mark.parametrize("run", [68, 69, 70])
def test_lists_the_same_shots_bit_for_bit(folder, both_formats, run):
    native = XtcSource(str(both_formats), ADDRESS).shots(run)
    assert set(native["status"]) == {USABLE, NO_FRAME, DAMAGED}
    assert open_psana2(folder).shots(run).tobytes() == native.tobytes()


@pytest.mark.parametrize("run", [68, 69, 70])
@pytest.mark.parametrize("step", [1, 7])
def test_gives_the_same_frames_bit_for_bit(folder, both_formats, run, step):
    native, source = XtcSource(str(both_formats), ADDRESS), open_psana2(folder)
    indices = range(0, len(native.shots(run)), step)
    expected = native.frames(run, indices)
    for taken in source.frames(run, indices):
        wanted = next(expected)
        assert (taken.index, taken.reason) == (wanted.index, wanted.reason)
        assert (taken.frame is None) == (wanted.frame is None)
        if taken.frame is not None:
            assert taken.frame.dtype == wanted.frame.dtype
            assert np.array_equal(taken.frame, wanted.frame)
            assert not taken.frame.flags.writeable
    assert next(expected, None) is None


@pytest.mark.parametrize("camera", [ADDRESS, "xtcav"])
def test_the_camera_by_address_or_name(both_formats, camera):
    assert len(usable(open_psana2(both_formats, camera), 70)) > 30


def test_runs_and_files(folder):
    source = open_psana2(folder)
    assert source.runs() == (68, 69, 70)
    assert source.files(70) == tuple(
        (f"amo86815-r0070-s{s:03d}-c000.xtc2", (folder / f"amo86815-r0070-s{s:03d}-c000.xtc2").stat().st_size)
        for s in (0, 1)
    )


def rename(path: Path, names: dict) -> None:
    """Call detectors or fields in an xtc2 file otherwise; in its Configure names end with a 0."""
    raw = path.read_bytes()
    for old, new in names.items():
        width = max(len(old), len(new)) + 1
        found = re.escape(old.encode()) + b"\0" + b"." * (width - len(old) - 1)
        raw, count = re.subn(found, new.encode().ljust(width, b"\0"), raw, flags=re.DOTALL)
        assert count
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "names",
    [{"ebeam": "ebeamh"}, {name: name.replace("_", "") for name in GAS_DETECTOR_UNITS}],
    ids=["h", "f11"],
)
def test_records_under_their_other_names(runs, names):
    """The hard X-ray line's beam, and the gas detector's fields as LCLS-II's DAQ spells them."""
    for path in (runs / CAMERA_FILE, runs / CAMERA_SMALL):
        rename(path.with_name(path.name.replace("s000", "s001")), names)
    native = XtcSource(str(runs), ADDRESS).shots(70)
    assert open_psana2(runs).shots(70).tobytes() == native.tobytes()
    assert not np.isnan(native["f_11_ENRC"]).all()


def test_of_two_electron_beams_the_one_that_is_left_out_is_named(capsys):
    assert psana2_calls.records_in(70, {"ebeam", "gmd", "xtcav"}) == ["ebeam", "gmd"]
    assert psana2_calls.records_in(70, {"ebeamh"}) == ["ebeamh"]
    assert capsys.readouterr().err == ""
    assert psana2_calls.records_in(70, {"ebeam", "ebeamh"}) == ["ebeam"]
    assert "run 70: has the records of two electron beams; ebeam is kept, ebeamh" in capsys.readouterr().err


# --- as a psana user reads them ------------------------------------------------------------------


def plain_loop(run, camera) -> dict:
    frames = {}
    for event in run.events():
        frame = camera.raw.raw(event)
        if frame is not None and not any(d is not None and d._xtc.damage for d in event._dgrams):
            frames[event.timestamp] = np.array(frame)
    return frames


@pytest.mark.parametrize("how", ["files", "exp"])
def test_simulated_files_read_by_psana_itself(both_formats, monkeypatch, how):
    """Nothing of the source under test: psana's DataSource, Detector and event loop."""
    monkeypatch.setattr(DataSourceBase, "_get_file_info_from_db", lambda *_: {})  # the logbook
    if how == "files":
        source = psana.DataSource(files=str(both_formats / CAMERA_FILE), skip_calib_load="all")
    else:
        source = psana.DataSource(exp="amo86815", run=70, dir=str(both_formats), skip_calib_load="all")
    run = next(source.runs())
    assert (run.expt, run.runnum) == ("amo86815", 70)
    frames = plain_loop(run, run.Detector("xtcav"))
    native = XtcSource(str(both_formats), ADDRESS)
    shots = native.shots(70)
    assert len(frames) == (shots["status"] == USABLE).sum()
    for i in usable(native, 70):
        key = int(shots["seconds"][i]) << 32 | int(shots["nanoseconds"][i])
        assert np.array_equal(frames[key], native.frame(70, i))


def test_psana_does_not_split_events_over_ranks_nor_take_the_exception_hook():
    code = (
        "import sys\n"
        "from prepare.sources.psana import import_psana\n"
        "hook = sys.excepthook\n"
        "assert import_psana('psana2').psexp.tools.mode == 'none'\n"
        "assert sys.excepthook is hook\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PS_PARALLEL"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- only what is needed is read -----------------------------------------------------------------


def test_reads_only_the_frames_that_are_wanted(both_formats, monkeypatch, capsys):
    source = open_psana2(both_formats)
    wanted = usable(source, 70)[3:40:9]
    asked = []
    reader = psana2_calls.frame_reader

    def counting(*args):
        read = reader(*args)
        return lambda event: asked.append(event.timestamp) or read(event)

    monkeypatch.setattr(psana2_calls, "frame_reader", counting)
    assert [t.index for t in source.frames(70, wanted) if t.frame is not None] == wanted
    assert len(asked) == len(wanted)
    assert capsys.readouterr().err == ""


def test_shots_without_a_frame_alone_ask_psana_for_nothing(both_formats, monkeypatch):
    """An empty array of timestamps would be no filter to psana: it would read the whole run."""
    source = open_psana2(both_formats)
    lost = np.flatnonzero(source.shots(70)["status"] != USABLE).tolist()
    monkeypatch.setattr(psana2_calls, "open_run", None)
    assert [t.index for t in source.frames(70, lost)] == lost
    assert list(source.frames(70, [])) == []


def test_without_small_data_it_says_so_once_and_stops_at_the_last_one_wanted(runs, monkeypatch, capsys):
    shutil.rmtree(runs / "smalldata")
    source = open_psana2(runs)
    wanted = usable(source, 70)[:2]
    for _ in range(2):
        assert [t.frame is None for t in source.frames(70, wanted)] == [False, False]
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "run 70: " in warning
    assert "smd.xtc2 is not there" in warning
    assert "slower" in warning


def test_without_small_data_requests_that_go_forward_are_one_pass(runs, monkeypatch):
    """As the files of a data set are made; a request that goes back starts again."""
    shutil.rmtree(runs / "smalldata")
    source, opened, open_file = open_psana2(runs), [], psana2_calls.open_file
    wanted = usable(source, 70)[:9]
    expected = [result.frame for result in open_psana2(runs).frames(70, wanted)]
    monkeypatch.setattr(psana2_calls, "open_file", lambda *args: opened.append(args) or open_file(*args))
    frames = [result.frame for n in range(3) for result in source.frames(70, wanted[3 * n : 3 * n + 3])]
    assert len(opened) == 1
    assert all(np.array_equal(a, b) for a, b in zip(frames, expected))
    again = [result.frame for result in source.frames(70, wanted[1:2])]
    assert len(opened) == 2 and np.array_equal(again[0], expected[1])


def test_one_small_data_file_missing_is_as_good_as_none(runs, capsys):
    (runs / CAMERA_SMALL).unlink()
    source = open_psana2(runs)
    assert all(t.frame is not None for t in source.frames(70, usable(source, 70)))
    assert CAMERA_SMALL in capsys.readouterr().err
