"""What is looked at before psana 1 opens a run: nothing that it would not survive, or leave out silently."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from prepare.formats.files import files_by_run, files_of_run
from prepare.formats.xtc1.format import CONFIGURE, DATAGRAM_SIZE, L1_ACCEPT, TYPE_FRAME
from prepare.formats.xtc1.reader import XtcFile
from prepare.shots import NO_FRAME, USABLE
from prepare.sources import psana1_files
from prepare.sources.native import XtcSource
from prepare.sources.psana import open_here
from tests.prepare.conftest import XTC1
from tests.prepare.small_data import _datagram, write_small_data

CAMERA, DAQ = "e815-r0070-s80-c00", "e815-r0070-s00-c00"

# SHA-256 of what psana's own tool `smldata` made of these files, cut to 16 digits. It leaves the 4 bytes from
# 48 on, in what it adds to Configure, as they happen to be: here they are 0.
MADE_BY_PSANA = {
    "xtc1/camera_in_daq_stream/e815-r0056-s00-c00.xtc": "4ed58feeff6f8b7b",
    "xtc1/camera_in_daq_stream/e815-r0056-s01-c00.xtc": "d288fcd29dc49b69",
    "xtc1/cut_short/e815-r0057-s80-c00.xtc": "53fed07d8ca2b1f9",
    "xtc1/experiment/e815-r0069-s00-c00.xtc": "dadcd53c43dcf77f",
    "xtc1/experiment/e815-r0069-s80-c00.xtc": "f102241f691443ea",
    "xtc1/plain/e815-r0054-s80-c00.xtc": "cab71ffc44cc00cd",
    "xtc1/untidy/e815-r0055-s00-c00.xtc": "6db5f541326ccbd1",
    "xtc1/untidy/e815-r0055-s00-c01.xtc": "332f56cfbc9317f9",
    "xtc1/untidy/e815-r0055-s80-c00.xtc": "7e0c59c40b1cdcf3",
    "xtc1/untidy/e815-r0055-s80-c03.xtc": "8dcb7eeea96a1474",
    "real_xtc1/amo68413-r99-s02-userEbeamDamage.xtc": "5ed391f2c22f30f0",
    "real_xtc1/t1.xtc": "322162c7120d99ab",
    "real_xtc1/t1_dropped.xtc": "ae82e7d0c56e5e2d",
    "real_xtc1/xcscom12-r52-s0-dupTimes-splitEvents.xtc": "0faba3de85347501",
}


@pytest.mark.parametrize("name", MADE_BY_PSANA)
def test_small_data_of_these_tests_are_those_that_psanas_own_tool_makes(name):
    with XtcFile(XTC1.parent / name) as file:
        datagrams = list(file.datagrams())
        made = bytearray(b"".join(_datagram(file, datagram) for datagram in datagrams))
    if datagrams[0].transition == CONFIGURE:
        made[48:52] = bytes(4)
    assert hashlib.sha256(made).hexdigest()[:16] == MADE_BY_PSANA[name]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the experiment with small data."""
    copy = tmp_path / "experiment"
    shutil.copytree(XTC1 / "experiment", copy)
    write_small_data(copy)
    return copy


def look(folder: Path, run: int = 70) -> psana1_files.RunFiles:
    return psana1_files.look(run, files_of_run(folder, files_by_run(folder), run))


def large(folder: Path, stem: str = CAMERA) -> Path:
    return folder / f"{stem}.xtc"


def small(folder: Path, stem: str = CAMERA) -> Path:
    return folder / "smalldata" / f"{stem}.smd.xtc"


def shots(path: Path) -> list:
    """(start, end) of the L1Accepts of a file."""
    with XtcFile(path) as file:
        return [(d.start, d.end) for d in file.datagrams() if d.transition == L1_ACCEPT]


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


@pytest.mark.parametrize("name, run", [("experiment", 68), ("experiment", 71), ("plain", 54), ("untidy", 55),
                                       ("camera_in_daq_stream", 56), ("cut_short", 57)])  # fmt: skip
def test_a_run_that_is_whole_as_far_as_its_small_data_say(tmp_path, name, run):
    shutil.copytree(XTC1 / name, tmp_path / name)
    write_small_data(tmp_path / name)
    found = look(tmp_path / name, run)
    assert found.cut == {}
    assert len(found.warnings) == (name == "cut_short")
    assert [path.name.count(".smd.") for path in found.paths] == sorted(
        path.name.count(".smd.") for path in found.paths
    )


