"""The native reader against the original psana, and against files that are not what they should be."""

from __future__ import annotations

import json
import random
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from prepare.formats.xtc1.format import FIDUCIALS
from prepare.formats.xtc1.reader import XtcFile
from prepare.shots import BAD_FIDUCIAL, DAMAGED, NO_FRAME, USABLE
from prepare.sources.native import XtcSource
from tests.prepare.conftest import XTC1

CAMERA = "XrayTransportDiagnostic.0:Opal1000.0"
RUNS = [
    ("plain", 54, "psana1.jsonl"),
    ("untidy", 55, "psana1.jsonl"),
    ("camera_in_daq_stream", 56, "psana1.jsonl"),
    ("cut_short", 57, "psana1.jsonl"),
    *(("experiment", run, f"psana1-r{run:04d}.jsonl") for run in (68, 69, 70, 71)),
]


def by_key(shots: np.ndarray) -> dict:
    return {
        (int(shot["seconds"]), int(shot["nanoseconds"]), int(shot["fiducial"])): i
        for i, shot in enumerate(shots)
    }


@pytest.mark.parametrize("folder, run, events", RUNS)
@pytest.mark.parametrize("address", [CAMERA, "0x2e000300", "46.0:3.0"])
def test_agrees_with_psana_event_by_event(folder, run, events, address):
    source = XtcSource(str(XTC1 / folder), address)
    shots = source.shots(run)
    index = by_key(shots)
    expected = [json.loads(line) for line in (XTC1 / folder / events).read_text().splitlines()]
    assert set(index) == {(e["sec"], e["nsec"], e["fid"]) for e in expected}
    for event in expected:
        i = index[event["sec"], event["nsec"], event["fid"]]
        assert (shots["status"][i] == USABLE) == ("crc32" in event)
        if "crc32" in event:
            frame = source.frame(run, i)
            assert list(frame.shape) == event["shape"]
            assert zlib.crc32(np.ascontiguousarray(frame)) == int(event["crc32"], 16)
        np.testing.assert_equal(float(shots["ebeamCharge"][i]), event.get("ebeam_charge", np.nan))
        np.testing.assert_equal(float(shots["ebeamXTCAVAmpl"][i]), event.get("xtcav_ampl", np.nan))
        np.testing.assert_equal(float(shots["f_11_ENRC"][i]), event.get("gas", np.nan))
    source.close()


@pytest.mark.parametrize("folder, run", [(folder, run) for folder, run, _ in RUNS])
def test_agrees_with_what_was_written(folder, run):
    source = XtcSource(str(XTC1 / folder), CAMERA)
    shots = source.shots(run)
    index = by_key(shots)
    prefix = f"e815-r{run:04d}"
    truth = json.loads((XTC1 / folder / f"{prefix}.truth.json").read_text())
    cut = truth["args"]["truncate"] > 0
    for n, event in enumerate(truth["events"]):
        clock = ("s80_sec", "s80_nsec") if event["s80_only"] else ("sec", "nsec")
        status = shots["status"][index[event[clock[0]], event[clock[1]], event["fiducial"]]]
        if not event["camera"] or (cut and n == len(truth["events"]) - 1):
            assert status == NO_FRAME
        else:
            assert status == (DAMAGED if event["damage"] else USABLE)
    source.close()


def test_shots_are_in_order_of_time_with_unique_keys():
    shots = XtcSource(str(XTC1 / "untidy"), CAMERA).shots(55)
    keys = list(by_key(shots))
    assert keys == sorted(keys)
    assert len(keys) == len(shots)


def test_the_camera_by_its_alias():
    assert len(XtcSource(str(XTC1 / "plain"), "xtcav").shots(54)) == 12


def test_another_camera_is_a_matter_of_config():
    source = XtcSource(str(XTC1 / "untidy"), "0x01001234")
    with pytest.raises(DataError, match="no camera 'xtcv'; the aliases of this run are: .*xtcav"):
        XtcSource(str(XTC1 / "untidy"), "xtcv").shots(55)
    assert not (source.shots(55)["status"] == USABLE).any()


def test_a_cut_off_tail_ends_its_stream_with_a_warning(capsys):
    XtcSource(str(XTC1 / "cut_short"), CAMERA).shots(57)
    assert "s80-c00.xtc: offset 146892: the last datagram is cut off" in capsys.readouterr().err


# --- one thing damaged in a good file ------------------------------------------------------

