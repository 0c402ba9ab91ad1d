"""What can be wrong with xtc2 files, and files that this project did not write, through the real psana 2."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from common.shots import ID_FIELDS, RECORD_DTYPE
from prepare.formats import xtc2
from prepare.shots import NO_FRAME
from prepare.sources import psana2_calls
from prepare.sources.native import XtcSource
from tests.psana.conftest import ADDRESS, CAMERA_FILE, CAMERA_SMALL, open_psana2, usable

# --- what is wrong with the files ----------------------------------------------------------------


def truncate(path: Path, share: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * share))


@pytest.mark.parametrize("small_data", [True, False])
def test_a_cut_off_file_says_so_and_has_no_frames_after(runs, capsys, small_data):
    native = XtcSource(str(runs), ADDRESS).shots(70)
    truncate(runs / CAMERA_FILE)
    if not small_data:
        shutil.rmtree(runs / "smalldata")
    source = open_psana2(runs)
    shots = source.shots(70)
    assert "the last datagram is cut off; its stream ends here" in capsys.readouterr().err
    there = np.flatnonzero(shots["status"] != NO_FRAME)
    assert len(shots) == len(native) == 60
    assert 20 < there[-1] < 40
    assert np.array_equal(shots["status"][: there[-1] + 1], native["status"][: there[-1] + 1])
    assert [t.index for t in source.frames(70, usable(source, 70)) if t.frame is not None] == usable(
        source, 70
    )


@pytest.mark.parametrize("small_data", [True, False])
def test_a_file_that_ends_before_a_shot_it_had_is_an_error(runs, small_data):
    """psana 2 ends its loop there without an exception."""
    if not small_data:
        shutil.rmtree(runs / "smalldata")
    source = open_psana2(runs)
    wanted = usable(source, 70)
    truncate(runs / CAMERA_FILE)
    with pytest.raises(
        DataError, match=rf"run 70: psana 2: ended after \d+ of {len(wanted)} shots; is a file cut"
    ):
        list(source.frames(70, wanted))


@pytest.mark.parametrize("small_data", [True, False])
def test_a_cut_off_file_of_records_is_one_line(runs, prepare, write_config, small_data):
    records = runs / CAMERA_FILE.replace("s000", "s001")
    truncate(records, 0.9)
    if not small_data:
        shutil.rmtree(runs / "smalldata")
    result = prepare("list", write_config(runs))
    assert result.exit_code == 2
    assert f"error: {records}: offset " in result.output.splitlines()[-1]


def test_records_that_psana_leaves_out_are_an_error(both_formats, monkeypatch):
    open_run = psana2_calls.open_run

    def ends_early(*args, **chosen):
        run = open_run(*args, **chosen)
        events = run.events
        run.events = lambda: itertools.islice(events(), 20)
        return run

    monkeypatch.setattr(psana2_calls, "open_run", ends_early)
    with pytest.raises(DataError, match="run 70: psana 2 gave the records of 20 of 60 shots"):
        open_psana2(both_formats).shots(70)


@pytest.mark.parametrize("bytes_left", [-30 * 76, 20_000, 100, 0])
def test_a_cut_off_small_data_file_is_one_line(runs, prepare, write_config, bytes_left):
    small = runs / CAMERA_SMALL
    os.truncate(small, bytes_left if bytes_left >= 0 else small.stat().st_size + bytes_left)
    result = prepare("list", write_config(runs))
    assert result.exit_code == 2
    assert f"error: {small}: " in result.output.splitlines()[-1]


def test_small_data_of_another_run_are_one_line(runs, prepare, write_config):
    shutil.copy(runs / CAMERA_SMALL.replace("r0070", "r0069"), runs / CAMERA_SMALL)
    result = prepare("list", write_config(runs))
    assert result.exit_code == 2
    assert f"error: {runs / CAMERA_SMALL}: has not the" in result.output


@pytest.mark.parametrize("content", [b"", b"no xtc2 file at all, whatever its name says" * 9])
def test_a_file_that_is_not_xtc2_is_one_line(runs, prepare, write_config, content):
    (runs / CAMERA_FILE).write_bytes(content)
    result = prepare("list", write_config(runs))
    assert result.exit_code == 2
    assert f"error: {runs / CAMERA_FILE}: " in result.output.splitlines()[-1]


def test_a_filter_that_did_not_apply_is_an_error(both_formats, monkeypatch):
    source = open_psana2(both_formats)
    open_run = psana2_calls.open_run
    monkeypatch.setattr(psana2_calls, "open_run", lambda *a, timestamps=None, **k: open_run(*a, **k))
    with pytest.raises(DataError, match="which was not asked for: its filter did not apply"):
        list(source.frames(70, usable(source, 70)[1:4]))


def test_the_filter_is_a_sorted_unique_uint64_array(both_formats, monkeypatch):
    source = open_psana2(both_formats)
    given = []
    open_run = psana2_calls.open_run

    def watch(*args, **chosen):
        given.append(chosen["timestamps"])
        return open_run(*args, **chosen)

    wanted = usable(source, 70)
    monkeypatch.setattr(psana2_calls, "open_run", watch)
    list(source.frames(70, wanted))
    (times,) = given
    assert isinstance(times, np.ndarray)
    assert times.dtype == np.uint64
    assert np.array_equal(times, np.unique(times))
    assert len(times) == len(wanted)


def test_a_detector_that_is_not_there_is_one_line(prepare, write_config, both_formats):
    result = prepare("list", write_config(both_formats, camera__address="ytcav"))
    assert result.exit_code == 2
    expected = "run 68: no detector 'ytcav' (camera.address); psana 2 finds ebeam, gasdet, timing, xtcav"
    assert expected in result.output


def test_a_run_that_is_not_there(both_formats):
    with pytest.raises(DataError, match="no xtc2 files of run 99; runs there: 68, 69, 70"):
        open_psana2(both_formats).shots(99)


# --- files that this project did not write -------------------------------------------------------


def write_camera_run(folder: Path, times: list, pulse=None, frame=None, begin=True, gmd=None) -> None:
    """A run 5 of one stream: psana's test camera; with `pulse` a timing detector; a gmd with field `gmd`."""
    from psana.dgramCreate import CyDgram, alg, nameinfo

    info = nameinfo("runinfo", "runinfo", "", 0), alg("runinfo", [0, 0, 1])
    camera = nameinfo("xtcav", "camera", "serial1234", 1), alg("raw", [0, 0, 1])
    timing = nameinfo("timing", "ts", "serial1234", 2), alg("raw", [2, 1, 0])
    monitor = nameinfo("gmd", "gmd", "serial1234", 3), alg("raw", [2, 1, 0])
    datagram = CyDgram()
    with (folder / "amo86815-r0005-s000-c000.xtc2").open("wb") as file:
        transitions = [(1, xtc2.CONFIGURE), (2, xtc2.BEGIN_RUN)][: 1 + begin]
        for time, transition in [*transitions, *((t, xtc2.L1_ACCEPT) for t in times)]:
            if transition != xtc2.L1_ACCEPT:
                datagram.addDet(*info, {"expt": "amo86815", "runnum": 5})
            if transition != xtc2.BEGIN_RUN:
                datagram.addDet(*camera, {"array": np.full((4, 6), time & 0xFF, np.uint16)})
                if pulse is not None:
                    datagram.addDet(*timing, {"pulseId": np.uint64(pulse)})
                if gmd is not None:
                    datagram.addDet(*monitor, {gmd: (time & 0xFF) / 4})
            file.write(datagram.get(time, transition))


