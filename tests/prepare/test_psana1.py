"""The psana 1 source against a stand-in that replays what the original psana gave for the same files."""

from __future__ import annotations

import json
import sys
import zlib

import h5py
import numpy as np
import pytest

from common.errors import DataError
from common.shots import ID_FIELDS
from prepare.shots import NO_FRAME, SHOT_DTYPE, USABLE
from prepare.sources.native import XtcSource
from prepare.sources.psana1 import Psana1Source
from tests.prepare.conftest import XTC1
from tests.prepare.stand_in import ADDRESS, Psana1
from tests.prepare.test_xtc_reader import RUNS


def open_source(folder: str, camera: str = ADDRESS) -> Psana1Source:
    return Psana1Source(Psana1(XTC1 / folder), "amo81515", str(XTC1 / folder), camera)


def usable(source: Psana1Source, run: int) -> list:
    return np.flatnonzero(source.shots(run)["status"] == USABLE).tolist()


@pytest.mark.parametrize("index_files", [True, False])
@pytest.mark.parametrize("camera", [ADDRESS, "xtcav"])
@pytest.mark.parametrize("folder, run, events", RUNS)
def test_gives_what_psana_gives(folder, run, events, camera, index_files):
    source = open_source(folder, camera)
    source._psana.index_files = index_files
    shots = source.shots(run)
    keys = list(zip(*(shots[name].tolist() for name in ID_FIELDS[1:])))
    expected = [json.loads(line) for line in (XTC1 / folder / events).read_text().splitlines()]
    assert keys == sorted((e["sec"], e["nsec"], e["fid"]) for e in expected)
    given = {keys[t.index]: t for t in source.frames(run, range(len(shots)))}
    for event in expected:
        taken = given[event["sec"], event["nsec"], event["fid"]]
        in_index = "ebeam_charge" in event or not index_files
        assert (taken.frame is not None) == ("crc32" in event and in_index)
        assert (taken.reason == "") == (taken.frame is not None)
        if taken.frame is not None:
            assert zlib.crc32(np.ascontiguousarray(taken.frame)) == int(event["crc32"], 16)


@pytest.mark.parametrize("folder, run, events", RUNS)
def test_lists_the_same_shots_as_the_native_reader(folder, run, events):
    shots, native = open_source(folder).shots(run), XtcSource(str(XTC1 / folder), ADDRESS).shots(run)
    for name in SHOT_DTYPE.names:
        if name == "status":  # psana does not tell damaged from missing
            assert np.array_equal(shots[name], np.where(native[name] == USABLE, USABLE, NO_FRAME))
        else:
            np.testing.assert_array_equal(shots[name], native[name])


def test_reads_no_frame_to_list_and_only_the_wanted_ones_after(capsys):
    source = open_source("experiment")
    psana = source._psana
    wanted = usable(source, 70)[3:30:9]
    assert psana.frames_read == 0
    assert [taken.index for taken in source.frames(70, wanted)] == wanted
    assert psana.frames_read == len(wanted)
    assert capsys.readouterr().err == ""


def test_without_index_files_it_reads_up_to_the_last_one_wanted_and_says_so(capsys):
    source = open_source("experiment")
    psana = source._psana
    wanted = usable(source, 70)[:3]
    psana.index_files, psana.events_read = False, 0
    for _ in range(2):
        assert [taken.frame is not None for taken in source.frames(70, wanted)] == [True] * 3
    assert psana.frames_read == 6
    assert psana.events_read == 2 * (wanted[-1] + 1)
    warning = capsys.readouterr().err
    assert warning.count("slower") == 1  # for a run once
    assert "run 70: no index files" in warning


def test_a_shot_that_only_the_cameras_stream_has_is_lost_by_index():
    """psana 1 has no time for it in index mode, and to ask for one is undefined (the stand-in stops)."""
    source = open_source("untidy")
    shots = source.shots(55)
    alone = np.flatnonzero((shots["status"] == USABLE) & np.isnan(shots["ebeamCharge"])).tolist()
    both = [*alone, usable(source, 55)[-1]]
    taken = list(source.frames(55, both))
    assert alone
    assert [t.reason for t in taken] == ["psana gave the shot without a frame"] * len(alone) + [""]


def test_no_frame_at_all_is_an_error_that_says_where_to_look():
    source = open_source("experiment")
    source._psana.camera_in_index = False
    with pytest.raises(DataError, match=r"run 70: psana 1: no frame in any of 5 shots; .*index/\*\.xtc\.idx"):
        list(source.frames(70, usable(source, 70)[:5]))


def test_an_empty_index_is_an_error():
    source = open_source("experiment")
    source._psana.times_in_index = False
    with pytest.raises(DataError, match="finds no times in its index files"):
        list(source.frames(70, usable(source, 70)[:5]))


