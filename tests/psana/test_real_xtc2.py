"""Real LCLS-II runs, of psana's own tests, and what can be wrong with their chunks and small data."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import psana
import pytest
from psana.psexp.ds_base import DataSourceBase

from common.errors import DataError
from prepare.formats import calibration
from prepare.shots import USABLE
from prepare.sources.psana2 import Psana2Source

REAL = Path(__file__).parents[1] / "data" / "real_xtc2"
FIRST = "xpptut15-r0014-s000-c000.xtc2"
SMALL = "smalldata/xpptut15-r0014-s000-c000.smd.xtc2"
NEXT = "data-r0001-s000-c001.xtc2"  # the name that run 14 has for what it goes on in
CAMERA = "xppcspad"


@pytest.fixture
def real(tmp_path):
    """Copy one of the folders, its run 14 under the numbers 15 and 16 as well if `again`."""

    def copy(name: str, again: bool = False) -> Path:
        folder = Path(shutil.copytree(REAL / name, tmp_path / name))
        for path in list(folder.rglob("*-r0014-*")) if again else ():
            for run in ("r0015", "r0016"):
                shutil.copy(path, path.with_name(path.name.replace("r0014", run)))
        return folder

    return copy


def open_folder(folder: Path, camera: str = CAMERA) -> Psana2Source:
    return Psana2Source(psana, "xpptut15", str(folder), camera)


def given_by_psana(folder: Path, monkeypatch) -> dict:
    """{timestamp: frame} of psana's own loop; None where its detector fails."""
    monkeypatch.setattr(DataSourceBase, "_get_file_info_from_db", lambda *_: {})  # the logbook
    source = psana.DataSource(exp="xpptut15", run=14, dir=str(folder), skip_calib_load="all")
    run = next(source.runs())
    camera, frames = run.Detector(CAMERA), {}
    for event in run.events():
        try:
            frames[event.timestamp] = np.vstack(camera.raw.raw(event))
        except TypeError:
            frames[event.timestamp] = None
    return frames


def replace(path: Path, old: str, new: str) -> None:
    assert len(old) == len(new)
    raw = path.read_bytes()
    assert old.encode() in raw
    path.write_bytes(raw.replace(old.encode(), new.encode()))


# --- what psana gives ----------------------------------------------------------------------------


@pytest.mark.parametrize("name, shots, frames", [("chunking", 15, 15), ("mixed_rate", 100, 10)])
def test_gives_what_psana_gives(name, shots, frames, monkeypatch):
    expected = given_by_psana(REAL / name, monkeypatch)
    source = open_folder(REAL / name)
    listed = source.shots(14)
    times = listed["seconds"].astype("u8") << np.uint64(32) | listed["nanoseconds"].astype("u8")
    assert times.tolist() == sorted(expected)
    assert len(listed) == shots
    assert (listed["status"] == USABLE).sum() == frames
    for result, time in zip(source.frames(14, range(shots)), times.tolist()):
        np.testing.assert_array_equal(result.frame, expected[time])


def test_events_without_a_frame_of_the_camera_have_a_reason():
    results = list(open_folder(REAL / "mixed_rate").frames(14, range(20)))
    assert {r.reason for r in results if r.frame is None} == {"no camera frame"}


def listed_as_if_all_had_a_frame(source: Psana2Source) -> Psana2Source:
    source.shots(14)["status"] = USABLE
    return source


def test_a_camera_of_several_streams_needs_small_data(real):
    """One stream's frame would be a part of the picture."""
    folder = real("mixed_rate")
    shutil.rmtree(folder / "smalldata")
    source = open_folder(folder)
    wanted = np.flatnonzero(source.shots(14)["status"] == USABLE).tolist()
    with pytest.raises(DataError, match="run 14: detector 'xppcspad' has parts in 2 streams .*smdwriter"):
        list(source.frames(14, wanted))


def test_a_frame_that_psana_cannot_read_is_missing_with_the_reason(monkeypatch):
    results = list(listed_as_if_all_had_a_frame(open_folder(REAL / "mixed_rate")).frames(14, range(100)))
    assert sum(r.frame is not None for r in results) == 10
    assert {r.reason for r in results if r.frame is None} == {
        "psana could not read the frame (TypeError: object of type 'NoneType' has no len())"
    }


