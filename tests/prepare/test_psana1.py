"""The psana 1 source against a stand-in that replays what the original psana gave for the same files."""

from __future__ import annotations

import importlib
import json
import random
import shutil
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.errors import DataError
from common.shots import ID_FIELDS
from prepare.shots import NO_FRAME, SHOT_DTYPE, USABLE
from prepare.sources import psana1
from prepare.sources.native import XtcSource
from prepare.sources.psana1 import Psana1Source
from tests.prepare.conftest import STAND_IN, XTC1
from tests.prepare.small_data import write_small_data
from tests.prepare.test_xtc_reader import RUNS

ADDRESS = "XrayTransportDiagnostic.0:Opal1000.0"


@pytest.fixture
def psana(monkeypatch):
    """The stand-in's module, fresh."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.delitem(sys.modules, "psana", raising=False)
    yield importlib.import_module("psana")
    del sys.modules["psana"]


@pytest.fixture
def open_source(psana, tmp_path):
    """Open a copy of a folder of tests/data that has small data as well."""
    opened = []

    def open_folder(folder: str, camera: str = ADDRESS) -> Psana1Source:
        copy = tmp_path / folder
        if not copy.exists():
            shutil.copytree(XTC1 / folder, copy)
            write_small_data(copy)
        opened.append(Psana1Source(psana, "amo81515", str(copy), camera))
        return opened[-1]

    yield open_folder
    for source in opened:
        source.close()


def test_what_psana_does_not_join_where_fiducials_run_backwards_is_joined(open_source, tmp_path, capsys):
    """The original gives the DAQ's event and the camera's apart; both readers have the same shots."""
    folder = tmp_path / "experiment"
    open_source("experiment")
    path = folder / "psana1-r0070.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    native = XtcSource(str(folder), ADDRESS)
    for n in (3, 9):
        camera = {**events[n], "nsec": events[n]["nsec"] - 8_000}
        del events[n]["crc32"], camera["ebeam_charge"]
        events.append(camera)
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    source = open_source("experiment")
    assert source.shots(70)["status"].tolist() == native.shots(70)["status"].tolist()
    for name in ID_FIELDS:
        assert np.array_equal(source.shots(70)[name], native.shots(70)[name])
    for result in source.frames(70, usable(source, 70)):
        assert np.array_equal(result.frame, native.frame(70, result.index))


def usable(source: Psana1Source, run: int) -> list:
    return np.flatnonzero(source.shots(run)["status"] == USABLE).tolist()


def checksums(source, run: int, indices) -> list:
    return [zlib.crc32(np.ascontiguousarray(result.frame)) for result in source.frames(run, indices)]


@pytest.mark.parametrize("camera", [ADDRESS, "xtcav"])
@pytest.mark.parametrize("folder, run, events", RUNS)
def test_gives_what_psana_gives(open_source, folder, run, events, camera):
    source = open_source(folder, camera)
    shots = source.shots(run)
    keys = list(zip(*(shots[name].tolist() for name in ID_FIELDS[1:])))
    expected = [json.loads(line) for line in (XTC1 / folder / events).read_text().splitlines()]
    assert keys == sorted((e["sec"], e["nsec"], e["fid"]) for e in expected)
    received = {keys[result.index]: result for result in source.frames(run, range(len(shots)))}
    for event in expected:
        result = received[event["sec"], event["nsec"], event["fid"]]
        assert (result.frame is not None) == ("crc32" in event)
        assert (result.reason == "") == (result.frame is not None)
        if result.frame is not None:
            assert zlib.crc32(np.ascontiguousarray(result.frame)) == int(event["crc32"], 16)


@pytest.mark.parametrize("folder, run, events", RUNS)
def test_lists_the_same_shots_as_the_native_reader(open_source, folder, run, events):
    shots, native = open_source(folder).shots(run), XtcSource(str(XTC1 / folder), ADDRESS).shots(run)
    for name in SHOT_DTYPE.names:
        if name == "status":  # psana does not tell damaged from missing
            assert np.array_equal(shots[name], np.where(native[name] == USABLE, USABLE, NO_FRAME))
        else:
            np.testing.assert_array_equal(shots[name], native[name])


def test_reads_no_frame_to_list_and_only_the_wanted_ones_after(open_source, psana, capsys):
    source = open_source("experiment")
    wanted = usable(source, 70)[3:30:9]
    assert psana.frames_read == 0
    assert [result.index for result in source.frames(70, wanted)] == wanted
    assert psana.frames_read == len(wanted)
    assert capsys.readouterr().err == ""


def test_later_calls_go_forward_and_not_to_the_end(open_source, psana):
    source = open_source("experiment")
    shots = usable(source, 70)
    psana.events_read = 0
    for i in range(0, 12, 3):
        assert all(result.frame is not None for result in source.frames(70, shots[i : i + 3]))
    assert psana.events_read == shots[11] + 1  # run 70 has no shot out of order


def test_an_earlier_shot_or_another_run_begins_a_pass_anew(open_source):
    source, native = open_source("experiment"), XtcSource(str(XTC1 / "experiment"), ADDRESS)
    for run, indices in ((70, [5, 9]), (70, [3]), (71, [7]), (70, [4, 5, 6]), (70, [6])):
        assert checksums(source, run, indices) == checksums(native, run, indices)


@pytest.mark.parametrize("room", [0, 1, 128])
def test_frames_come_in_order_of_time_whatever_psanas_order(open_source, psana, room, monkeypatch):
    """Shots that only the camera's stream has are listed by the camera's clock."""
    monkeypatch.setattr(psana1, "_KEPT", room)
    listed = psana._records(XTC1 / "untidy", 55)
    shuffled = random.Random(1).sample(listed, len(listed))
    monkeypatch.setattr(psana, "_records", lambda *_: shuffled)
    source, native = open_source("untidy"), XtcSource(str(XTC1 / "untidy"), ADDRESS)
    shots = usable(source, 55)
    assert checksums(source, 55, shots) == checksums(native, 55, shots)


def test_a_source_that_ends_early_is_an_error(open_source, monkeypatch):
    source = open_source("experiment")
    wanted = usable(source, 70)
    monkeypatch.setenv("STAND_IN", "end@20")
    with pytest.raises(DataError, match="run 70: psana 1 ended after 19 events; were its files changed"):
        list(source.frames(70, wanted))


def test_other_shots_than_before_are_an_error(open_source, psana, monkeypatch):
    source = open_source("experiment")
    wanted = usable(source, 70)
    records = psana._records
    monkeypatch.setattr(psana, "_records", lambda *where: records(*where)[1:])
    with pytest.raises(DataError, match="run 70: psana 1 gives other shots than before; start again"):
        list(source.frames(70, wanted))


def test_frames_that_psana_cannot_read_have_no_picture_and_none_at_all_is_an_error(open_source, tmp_path):
    source = open_source("experiment")
    wanted = usable(source, 70)[:5]
    path = tmp_path / "experiment" / "e815-r0070-s80-c00.xtc"
    content = bytearray(path.read_bytes())
    camera = (0x2E000300).to_bytes(4, "little") + (2 | 1 << 16).to_bytes(4, "little")
    places = [at for at in range(len(content)) if content.startswith(camera, at)]
    content[places[0]] ^= 1
    path.write_bytes(content)
    results = list(source.frames(70, wanted))
    assert [r.reason for r in results] == ["psana gave the shot without a frame", "", "", "", ""]
    for at in places[1:]:
        content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="run 70: psana 1: no frame in any of 5 shots; are the small data"):
        list(source.frames(70, wanted))


def test_a_run_without_events_is_an_error(open_source, monkeypatch):
    monkeypatch.setenv("STAND_IN", "end@1")
    with pytest.raises(DataError, match="run 70: psana 1 finds no events"):
        open_source("experiment").shots(70)


def test_a_run_that_is_not_there(open_source):
    with pytest.raises(DataError, match="no XTC files of run 99; runs there: 68, 69, 70, 71"):
        open_source("experiment").shots(99)


def test_another_experiment_is_named_with_what_is_there(open_source):
    source = open_source("experiment")
    source._experiment = "amo99999"
    with pytest.raises(DataError, match=r"nothing to read for experiment 'amo99999'.* named e815-r0070-s00"):
        source.shots(70)


def test_a_camera_that_psana_does_not_know(open_source):
    with pytest.raises(DataError, match=r"run 70: psana 1 has no 'ytcav' .*: .*Unknown DetInfo"):
        open_source("experiment", "ytcav").shots(70)
    with pytest.raises(DataError, match=r"run 70: psana 1 has no 'AmoVMI.*: .*not found in configStore"):
        open_source("experiment", "AmoVMI.0:Opal1000.0").shots(70)


def test_a_run_without_a_frame_has_a_warning_as_from_the_native_reader(open_source, psana, tmp_path, capsys):
    folder = str(open_source("experiment")._directory)
    for _ in range(2):  # the second time from the listing that is kept
        with Psana1Source(psana, "amo81515", folder, "NoDetector.0:Evr.0", tmp_path / "kept") as source:
            assert len(source.shots(70)) == 30
            assert usable(source, 70) == []
        assert capsys.readouterr().err == "warning: run 70: not one frame of camera NoDetector.0:Evr.0\n"


def test_a_psana_cfg_in_the_working_directory_is_not_read(open_source, tmp_path, monkeypatch):
    (tmp_path / "psana.cfg").write_text("[psana]\nevents = 7\n")
    monkeypatch.chdir(tmp_path)
    assert len(open_source("experiment").shots(69)) == 40


def test_a_listing_that_is_kept_is_of_its_camera(open_source, psana, tmp_path):
    folder = str(open_source("untidy")._directory)
    other = "XppEndstation.0:Opal1000.1"
    counts = []
    for camera in (ADDRESS, other, ADDRESS, "xtcav"):
        with Psana1Source(psana, "amo81515", folder, camera, tmp_path / "kept") as source:
            counts.append(len(usable(source, 55)))
    assert counts[0] == counts[2] == counts[3] != counts[1]


@pytest.mark.parametrize("name", ["with space", "with:colon", "a, b; c='d'\t%e", "größe"])
def test_a_folder_may_have_any_name(psana, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(XTC1 / "plain", folder)
    write_small_data(folder)
    with Psana1Source(psana, "amo81515", str(folder), ADDRESS) as source:
        assert len(checksums(source, 54, usable(source, 54))) == 12


def with_small_data(tmp_path: Path) -> Path:
    folder = tmp_path / "experiment"
    shutil.copytree(XTC1 / "experiment", folder)
    write_small_data(folder)
    return folder


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("kind", ["psana", "psana1"])
def test_a_build_through_psana_has_the_native_builds_images(
    prepare, stand_in, write_config, tmp_path, kind, jobs
):
    folder = with_small_data(tmp_path)
    assert prepare("select", write_config(folder)).exit_code == 0
    files = []
    for read_by in (kind, "xtc"):
        result = prepare("build", write_config(folder, source__kind=read_by), "--force", "--jobs", jobs)
        assert result.exit_code == 0, result.output
        with h5py.File(tmp_path / "data" / "small.h5") as file:
            files.append({name: file["train"][name][...] for name in ("images", "crc32", *ID_FIELDS)})
    for name in files[0]:
        assert np.array_equal(files[0][name], files[1][name])


def test_verify_without_psana_says_what_it_could_not_compare(
    prepare, stand_in, write_config, tmp_path, monkeypatch
):
    config = write_config(with_small_data(tmp_path), source__kind="psana")
    assert prepare("select", config).exit_code == 0
    assert prepare("build", config).exit_code == 0
    path = str(tmp_path / "data" / "small.h5")
    assert "20 images computed again" in prepare("verify", path).output
    sys.path.remove(str(STAND_IN))
    result = prepare("verify", path)
    assert result.exit_code == 0
    assert "no image compared with the camera's files: source.kind 'psana': psana cannot be" in result.output


def test_check_psana_compares_ids_records_and_pixels(prepare, stand_in, write_config, tmp_path):
    config = write_config(with_small_data(tmp_path), source__kind="psana1")
    result = prepare("check-psana", config, "--shots", "40")
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
def test_check_psana_says_what_differs(prepare, stand_in, write_config, tmp_path, monkeypatch, change, line):
    config = write_config(with_small_data(tmp_path), source__kind="psana1")
    monkeypatch.setenv("STAND_IN_DIFFERS", f"{change} 70")
    result = prepare("check-psana", config, "--shots", "40")
    assert result.exit_code == 1, result.output
    assert f"difference: {line}" in result.output
    assert "psana and the native reader differ" in result.output


DEATHS = {
    "abort": "the process of psana was ended by SIGABRT, last words: '[fatal:PSXtcInput] Datagram size",
    "segv": "the process of psana was ended by SIGSEGV; `kind: xtc`",
    "kill": "the process of psana was ended by SIGKILL from outside (too little memory?); `kind: xtc`",
    "exit": "the process of psana ended by itself (exit code 3); `kind: xtc`",
    "raise": "psana failed: RuntimeError: XTCReadException [in function next] failed to read; `kind: xtc`",
}
# At 0, when a run is opened, an exception is as for another experiment: psana finds nothing to read.
WHEN = [(how, at) for how in DEATHS for at in (0, 1, 25) if (how, at) != ("raise", 0)]


@pytest.mark.parametrize("how, at", WHEN)
def test_what_ends_psana_is_one_line(prepare, stand_in, write_config, tmp_path, monkeypatch, how, at):
    monkeypatch.setenv("STAND_IN", f"{how}@{at}")
    result = prepare("select", write_config(with_small_data(tmp_path), source__kind="psana1"))
    assert result.exit_code == 2
    assert result.output.startswith(f"error: run 69: {DEATHS[how]}")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_build_in_which_psana_dies_goes_on_to_the_same_file(
    prepare, stand_in, write_config, tmp_path, monkeypatch, jobs
):
    config = write_config(with_small_data(tmp_path), source__kind="psana1")
    path = tmp_path / "data" / "small.h5"

    def digest() -> str:
        with h5py.File(path) as file:
            return file.attrs["content_digest"]

    assert prepare("select", config).exit_code == 0
    assert prepare("build", config, "--jobs", jobs).exit_code == 0
    whole = digest()
    path.unlink()
    monkeypatch.setenv("STAND_IN", "abort@25")
    result = prepare("build", config, "--jobs", jobs)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith(f"error: run 69: {DEATHS['abort']}")
    assert not path.exists()
    monkeypatch.delenv("STAND_IN")
    assert prepare("build", config, "--jobs", jobs).exit_code == 0
    assert digest() == whole
