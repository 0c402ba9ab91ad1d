"""xtc2 files through the real psana 2, against the native reader on the XTC files of the same shots."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import psana
import pytest
from psana.psexp.ds_base import DataSourceBase

from common.errors import DataError
from common.shots import GAS_DETECTOR_UNITS, ID_FIELDS, RECORD_DTYPE
from prepare.formats import xtc2
from prepare.shots import DAMAGED, NO_FRAME, USABLE
from prepare.simulate import xtc2 as writer
from prepare.sources import psana2_calls
from prepare.sources.native import XtcSource
from prepare.sources.psana2 import Psana2Source
from tests.psana.test_ranks import ENVIRONMENT, MPIRUN

ADDRESS = "XrayTransportDiagnostic.0:Opal1000.0"
CAMERA_FILE = "amo86815-r0070-s000-c000.xtc2"
CAMERA_SMALL = "smalldata/amo86815-r0070-s000-c000.smd.xtc2"


def open_psana2(folder: Path, camera: str = ADDRESS) -> Psana2Source:
    return Psana2Source(psana, "amo86815", str(folder), camera)


def usable(source, run: int) -> list:
    return np.flatnonzero(source.shots(run)["status"] == USABLE).tolist()


@pytest.fixture(params=["with small data", "without"])
def folder(request, both_formats, tmp_path) -> Path:
    if request.param == "with small data":
        return both_formats
    for path in both_formats.glob("*.xtc2"):
        shutil.copy(path, tmp_path)
    return tmp_path


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


# --- the commands --------------------------------------------------------------------------------


def datasets(path: Path) -> dict:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda n, o: found.update({n: o[...]}) if isinstance(o, h5py.Dataset) else None)
    return found


def test_a_data_set_through_psana_is_the_native_readers(
    prepare, write_config, folder, both_formats, tmp_path
):
    made = []
    for kind, place in (("psana2", folder), ("xtc", both_formats)):
        config = write_config(place, kind)
        for command in ("select", "build"):
            result = prepare(command, config, "--force")
            assert result.exit_code == 0, result.output
        assert prepare("verify", str(tmp_path / "data" / "small.h5")).exit_code == 0
        made.append((tmp_path / "manifest" / "small.csv").read_text())
        made.append(datasets(tmp_path / "data" / "small.h5"))
    assert made[0] == made[2]
    assert set(made[1]) == set(made[3])
    for name in made[1]:
        np.testing.assert_array_equal(made[1][name], made[3][name])


def test_ranks_that_read_through_psana_make_the_same_file(prepare, write_config, both_formats, tmp_path):
    """Each rank is a serial psana of its own; psana's hook, which aborts all ranks, is not in place."""
    config = write_config(both_formats, "psana2")
    assert prepare("select", config).exit_code == 0
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "PS_PARALLEL"}
    digests = set()
    for ranks in (1, 3):
        command = [MPIRUN, "-n", str(ranks), sys.executable, "-m", "prepare", "build", config, "--force"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with h5py.File(tmp_path / "data" / "small.h5") as file:
            digests.add(file.attrs["content_digest"])
    assert len(digests) == 1


def test_check_psana_says_same(prepare, write_config, both_formats):
    for kind in ("psana", "xtc"):
        result = prepare("check-psana", write_config(both_formats, kind), "--shots", "30")
        assert result.exit_code == 0, result.output
        assert "pixels of 10 compared: same" in result.output
        assert "psana and the native reader give the same shots, records and pixels" in result.output


def damage_pixel(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_check_psana_says_differ(prepare, write_config, runs):
    damage_pixel(runs / CAMERA_FILE)
    result = prepare("check-psana", write_config(runs), "--shots", "180")
    assert result.exit_code == 1
    assert "difference: run 70: pixels differ at 1 shots: 14350" in result.output
    assert "run 69: " in result.output
    assert "psana and the native reader differ" in result.output


def test_check_psana_needs_both_formats(prepare, write_config, runs):
    for path in runs.glob("*.xtc"):
        path.unlink()
    result = prepare("check-psana", write_config(runs))
    assert result.exit_code == 2
    assert "no XTC files of run 68" in result.output


# --- writing -------------------------------------------------------------------------------------


def test_simulated_xtc2_runs_are_not_overwritten_unasked(prepare, write_config, runs):
    config = write_config(runs, "xtc")
    result = prepare("simulate", config, "--format", "xtc2")
    assert result.exit_code == 2
    assert "amo86815-r0068-s000-c000.xtc2: exists already" in result.output
    before = (runs / CAMERA_FILE).read_bytes()
    (runs / CAMERA_FILE).unlink()
    assert prepare("simulate", config, "--format", "xtc2", "--if-missing").exit_code == 0
    assert not (runs / CAMERA_FILE).exists()  # the run's other stream is there
    assert prepare("simulate", config, "--format", "xtc2", "--force").exit_code == 0
    assert (runs / CAMERA_FILE).stat().st_size == len(before)
    assert not list(runs.rglob("partial.*"))


def test_an_smdwriter_without_its_run_bit(runs, both_formats, monkeypatch):
    found = writer._smdwriter()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.X_OK)
    (runs / CAMERA_SMALL).unlink()
    writer._write_small_data(found, runs / CAMERA_FILE, runs / CAMERA_SMALL)
    again, first = (xtc2.read_headers(folder / CAMERA_SMALL) for folder in (runs, both_formats))
    assert np.array_equal(again.times, first.times)
    assert again.end == again.size == first.size


def test_what_smdwriter_says_is_the_error(runs, tmp_path):
    program = tmp_path / "smdwriter"
    program.write_text("#!/bin/sh\necho no space >&2\nexit 3\n")
    program.chmod(0o700)
    with pytest.raises(DataError, match="smdwriter exit code 3: no space"):
        writer._write_small_data(program, runs / CAMERA_FILE, tmp_path / "small")
