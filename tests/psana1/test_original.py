"""psana 1 itself against the native reader: the same shots, records and pixels, and no wrong one."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.errors import DataError
from common.shots import ID_FIELDS
from prepare.config import load_config
from prepare.formats.xtc1.format import L1_ACCEPT
from prepare.formats.xtc1.reader import XtcFile
from prepare.shots import NO_FRAME, SHOT_DTYPE, USABLE
from prepare.sources.base import Source
from prepare.sources.native import XtcSource
from prepare.sources.psana import open_psana
from tests.prepare.conftest import XTC1
from tests.prepare.small_data import write_small_data
from tests.prepare.test_psana1_files import CAMERA, CUT, DAQ, REFUSED, large, shortened, shots
from tests.prepare.test_xtc_reader import RUNS

CAMERA_FRAME = struct.pack("<II", 0x2E000300, 2 | 1 << 16)  # phy and type of the camera's Xtc


@pytest.fixture
def open_original(write_config):
    """psana 1 in its process, and the native reader, for a folder."""
    opened = []

    def open_both(folder: Path) -> tuple:
        config = load_config(write_config(folder, source__kind="psana1"))
        opened.append(open_psana(config, keep_listings=False))
        return opened[-1], XtcSource(str(folder), "xtcav")

    yield open_both
    for source in opened:
        source.close()


def assert_same(original: Source, native: Source, run: int) -> None:
    """The same shots, records and pixels; psana does not show what it skips, nor damaged frames as such."""
    ours, theirs = native.shots(run), original.shots(run)
    shown = ours[ours["fiducial"] < 131_040]
    for name in SHOT_DTYPE.names:
        if name == "status":
            assert np.array_equal(theirs[name], np.where(shown[name] == USABLE, USABLE, NO_FRAME))
        else:
            np.testing.assert_array_equal(theirs[name], shown[name])
    frames = [r.frame for r in native.frames(run, np.flatnonzero(ours["status"] == USABLE).tolist())]
    given = original.frames(run, np.flatnonzero(theirs["status"] == USABLE).tolist())
    for frame, result in zip(frames, given):
        assert result.frame.dtype == frame.dtype
        assert np.array_equal(result.frame, frame)


def edit(path: Path, n: int, change) -> None:
    """Change the `n`-th L1Accept of a file: `change` gets the file's bytes and where it begins."""
    content = bytearray(path.read_bytes())
    change(content, shots(path)[n][0])
    path.write_bytes(content)


@pytest.mark.parametrize("name, run, events", RUNS)
def test_gives_what_it_gave(folder, open_original, name, run, events):
    original, native = open_original(folder(name))
    assert_same(original, native, run)
    listed = original.shots(run)
    keys = list(zip(*(listed[field].tolist() for field in ID_FIELDS[1:])))
    expected = {}
    for line in (XTC1 / name / events).read_text().splitlines():
        event = json.loads(line)
        expected[event["sec"], event["nsec"], event["fid"]] = event.get("crc32")
    assert sorted(expected) == keys
    for result in original.frames(run, range(len(keys))):
        crc = expected[keys[result.index]]
        assert (result.frame is None) == (crc is None)
        assert crc is None or zlib.crc32(np.ascontiguousarray(result.frame)) == int(crc, 16)


def skew(folder: Path, seconds: int) -> None:
    """The camera's clock is `seconds` off."""
    path = large(folder)
    content = bytearray(path.read_bytes())
    with XtcFile(path) as file:
        for datagram in file.datagrams():
            if datagram.transition == L1_ACCEPT:
                struct.pack_into("<I", content, datagram.start + 4, datagram.seconds + seconds)
    path.write_bytes(content)


def fiducial(folder: Path, stem: str, n: int, value: int) -> None:
    def change(content: bytearray, at: int) -> None:
        word = struct.unpack_from("<I", content, at + 12)[0]
        struct.pack_into("<I", content, at + 12, word & ~0x1FFFF | value)

    edit(large(folder, stem), n, change)


def fiducial_of(folder: Path, stem: str, n: int) -> int:
    return (
        struct.unpack_from("<I", large(folder, stem).read_bytes(), shots(large(folder, stem))[n][0] + 12)[0]
        & 0x1FFFF
    )


def again(folder: Path, stem: str, n: int, of: int) -> None:
    """The `n`-th event has the fiducial of the event `of`."""
    fiducial(folder, stem, n, fiducial_of(folder, stem, of))