def test_a_source_that_ends_early_is_an_error():
    source = open_source("experiment")
    wanted = usable(source, 70)
    source._psana.index_files, source._psana.ends_after = False, 20
    with pytest.raises(DataError, match=rf"ended after \d+ of {len(wanted)} shots"):
        list(source.frames(70, wanted))


def test_a_run_without_events_or_frames_is_an_error(monkeypatch):
    source = open_source("experiment")
    monkeypatch.setattr(source._psana, "ends_after", 0)
    with pytest.raises(DataError, match="run 70: psana 1 finds no events"):
        source.shots(70)
    with pytest.raises(DataError, match="run 70: no frame of camera 'ytcav'"):
        open_source("experiment", "ytcav").shots(70)


def test_a_run_that_is_not_there():
    with pytest.raises(DataError, match="run 99: no XTC files of it for psana 1; runs there: 68, 69, 70, 71"):
        open_source("experiment").shots(99)


def test_what_psana_cannot_open_is_one_line():
    source = open_source("experiment")
    del source._psana._runs[70]
    with pytest.raises(DataError, match="psana 1 cannot open 'exp=amo81515:run=70:smd:dir=.*': EmptyInput"):
        source.shots(70)


def test_a_camera_that_psana_does_not_know():
    source = open_source("experiment")
    source.shots(70)
    source._camera = "ytcav"
    with pytest.raises(DataError, match=r"run 70: psana 1 has no 'ytcav' .*: .*Unknown DetInfo"):
        list(source.frames(70, [usable(source, 70)[0]]))


@pytest.mark.parametrize("kind", ["psana", "psana1"])
def test_a_build_through_psana_has_the_native_builds_images(
    prepare, write_config, tmp_path, monkeypatch, kind
):
    monkeypatch.setitem(sys.modules, "psana", Psana1(XTC1 / "experiment"))
    assert prepare("select", write_config()).exit_code == 0
    files = []
    for read_by in (kind, "xtc"):
        result = prepare("build", write_config(source__kind=read_by), "--force")
        assert result.exit_code == 0, result.output
        with h5py.File(tmp_path / "data" / "small.h5") as file:
            files.append({name: file["train"][name][...] for name in ("images", "crc32", *ID_FIELDS)})
    for name in files[0]:
        assert np.array_equal(files[0][name], files[1][name])


def test_verify_without_psana_says_what_it_could_not_compare(prepare, write_config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psana", Psana1(XTC1 / "experiment"))
    config = write_config(source__kind="psana")
    assert prepare("select", config).exit_code == 0
    assert prepare("build", config).exit_code == 0
    path = str(tmp_path / "data" / "small.h5")
    assert "20 images computed again" in prepare("verify", path).output
    monkeypatch.setitem(sys.modules, "psana", None)
    result = prepare("verify", path)
    assert result.exit_code == 0
    assert "no image compared with the camera's files: source.kind 'psana': psana cannot be" in result.output


def test_check_psana_compares_ids_records_and_pixels(prepare, write_config, monkeypatch):
    psana = Psana1(XTC1 / "experiment")
    monkeypatch.setitem(sys.modules, "psana", psana)
    result = prepare("check-psana", write_config(source__kind="psana1"), "--shots", "40")
    assert result.exit_code == 0, result.output
    assert result.output.count("pixels of 10 compared: same") == 4
    assert "give the same shots, records and pixels" in result.output


@pytest.mark.parametrize(
    "change, line",
    [
        ("pixels", "run 70: pixels differ at 10 shots: 1435000000."),
        ("ids", "run 70: only the native reader has 1 shots: 1435000000.283456789 fiducial 1062"),
        (
            "frames",
            "run 70: a frame by the native reader alone at 1 shots: 1435000000.283456789 fiducial 1062",
        ),
        ("records", "run 70: ebeamCharge differs at 1 shots: 1435000000.283456789 fiducial 1062"),
    ],
)
def test_check_psana_says_what_differs(prepare, write_config, monkeypatch, change, line):
    psana = Psana1(XTC1 / "experiment")
    monkeypatch.setitem(sys.modules, "psana", psana)
    events = psana._runs[70]
    if change == "pixels":
        raw = psana._raw
        monkeypatch.setattr(psana, "_raw", lambda e, made_for: raw(e, made_for) + (e.record["run"] == 70))
    elif change == "ids":
        del events[0]
    elif change == "frames":
        del events[0].record["crc32"]
    else:
        events[0]._shot = events[0]._shot.copy()
        events[0]._shot["ebeamCharge"] += 1
    result = prepare("check-psana", write_config(source__kind="psana1"), "--shots", "40")
    assert result.exit_code == 1
    assert f"difference: {line}" in result.output
    assert "psana and the native reader differ" in result.output