def test_psanas_test_camera_without_beam_data(tmp_path, both_formats):
    # psana keeps one object for all detectors of a name and would give that of this opal again.
    assert next(open_psana2(both_formats, "xtcav").frames(70, [0])).index == 0
    write_camera_run(tmp_path, [100 << 32 | 7, 100 << 32 | 9, 101 << 32 | 1])
    source = open_psana2(tmp_path, "xtcav")
    shots = source.shots(5)
    keys = [(5, 100, 7, 0), (5, 100, 9, 0), (5, 101, 1, 0)]  # fiducial 0: there is none
    assert shots[list(ID_FIELDS)].tolist() == keys
    assert all(np.isnan(shots[name]).all() for name in RECORD_DTYPE.names)
    assert [t.frame.tolist() for t in source.frames(5, [0, 2])] == [[[7] * 6] * 4, [[1] * 6] * 4]


@pytest.mark.parametrize("pulse, fiducial", [(1 << 63 | 4711, 4711), (4711, 4711), (4_000_000_000_000, 0)])
def test_the_fiducial_is_lcls1s_pulse_id_or_0(tmp_path, pulse, fiducial):
    write_camera_run(tmp_path, [100 << 32 | 7], pulse)
    assert open_psana2(tmp_path, "xtcav").shots(5)["fiducial"].tolist() == [fiducial]


@pytest.mark.parametrize("field", ["milliJoulesPerPulse", "millijoulesperpulse", "energy"])
def test_the_gas_monitor_detector_of_the_soft_line(tmp_path, field, capsys):
    write_camera_run(tmp_path, [100 << 32 | 7, 100 << 32 | 9], gmd=field)
    assert open_psana2(tmp_path, "xtcav").shots(5)["milliJoulesPerPulse"].tolist() == [1.75, 2.25]
    assert "psana 2 has no" not in capsys.readouterr().err


def test_a_record_whose_fields_are_not_known_is_named(tmp_path, capsys):
    write_camera_run(tmp_path, [100 << 32 | 7], gmd="intensity")
    assert np.isnan(open_psana2(tmp_path, "xtcav").shots(5)["milliJoulesPerPulse"]).all()
    assert (
        "run 5: psana 2 has no milliJoulesPerPulse of detector 'gmd'; it is missing from the records"
        in capsys.readouterr().err
    )


def test_a_run_without_events_is_an_error(tmp_path):
    write_camera_run(tmp_path, [])
    with pytest.raises(DataError, match="run 5: has no events"):
        open_psana2(tmp_path, "xtcav").shots(5)


def test_a_file_without_begin_run_is_an_error(tmp_path):
    write_camera_run(tmp_path, [100 << 32 | 7], begin=False)
    source = open_psana2(tmp_path, "xtcav")
    with pytest.raises(DataError, match=r"r0005-s000-c000.xtc2: psana 2 finds no BeginRun"):
        list(source.frames(5, [0]))