CHANGES = {
    "the camera's clock a minute late": lambda f: skew(f, 60),
    "the camera's clock a minute early": lambda f: skew(f, -60),
    "the camera's clock 100 s off": lambda f: skew(f, 100),
    "a DAQ fiducial of 0x1ffff": lambda f: fiducial(f, DAQ, 3, 0x1FFFF),
    "a camera's fiducial of 0x1ffff": lambda f: fiducial(f, CAMERA, 3, 0x1FFFF),
    "shots that one stream alone has": lambda f: [fiducial(f, CAMERA, n, 1061 + 3 * n) for n in (2, 5)],
    "trimmed by the level-3 trigger": lambda f: edit(
        large(f, DAQ), 4, lambda content, at: struct.pack_into("<I", content, at + 16, 1 << 31)
    ),
    "EBeam of user-defined damage": lambda f: edit(
        large(f, DAQ),
        4,
        lambda content, at: struct.pack_into(
            "<I", content, content.index(struct.pack("<I", 15 | 7 << 16), at) - 12, 1 << 14
        ),
    ),
    "EBeam version 6": lambda f: edit(
        large(f, DAQ),
        4,
        lambda content, at: struct.pack_into(
            "<I", content, content.index(struct.pack("<I", 15 | 7 << 16), at), 15 | 6 << 16
        ),
    ),
    "a DAQ fiducial that is smaller": lambda f: fiducial(f, DAQ, 4, fiducial_of(f, DAQ, 4) - 7),
    "DAQ fiducials that begin again": lambda f: [fiducial(f, DAQ, n, 5 + 3 * n) for n in range(5, 15)],
    "a DAQ fiducial twice": lambda f: again(f, DAQ, 4, 3),
    "a camera's fiducial twice in a row": lambda f: again(f, CAMERA, 4, 3),
    "a camera's fiducial later": lambda f: again(f, CAMERA, 14, 3),
    "a camera's fiducial earlier": lambda f: again(f, CAMERA, 0, 28),
    "a camera's fiducial three times": lambda f: [again(f, CAMERA, n, 3) for n in (4, 5)],
    "an incomplete DAQ datagram": lambda f: edit(
        large(f, DAQ), 4, lambda c, at: struct.pack_into("<I", c, at + 20, 1 << 15)
    ),
    "an incomplete datagram of the camera": lambda f: edit(
        large(f), 4, lambda c, at: struct.pack_into("<I", c, at + 20, 1 << 15)
    ),
    "a damaged frame": lambda f: edit(
        large(f), 4, lambda c, at: struct.pack_into("<I", c, c.index(CAMERA_FRAME, at) - 8, 1 << 12)
    ),
    "an incomplete frame": lambda f: edit(
        large(f), 4, lambda c, at: struct.pack_into("<I", c, c.index(CAMERA_FRAME, at) - 8, 1 << 15)
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_both_readers_keep_and_drop_the_same_shots(folder, open_original, what):
    runs = folder()
    CHANGES[what](runs)
    write_small_data(runs)
    assert_same(*open_original(runs), 70)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_builds_through_either_reader_are_the_same(prepare, write_config, folder, tmp_path, jobs):
    runs = folder()
    assert prepare("select", write_config(runs)).exit_code == 0
    found = []
    for kind in ("psana1", "xtc"):
        config = write_config(runs, source__kind=kind)
        assert prepare("list", config).exit_code == 0
        result = prepare("build", config, "--force", "--jobs", jobs)
        assert result.exit_code == 0, result.output
        assert prepare("verify", str(tmp_path / "data" / "small.h5")).exit_code == 0
        with h5py.File(tmp_path / "data" / "small.h5") as file:
            found.append(
                {f"{s}/{n}": file[s][n][...] for s in ("train", "test") for n in ("images", *ID_FIELDS)}
            )
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    assert prepare("check-psana", write_config(runs, source__kind="psana1")).exit_code == 0


@pytest.mark.parametrize("name", ["with space", "with:colon", "a, b; c='d'\t%e", "größe"])
def test_a_folder_may_have_any_name(folder, open_original, name):
    runs = folder("plain")
    renamed = runs.rename(runs.parent / name)
    assert_same(*open_original(renamed), 54)


def test_a_psana_cfg_in_the_working_directory_is_not_read(folder, open_original, tmp_path, monkeypatch):
    (tmp_path / "psana.cfg").write_text("[psana]\nevents = 7\n")
    monkeypatch.chdir(tmp_path)
    assert len(open_original(folder())[0].shots(69)) == 40


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_would_not_survive_is_one_line(folder, open_original, what):
    change, line = REFUSED[what]
    runs = folder()
    change(runs)
    with pytest.raises(DataError, match=line):
        open_original(runs)[0].shots(70)


@pytest.mark.parametrize("where", CUT)
def test_no_wrong_picture_comes_out_of_a_file_that_is_cut_off(folder, open_original, where):
    at, missing = CUT[where]
    runs = folder()
    every = shots(large(runs))
    truth = XtcSource(str(XTC1 / "experiment"), "xtcav")
    os.truncate(large(runs), at(every))
    original, _ = open_original(runs)
    usable = np.flatnonzero(truth.shots(70)["status"] == USABLE)
    assert np.array_equal(np.flatnonzero(original.shots(70)["status"] == USABLE), usable[:-missing])
    for result in original.frames(70, usable.tolist()):
        assert result.frame is None or np.array_equal(result.frame, truth.frame(70, result.index))


def test_a_frame_of_fewer_bytes_than_pixels_is_no_picture(folder, open_original):
    runs = folder()
    shortened(runs)
    original, _ = open_original(runs)
    with pytest.raises(DataError, match="96 x 80 pixels of 12 bits in 13360 bytes"):
        list(original.frames(70, range(30)))


def test_a_frame_that_is_much_larger_than_what_is_there_is_one_line(folder, open_original):
    """psana would die of it."""
    runs = folder()

    def enlarge(content: bytearray, at: int) -> None:
        struct.pack_into("<II", content, content.index(CAMERA_FRAME, at) + 12, 60_000, 60_000)

    edit(large(runs), 4, enlarge)
    original, _ = open_original(runs)
    with pytest.raises(DataError, match="60000 x 60000 pixels of 12 bits in 15360 bytes"):
        list(original.frames(70, range(30)))