def test_if_psana_can_read_none_it_is_one_line():
    source = listed_as_if_all_had_a_frame(open_folder(REAL / "mixed_rate"))
    with pytest.raises(
        DataError, match="run 14: psana 2: no frame in any of 9 shots: psana could not read .*TypeE"
    ):
        list(source.frames(14, range(1, 10)))


@pytest.mark.parametrize(
    "name, camera, said",
    [
        ("intg_det", "andor", "no raw images of .* 'andor' .*, only calib; detectors with raw images: none"),
        ("intg_det", "epix", "no raw images of detector 'epix'"),
        ("fakesteps", "hsd", "no raw images of detector 'hsd'"),
        ("mixed_rate", "xpphsd", "no raw images of detector 'xpphsd'.*; detectors with raw images: xppcspad"),
        (
            "mixed_rate",
            "opal",
            "no detector 'opal'.*; psana 2 finds epics, epicsinfo, scan, xppcspad, xpphsd",
        ),
    ],
)
def test_a_detector_without_raw_images_is_told_from_those_that_have(name, camera, said):
    with pytest.raises(DataError, match=said):
        open_folder(REAL / name, camera).shots(14)


def test_the_calibration_of_the_screen_from_epics(monkeypatch):
    """These runs have none of XTCAV's values; two others in their place, a number and an array."""
    pvs = {
        **calibration.PVS,
        "um_per_pixel": ("gone", "HX2:DVD:GCC:01:PMON"),
        "rf_phase": ("HX2:DVD:GPI:01:PMON",),
    }
    assert open_folder(REAL / "mixed_rate").calibration(14) == {}
    monkeypatch.setattr(calibration, "PVS", pvs)
    monkeypatch.setattr(calibration, "WANTED", frozenset(pv for of in pvs.values() for pv in of))
    assert open_folder(REAL / "mixed_rate").calibration(14) == {"um_per_pixel": 41.0}
    assert open_folder(REAL / "intg_det").calibration(14) == {}


# --- chunks --------------------------------------------------------------------------------------


def config_of(write_config, folder: Path, camera: str = CAMERA, shape: tuple = (6, 6)) -> str:
    runs = {"dark": [14], "classes": {"off": [15], "on": [16]}}
    changes = {"camera": {"address": camera, "shape": list(shape)}, "runs": runs, "simulate": None}
    return write_config(folder, experiment="xpptut15", select__beam={"min_charge": None}, **changes)


def test_list_shows_a_run_that_goes_on_under_another_name(real, write_config, prepare):
    result = prepare("list", config_of(write_config, real("chunking", again=True)))
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert [row[:4] for row in rows if row[0].isdigit()] == [
        ["14", "dark", "15", "15"], ["15", "off", "15", "15"], ["16", "on", "15", "15"]
    ]  # fmt: skip
    assert "warning" not in result.output


def test_a_later_chunk_with_nobody_before_it_ends_no_command(real, write_config, prepare):
    folder = real("mixed_rate", again=True)
    shutil.copy(REAL / "chunking" / NEXT, folder)
    result = prepare("list", config_of(write_config, folder, shape=(12, 6)))
    assert result.exit_code == 0, result.output
    assert f"warning: {folder / NEXT}: run 1: the first chunk of stream 0 is not there" in result.output


def test_a_chunk_that_is_not_there_is_named(real):
    folder = real("chunking")
    (folder / NEXT).unlink()
    with pytest.raises(DataError, match=f"{FIRST}: goes on in {NEXT}, which is not there"):
        open_folder(folder).shots(14)
    (folder / NEXT).symlink_to("gone")
    with pytest.raises(DataError, match=f"{NEXT}: is a link to gone, which is not there"):
        open_folder(folder).shots(14)


def test_a_first_chunk_that_is_not_there_is_named(real):
    folder = real("chunking")
    (folder / FIRST).rename(folder / FIRST.replace("c000", "c002"))
    with pytest.raises(DataError, match="c002.xtc2: run 14: the first chunk of stream 0 is not there"):
        open_folder(folder).shots(14)