STREAM = "e815-r0054-s80-c00.xtc"
FIRST_EVENT = 3000  # offset of the first L1Accept in STREAM; its Frame's Xtc follows at +60
FRAME_XTC = FIRST_EVENT + 60


@pytest.fixture
def plain(tmp_path):
    """A copy of the plain run and a function that writes bytes into its camera stream."""
    folder = tmp_path / "plain"
    shutil.copytree(XTC1 / "plain", folder)
    path = folder / STREAM

    def damage(offset: int, fmt: str, value: int) -> None:
        raw = bytearray(path.read_bytes())
        struct.pack_into(fmt, raw, offset, value)
        path.write_bytes(raw)

    damage.folder, damage.path = folder, path
    return damage


def read(folder: Path, run: int = 54) -> np.ndarray:
    source = XtcSource(str(folder), CAMERA)
    shots = source.shots(run)
    for i in np.flatnonzero(shots["status"] == USABLE):
        source.frame(run, int(i))
    source.close()
    return shots


def test_the_fixture_is_where_the_tests_think(plain):
    raw = plain.path.read_bytes()
    assert struct.unpack_from("<I", raw, FIRST_EVENT + 8)[0] >> 24 & 15 == 12
    assert struct.unpack_from("<I", raw, FRAME_XTC + 8)[0] == 0x2E000300


def test_a_frame_larger_than_its_payload_is_refused(plain):
    plain(FRAME_XTC + 20, "<I", 5000)
    with pytest.raises(DataError, match=rf"{STREAM}: offset {FRAME_XTC + 20}: a frame of 96 x 5000 pixels"):
        read(plain.folder)


@pytest.mark.parametrize("word, value", [(0, 0), (1, 0), (2, 0), (2, 17), (0, 2**32 - 1)])
def test_impossible_frame_headers_are_refused(plain, word, value):
    plain(FRAME_XTC + 20 + 4 * word, "<I", value)
    with pytest.raises(DataError, match=f"{STREAM}: offset {FRAME_XTC + 20}"):
        read(plain.folder)


def test_a_compressed_frame_is_refused(plain):
    plain(FRAME_XTC + 12, "<I", 0x80010002)
    with pytest.raises(DataError, match=rf"{STREAM}: offset {FRAME_XTC + 20}: the frame is compressed"):
        read(plain.folder)


def test_a_frame_of_unknown_version_is_refused(plain):
    plain(FRAME_XTC + 12, "<I", 0x00020002)
    with pytest.raises(DataError, match="Frame of version 2"):
        read(plain.folder)


def test_a_damaged_frame_is_skipped(plain):
    plain(FRAME_XTC, "<I", 1 << 12)
    assert np.bincount(read(plain.folder)["status"]).tolist() == [11, 0, 1]


def test_an_incomplete_container_is_not_entered(plain):
    plain(FIRST_EVENT + 40, "<I", 1 << 15)
    assert np.bincount(read(plain.folder)["status"]).tolist() == [11, 0, 1]


def test_extent_0_stops_its_level(plain):
    plain(FRAME_XTC + 16, "<I", 0)
    assert np.bincount(read(plain.folder)["status"]).tolist() == [11, 1]


def test_an_extent_beyond_its_parent_is_refused(plain):
    plain(FRAME_XTC + 16, "<I", 1 << 30)
    with pytest.raises(DataError, match=f"{STREAM}: offset {FRAME_XTC}: an Xtc of"):
        read(plain.folder)


def test_an_invalid_fiducial_is_left_out(plain):
    plain(FIRST_EVENT + 12, "<I", FIDUCIALS)
    shots = read(plain.folder)
    assert (shots["status"] == BAD_FIDUCIAL).sum() == 1
    assert (shots["status"] == NO_FRAME).sum() == 1  # the DAQ's half of the same shot


def test_of_two_frames_with_one_fiducial_neither_is_taken(plain, capsys):
    whole = (read(plain.folder)["status"] == USABLE).sum()
    second = FIRST_EVENT + struct.unpack_from("<I", plain.path.read_bytes(), FIRST_EVENT + 36)[0] + 20
    plain(second + 12, "<I", struct.unpack_from("<I", plain.path.read_bytes(), FIRST_EVENT + 12)[0])
    shots = read(plain.folder)
    assert (shots["status"] == NO_FRAME).sum() == 2 and (shots["status"] == USABLE).sum() == whole - 2
    assert "2 events of the camera recorder are left out" in capsys.readouterr().err


@pytest.mark.parametrize("skew, joined", [(84, True), (85, False)])
def test_streams_join_within_85_seconds(plain, skew, joined):
    plain(FIRST_EVENT + 4, "<I", 1435000000 + skew)
    assert len(read(plain.folder)) == (12 if joined else 13)