def repeated(folder: Path) -> None:
    """The camera's third event again after its sixth."""
    raw, places = large(folder).read_bytes(), shots(large(folder))
    (start, end), at = places[2], places[5][1]
    large(folder).write_bytes(raw[:at] + raw[start:end] + raw[at:])
    write_small_data(folder)


def shortened(folder: Path, n: int = 4, by: int = 2000) -> None:
    """The camera's `n`-th frame has fewer bytes than its header says pixels; all extents agree."""
    path = large(folder)
    raw = bytearray(path.read_bytes())
    with XtcFile(path) as file:
        datagram = [one for one in file.datagrams() if one.transition == L1_ACCEPT][n]
        children = list(file.contributions(datagram))
    frame = next(child for child in children if child.type_id == TYPE_FRAME)
    around = [child.start - 4 for child in children if child.start <= frame.start and child.end >= frame.end]
    for at in (datagram.start + DATAGRAM_SIZE - 4, *around):
        struct.pack_into("<I", raw, at, struct.unpack_from("<I", raw, at)[0] - by)
    del raw[frame.end - by : frame.end]
    path.write_bytes(raw)
    write_small_data(folder)


REFUSED = {
    "no folder": (lambda f: shutil.rmtree(f / "smalldata"), "smalldata: no such folder; psana 1 reads"),
    "run missing": (
        lambda f: [path.unlink() for path in (f / "smalldata").glob("*r0070*")],
        f"{DAQ}.smd.xtc: is not there: psana 1 would leave out the shots of {DAQ}.xtc",
    ),
    "a stream missing": (lambda f: small(f).unlink(), f"{CAMERA}.smd.xtc: is not there"),
    "cut off in a datagram": (lambda f: cut(small(f), 5000), f"{CAMERA}.smd.xtc: is cut off at byte 5000"),
    "empty": (lambda f: cut(small(f), 0), f"{CAMERA}.smd.xtc: is cut off at byte 0"),
    "half of the shots": (
        lambda f: cut(small(f), shots(small(f))[9][1]),
        f"{CAMERA}.smd.xtc: has not all shots of {CAMERA}.xtc",
    ),
    "the last shot missing": (
        lambda f: cut(small(f), shots(small(f))[-2][1]),
        f"{CAMERA}.smd.xtc: has not all shots",
    ),
    "no shots": (lambda f: cut(small(f), shots(small(f))[0][0]), f"{CAMERA}.smd.xtc: has not all shots"),
    "the DAQ's half": (lambda f: cut(small(f, DAQ), shots(small(f, DAQ))[3][1]), f"{DAQ}.smd.xtc: has not"),
    "both cut, small data more": (
        lambda f: (cut(large(f), shots(large(f))[20][1] - 9), cut(small(f), shots(small(f))[9][1])),
        f"{CAMERA}.smd.xtc: has not all shots",
    ),
    "another stream's": (lambda f: shutil.copy(small(f, DAQ), small(f)), "is not the small data of"),
    "another run's": (
        lambda f: shutil.copy(small(f, "e815-r0071-s80-c00"), small(f)),
        "smd.xtc: (is not the small data of|has not all shots)",
    ),
    "no XTC": (lambda f: small(f).write_text("text " * 99), "smd.xtc: is not an XTC file"),
    "a large file instead": (
        lambda f: shutil.copy(large(f), small(f)),
        "smd.xtc: offset \\d+: the small data do not say where this shot lies",
    ),
    "a dead link": (lambda f: (small(f).unlink(), small(f).symlink_to("/gone")), "smd.xtc: is a link to"),
    "a folder": (lambda f: (small(f).unlink(), small(f).mkdir()), "smd.xtc: is a folder"),
    "still being written": (
        lambda f: small(f).rename(f"{small(f)}.inprogress"),
        "smd.xtc.inprogress: is still being written; wait",
    ),
    "large file still being written": (
        lambda f: large(f).rename(f"{large(f)}.inprogress"),
        "xtc.inprogress: is still being written, and psana 1 reads finished runs",
    ),
    "large file gone": (
        lambda f: large(f).unlink(),
        f"{CAMERA}.xtc: is not there, but its small data are; restore it, or remove .*{CAMERA}.smd.xtc",
    ),
    "large file a dead link": (
        lambda f: (large(f).unlink(), large(f).symlink_to("/gone")),
        f"{CAMERA}.xtc: is a link to /gone",
    ),
    "large file empty": (lambda f: cut(large(f), 0), f"{CAMERA}.xtc: is empty; copy it again"),
    "large file cut in Configure": (
        lambda f: cut(large(f), 500),
        f"{CAMERA}.xtc: is cut off before its first shot; copy it again",
    ),
    "an event twice, out of order": (
        lambda f: repeated(f),
        "stream 80 is not in order of time and has 1 events twice, where psana 1 leaves out others; copy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_psana_would_not_survive_or_leave_out_is_one_line(folder, what):
    change, line = REFUSED[what]
    change(folder)
    with pytest.raises(DataError, match=line) as raised:
        look(folder)
    assert "\n" not in str(raised.value)
    if what != "no folder":
        assert look(folder, 71).paths  # other runs are not concerned


CUT = {
    "in the last shot": (lambda all_shots: all_shots[-1][1] - 2000, 1),
    "in the last frame's header": (lambda all_shots: all_shots[-1][0] + DATAGRAM_SIZE + 48, 1),
    "in the last datagram's header": (lambda all_shots: all_shots[-1][0] + 11, 1),
    "by one byte": (lambda all_shots: all_shots[-1][1] - 1, 1),
    "at a boundary": (lambda all_shots: all_shots[-5][0], 5),
    "in the middle": (lambda all_shots: all_shots[10][0] + 5000, 19),
}


@pytest.mark.parametrize("where", CUT)
def test_a_large_file_that_is_cut_off_has_a_warning_and_the_rest_of_its_shots(
    folder, where, stand_in, capsys
):
    at, missing = CUT[where]
    every = shots(large(folder))
    truth = XtcSource(str(XTC1 / "experiment"), "xtcav")
    cut(large(folder), at(every))
    found = look(folder)
    assert found.cut == {f"{CAMERA}.xtc": every[-missing][0]}
    warning = f"{large(folder)}: is cut off at byte {at(every)}: its last {missing} shots have no frame"
    assert found.warnings == [f"{warning}; copy it again"]
    with open_here("psana1", "amo86815", str(folder), "xtcav", None) as source:
        status, whole = source.shots(70)["status"], truth.shots(70)["status"]
        last = np.flatnonzero(whole == USABLE)[-missing:]
        assert np.array_equal(status, np.where(np.isin(np.arange(30), last), NO_FRAME, whole))
        for result in source.frames(70, range(30)):
            assert result.frame is None or np.array_equal(result.frame, truth.frame(70, result.index))
            assert (result.frame is None) == (status[result.index] != USABLE)
    none = "warning: run 70: not one frame of camera xtcav\n" if missing == len(every) else ""
    assert capsys.readouterr().err == f"warning: {warning}; copy it again\n{none}"


def test_a_chunk_that_is_missing_with_its_small_data_has_a_warning(tmp_path):
    shutil.copytree(XTC1 / "untidy", tmp_path / "untidy")
    write_small_data(tmp_path / "untidy")
    for path in tmp_path.rglob("*-s80-c01.*"):
        path.unlink()
    assert look(tmp_path / "untidy", 55).warnings == [
        "run 55: stream 80 lacks chunk 1; its shots are missing"
    ]


def test_a_file_that_is_cut_off_after_its_last_shot_lacks_none(folder):
    cut(large(folder), large(folder).stat().st_size - 1)
    assert look(folder).cut == {}
    (warning,) = look(folder).warnings
    assert warning.endswith("the last datagram is cut off; its stream ends here")


def test_empty_and_damaged_shots_at_the_end_need_no_small_data(folder):
    """psana's own tool leaves them out."""
    last = bytearray(large(folder).read_bytes()[slice(*shots(large(folder))[-1])])
    empty = bytearray(last[:DATAGRAM_SIZE])
    struct.pack_into("<I", empty, 36, 20)
    struct.pack_into("<I", last, 20, 1 << 15)
    with large(folder).open("ab") as file:
        file.write(empty + last)
    assert look(folder).cut == {}
    struct.pack_into("<I", last, 20, 0)
    with large(folder).open("ab") as file:
        file.write(last)
    with pytest.raises(DataError, match=f"{re.escape(CAMERA)}.smd.xtc: has not all shots"):
        look(folder)


def test_a_frame_of_fewer_bytes_than_pixels_is_no_picture(folder, stand_in):
    """psana gives its shape, and in the rest of it what happens to lie behind it in memory."""
    shortened(folder)
    with open_here("psana1", "amo86815", str(folder), "xtcav", None) as source:
        assert source.shots(70)["status"][4] == USABLE
        with pytest.raises(
            DataError, match=f"{CAMERA}.xtc: offset .* 96 x 80 pixels of 12 bits in 13360 bytes"
        ):
            list(source.frames(70, range(30)))
    with pytest.raises(DataError, match="96 x 80 pixels of 12 bits in 13360 bytes"):
        XtcSource(str(folder), "xtcav").shots(70)