@pytest.mark.parametrize("name", ["data-r0014-s000-c001.xtc2", "xpptut15-r0014-s0-c1.xtc2"])
def test_a_chunk_may_have_any_name(real, name):
    folder = real("chunking")
    new = name.rjust(len(NEXT), "x")
    (folder / NEXT).rename(folder / new)
    for path in (FIRST, SMALL):
        replace(folder / path, NEXT, new)
    source = open_folder(folder)
    assert source.runs() == (14,)
    assert sum(result.frame is not None for result in source.frames(14, range(15))) == 15
    assert [name for name, _ in source.files(14)] == [FIRST, new]


def test_a_chunk_that_no_other_names_is_not_passed_over(real):
    folder = real("mixed_rate")
    shutil.copy(folder / FIRST, folder / FIRST.replace("c000", "c001"))
    with pytest.raises(DataError, match="c001.xtc2: no chunk of stream 0 names it as its next one"):
        open_folder(folder).shots(14)


def test_without_small_data_later_chunks_are_not_read_in_part(real):
    folder = real("chunking")
    shutil.rmtree(folder / "smalldata")
    source = open_folder(folder)
    assert len(source.shots(14)) == 15
    with pytest.raises(DataError, match=f"{NEXT}: psana 2 reads further chunks only with small-data files"):
        list(source.frames(14, range(15)))


def test_a_chunk_of_other_detectors_is_refused(real):
    """psana ends its process there: namesid not found."""
    folder = real("chunking")
    shutil.copy(REAL / "intg_det" / FIRST, folder / NEXT)
    with pytest.raises(DataError, match=f"{NEXT}: offset 0: begins like a first chunk"):
        open_folder(folder).shots(14)
    raw = bytearray((REAL / "chunking" / NEXT).read_bytes())
    raw[124] = 77  # the number of the first data in its first shot
    (folder / NEXT).write_bytes(raw)
    with pytest.raises(DataError, match=f"{NEXT}: offset 136: data that the run's Configure does not name"):
        open_folder(folder).shots(14)


def test_chunks_in_a_circle_are_refused(real):
    folder = real("chunking")
    shutil.rmtree(folder / "smalldata")
    itself = (folder / FIRST).rename(folder / FIRST.replace("xpptut15", "xppt"))
    replace(itself, NEXT, itself.name)
    with pytest.raises(DataError, match=f"{itself.name}: goes on in {itself.name}, which came before it"):
        open_folder(folder).shots(14)


# --- small data ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["xpptut15-r0014-s003-c000", "xpptut15-r0014-s000-c001", "other-r0014-s000-c000"]
)
def test_small_data_that_belong_to_no_stream_are_named(real, name):
    folder = real("mixed_rate")
    shutil.copy(folder / SMALL, folder / "smalldata" / f"{name}.smd.xtc2")
    with pytest.raises(DataError, match=f"{name}.smd.xtc2: belongs to no first chunk of run 14"):
        open_folder(folder).shots(14)


def test_small_data_that_name_another_chunk_are_refused(real):
    folder = real("chunking")
    replace(folder / SMALL, NEXT, NEXT.replace("c001", "c009"))
    with pytest.raises(
        DataError, match="smd.xtc2: goes on in data-r0001-s000-c009.xtc2, .* in data-r0001-s000-c001"
    ):
        open_folder(folder).shots(14)


def test_small_data_that_are_a_dead_link_are_named(real):
    folder = real("mixed_rate")
    (folder / SMALL).unlink()
    (folder / SMALL).symlink_to("gone")
    with pytest.raises(DataError, match="smd.xtc2: is a link to gone, which is not there"):
        open_folder(folder).shots(14)


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("path", [FIRST, SMALL])
def test_flipped_bytes_end_in_a_table_or_in_one_line(real, write_config, prepare, seed, path):
    """psana ends its process at some of them: then that is the line."""
    folder = real("chunking", again=True)
    raw = bytearray((folder / path).read_bytes())
    rng = random.Random(f"{path} {seed}")
    for _ in range(8):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    (folder / path).write_bytes(raw)
    result = prepare("list", config_of(write_config, folder))
    assert result.exit_code in (0, 2), result.output
    errors = [line for line in result.output.splitlines() if line.startswith("error:")]
    assert len(errors) == (result.exit_code == 2)
    rows = [line.split()[:3] for line in result.output.splitlines()]
    assert ["15", "off", "15"] in rows  # the other runs are listed, whatever became of run 14