def test_not_an_xtc_file(plain):
    plain.path.write_text("# these are my notes\n" * 10)
    with pytest.raises(DataError, match=f"{STREAM}: is not an XTC file"):
        read(plain.folder)


def test_rubbish_between_datagrams_is_refused(plain):
    plain(FIRST_EVENT + 32, "<I", 7)
    with pytest.raises(DataError, match=f"{STREAM}: offset {FIRST_EVENT}: no datagram here"):
        read(plain.folder)


@pytest.mark.parametrize(
    "size, how", [(0, "is empty"), (30, "is cut off before its first shot"), (300, "is cut")]
)
def test_a_file_that_ends_before_its_first_shot_is_an_error_unless_it_grows(plain, size, how):
    plain.path.write_bytes(plain.path.read_bytes()[:size])
    with pytest.raises(DataError, match=f"{STREAM}: {how}"):
        read(plain.folder)
    plain.path.rename(f"{plain.path}.inprogress")
    assert (read(plain.folder)["status"] == NO_FRAME).all()


def test_a_missing_chunk_is_warned_of(tmp_path, capsys):
    folder = tmp_path / "untidy"
    shutil.copytree(XTC1 / "untidy", folder)
    (folder / "e815-r0055-s80-c01.xtc").unlink()
    read(folder, 55)
    assert "stream 80 lacks chunk 1" in capsys.readouterr().err


def test_a_file_that_is_still_written(plain, capsys):
    raw = plain.path.read_bytes()
    plain.path.unlink()
    (plain.folder / (STREAM + ".inprogress")).write_bytes(raw[:-100])
    assert (read(plain.folder)["status"] == USABLE).sum() >= 11
    assert "is still being written" in capsys.readouterr().err


def test_a_file_that_shrinks_under_the_reader(plain):
    source = XtcSource(str(plain.folder), CAMERA)
    source.shots(54)
    plain.path.write_bytes(plain.path.read_bytes()[: FRAME_XTC + 100])
    with pytest.raises(DataError, match="the file ends .* bytes too early"):
        source.frame(54, 0)
    source.close()


def test_an_unknown_run_names_those_there():
    with pytest.raises(DataError, match="no XTC files of run 99; runs there: 68, 69, 70, 71"):
        XtcSource(str(XTC1 / "experiment"), CAMERA).shots(99)


def test_a_folder_that_is_not_there():
    with pytest.raises(DataError, match="no such folder"):
        XtcSource("/nowhere", CAMERA)


def test_two_experiments_in_one_folder(plain):
    (plain.folder / "e999-r0054-s80-c00.xtc").write_bytes(b"")
    with pytest.raises(DataError, match="run 54 of more than one experiment: e815, e999"):
        XtcSource(str(plain.folder), CAMERA).shots(54)


def test_2000_random_mutations_give_shots_or_a_data_error(plain):
    """Bytes, 32-bit words and ends of file changed at random: never another exception."""
    good = plain.path.read_bytes()
    rng = random.Random(1)
    refused = 0
    for _ in range(2000):
        raw = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            # Headers are what decides; half of the changes go to the start of a datagram.
            at = rng.choice([0, FIRST_EVENT, rng.randrange(len(raw))]) + rng.randrange(0, 120, 4)
            value = rng.choice([0, 1, 19, 20, 2**31, 2**32 - 1, rng.getrandbits(32)])
            raw[at : at + 4] = struct.pack("<I", value)
        if rng.random() < 0.2:
            del raw[rng.randrange(len(raw)) :]
        plain.path.write_bytes(raw)
        try:
            read(plain.folder)
        except DataError as error:
            refused += 1
            assert STREAM in str(error) or "run 54" in str(error)
    assert refused > 100


def test_containers_nested_too_deep_are_refused(tmp_path):
    depth = 40
    body = b""
    for _ in range(depth):
        body = struct.pack("<5I", 0, 0, 0, 1 | 1 << 16, 20 + len(body)) + body
    header = struct.pack("<5I", 0, 1435000000, 12 << 24, 1000, 0)
    path = tmp_path / "e815-r0001-s80-c00.xtc"
    path.write_bytes(header + struct.pack("<5I", 0, 0, 0, 1 | 1 << 16, 20 + len(body)) + body)
    with XtcFile(path) as file, pytest.raises(DataError, match="nested over"):
        list(file.contributions(next(file.datagrams())))
