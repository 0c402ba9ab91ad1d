"""Which events are shots, and what is in their records: the native reader keeps and drops what psana does."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from common.shots import EBEAM_UNITS, GAS_DETECTOR_UNITS, RECORD_DTYPE
from prepare.formats.xtc1 import writer
from prepare.formats.xtc1.addresses import XTCAV_ADDRESS
from prepare.formats.xtc1.records import EBEAM_FIELDS, GAS_DETECTOR_FIELDS
from prepare.shots import DAMAGED, DUPLICATE, NO_FRAME, USABLE
from prepare.sources.native import XtcSource
from tests.prepare import small_runs
from tests.prepare.small_runs import EBEAM, GAS, RUN, ebeam, frame, gas_detector, keys, placeholder, shot

REAL = Path(__file__).parents[1] / "data" / "real_xtc1"
segment = writer.segment
OUT_OF_ORDER, USER, INCOMPLETE, CONTAINS_INCOMPLETE = 1 << 12, 1 << 14, 1 << 15, 1 << 16
DROPPED, TRIMMED = 1 << 1, 1 << 31


def read(folder: Path, streams: dict, address: str = XTCAV_ADDRESS):
    """The shots of a run of these streams, and the value of the pixels of each frame (None without one)."""
    source = XtcSource(str(small_runs.write(folder / "run", streams)), address)
    shots = source.shots(RUN)
    frames = [
        source.frame(RUN, i)[0, 0] if status == USABLE else None for i, status in enumerate(shots["status"])
    ]
    source.close()
    return shots, frames


# --- real files ----------------------------------------------------------------------------------

REAL_FILES = sorted(path.name for path in REAL.glob("*.xtc"))


def as_a_run(name: str, folder: Path) -> XtcSource:
    """The source of a real file under a name that run files have."""
    shutil.copy(REAL / name, folder / "e413-r0099-s02-c00.xtc")
    return XtcSource(str(folder), "AmoVMI.0:Opal1000.0")


def test_all_nine_real_files_are_there():
    assert len(REAL_FILES) == 9


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_give_what_psana_gives(name, tmp_path):
    source = as_a_run(name, tmp_path)
    shots = source.shots(99)
    given = [json.loads(line) for line in (REAL / "psana1.jsonl").read_text().splitlines()]
    events = [event for event in given if event["file"] == name]
    assert set(keys(shots)) == {tuple(event["key"]) for event in events}
    assert len(shots) == len(set(keys(shots)))
    for i, key in enumerate(keys(shots)):
        of_key = [event for event in events if tuple(event["key"]) == key]
        frames = [event["crc"] for event in of_key if "crc" in event]
        assert (shots["status"][i] == USABLE) == bool(frames)
        if frames:
            assert zlib.crc32(np.ascontiguousarray(source.frame(99, i))) == frames[0]
        for record, names in (("ebeam", EBEAM_UNITS), ("gas", GAS_DETECTOR_UNITS)):
            expected = next((event[record] for event in of_key if record in event), {})
            for field in names:
                value = expected.get(field)
                np.testing.assert_equal(shots[field][i], np.nan if value is None else value)
    source.close()


def test_a_real_ebeam_record_with_user_defined_damage(tmp_path):
    (shot_,) = as_a_run("amo68413-r99-s02-userEbeamDamage.xtc", tmp_path).shots(99)
    assert shot_["ebeamCharge"] == 0.019605993696
    assert np.isnan(shot_["ebeamPkCurrBC1"])  # mask 0x100
    assert shot_["ebeamEnergyBC1"] == -0.2480001449584961


# --- records -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage, kept",
    [(0, True), (USER, True), (USER | 0xFF << 24, True), (0xFF << 24, False), (USER | OUT_OF_ORDER, False),
     (OUT_OF_ORDER, False), (DROPPED, False), (USER | INCOMPLETE, False),
     (USER | CONTAINS_INCOMPLETE, False)],
)  # fmt: skip
def test_user_defined_damage_alone_is_accepted_for_ebeam_and_for_nothing_else(tmp_path, damage, kept):
    record = ebeam(damage=damage, mask=0x3C00)
    parts = (record, gas_detector(damage=damage), segment([frame(0, damage=damage)]))
    shots, _ = read(tmp_path, {0: [shot(0, *parts), shot(1, segment([frame(1)]))]})
    fields = [shots[name][0] for name in EBEAM_UNITS]
    expected = [np.nan if 0x3C00 >> n & 1 or not kept else value for n, value in enumerate(EBEAM)]
    np.testing.assert_equal(fields, expected)
    assert np.isnan(shots["f_11_ENRC"][0]) == (damage != 0)
    assert shots["status"].tolist() == [DAMAGED if damage else USABLE, USABLE]


@pytest.mark.parametrize("version", EBEAM_FIELDS)
def test_every_version_of_ebeam(tmp_path, version, capsys):
    there = EBEAM_FIELDS[version]
    shots, _ = read(tmp_path, {0: [shot(0, ebeam(version, values=EBEAM[:there]), segment([frame(0)]))]})
    fields = [shots[name][0] for name in EBEAM_UNITS]
    np.testing.assert_equal(fields, [*EBEAM[:there], *[np.nan] * (20 - there)])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("version", GAS_DETECTOR_FIELDS)
def test_every_version_of_the_gas_detector(tmp_path, version):
    there = GAS_DETECTOR_FIELDS[version]
    record = gas_detector(version, GAS[:there])
    shots, _ = read(tmp_path, {0: [shot(0, record, segment([frame(0)]))]})
    fields = [shots[name][0] for name in GAS_DETECTOR_UNITS]
    np.testing.assert_equal(fields, [*GAS[:there], *[np.nan] * (6 - there)])


@pytest.mark.parametrize(
    "record, said",
    [(ebeam(8), "EBeam version 8 of 164 bytes is not read, only versions 0 to 7"),
     (ebeam(7, values=EBEAM[:10]), "EBeam version 7 of 84 bytes is not read"),
     (gas_detector(2), "FEEGasDetEnergy version 2 of 48 bytes is not read, only versions 0 to 1"),
     (gas_detector(1, GAS[:4]), "FEEGasDetEnergy version 1 of 32 bytes is not read")],
)  # fmt: skip
def test_a_record_of_an_unknown_kind_is_named_once(tmp_path, record, said, capsys):
    shots, frames = read(tmp_path, {0: [shot(n, record, segment([frame(n)])) for n in range(5)]})
    assert frames == [0, 1, 2, 3, 4]
    assert all(np.isnan(shots[name]).all() for name in RECORD_DTYPE.names)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert said in warning


# --- which events are shots ----------------------------------------------------------------------

N = 8


@pytest.mark.parametrize("flag", [0, DROPPED])
@pytest.mark.parametrize("frame_in", [0, 1])
@pytest.mark.parametrize("apart", [False, True])
def test_a_split_event_is_one_shot_with_its_frame_and_its_records(tmp_path, flag, frame_in, apart):
    """The DAQ writes what comes late as a datagram of its own of the same time, at once or later."""
    first, second = [], []
    for n in range(N):
        parts = [(ebeam(),), (gas_detector(),)]
        parts[frame_in] += (segment([frame(n)]),)
        parts[1 - frame_in] += (segment([placeholder()], DROPPED),)
        first.append(shot(n, *parts[0], damage=flag))
        second.append(shot(n, *parts[1], damage=flag))
    stream = [*first, *second] if apart else [part for both in zip(first, second) for part in both]
    shots, frames = read(tmp_path, {0: stream})
    assert frames == list(range(N))
    assert (shots["ebeamCharge"] == EBEAM[0]).all()
    assert (shots["f_11_ENRC"] == GAS[0]).all()


def test_of_a_split_event_the_damaged_frame_is_known(tmp_path):
    stream = [
        shot(0, ebeam()),
        shot(0, segment([frame(0, damage=OUT_OF_ORDER)])),
        shot(1, segment([frame(1)])),
    ]
    shots, _ = read(tmp_path, {0: stream})
    assert shots["status"].tolist() == [DAMAGED, USABLE]


def test_of_two_frames_of_one_time_the_first_counts(tmp_path):
    stream = [shot(0, segment([frame(1)])), shot(0, segment([frame(2)]))]
    shots, frames = read(tmp_path, {0: stream})
    assert frames == [1, None]
    assert shots["status"].tolist() == [USABLE, DUPLICATE]


def test_a_fiducial_of_two_events_is_no_shots(tmp_path, capsys):
    """Of the DAQ or of a recorder, less than 85 s apart: whose the frame is cannot be told; a part of a split
    event has the time of the other part.
    """
    daq = [shot(n, ebeam(), fiducial=1000 + 3 * (n - (n == 2))) for n in range(6)]
    daq.insert(4, shot(4, gas_detector(), fiducial=1012, damage=DROPPED))
    recorder = [shot(n, segment([frame(n)]), fiducial=1000 + 3 * (n + (n == 2))) for n in (0, 1, 2, 3, 4, 5)]
    shots, frames = read(tmp_path, {0: daq, 80: recorder})
    assert len(shots) == 6 and frames == [0, None, None, None, 4, 5]
    assert "3 events of the camera recorder are left out: more than one event has" in capsys.readouterr().err
    far = [shot(0, ebeam()), shot(1, ebeam(), fiducial=1000, skew=85)]
    _, frames = read(tmp_path, {0: far, 80: [shot(0, segment([frame(7)]))]})
    assert frames == [7, None]


def test_two_events_of_one_time_in_the_recorders_stream_are_trusted_neither(tmp_path, capsys):
    recorder = [shot(n, segment([frame(n)]), skew=3) for n in range(N)]
    recorder.insert(3, shot(3, segment([frame(99)]), skew=3))
    shots, frames = read(tmp_path, {0: [shot(n, ebeam()) for n in range(N)], 80: recorder})
    assert frames == [0, 1, 2, None, 4, 5, 6, 7]
    assert "2 events of the camera recorder share their time" in capsys.readouterr().err


def test_the_parts_of_a_split_recorder_event_are_one(tmp_path):
    parts = [
        shot(n, segment([content], DROPPED), skew=3, damage=DROPPED)
        for n in range(N)
        for content in (placeholder(), frame(n))
    ]
    _, frames = read(tmp_path, {0: [shot(n, ebeam()) for n in range(N)], 80: parts})
    assert frames == list(range(N))


@pytest.mark.parametrize("others_stream", [80, 82])
def test_another_cameras_recorder_takes_no_frame_away(tmp_path, others_stream):
    streams = {
        0: [shot(n, ebeam()) for n in range(N)],
        81: [shot(n, segment([frame(n)]), skew=5) for n in range(N)],
        others_stream: [shot(n, segment([frame(n + 50, 0x2E010300)]), skew=3) for n in range(N)],
    }
    shots, frames = read(tmp_path, streams)
    assert frames == list(range(N))
    assert (shots["ebeamCharge"] == EBEAM[0]).all()


def test_shots_of_the_recorders_alone_have_the_first_streams_time(tmp_path):
    streams = {
        0: [shot(0, ebeam())],
        80: [shot(n, segment([frame(n + 50, 0x2E010300)]), skew=5) for n in range(3)],
        81: [shot(n, segment([frame(n)]), skew=3) for n in range(3)],
    }
    shots, frames = read(tmp_path, streams)
    assert frames == [0, 1, 2]
    assert shots["seconds"].tolist() == [small_runs.START, small_runs.START + 5, small_runs.START + 5]


@pytest.mark.parametrize("camera", [0, 80])
def test_what_the_level_3_trigger_trimmed_is_no_shot(tmp_path, camera, capsys):
    """Also where the camera's recorder kept the frame."""
    trimmed = [n % 3 == 0 for n in range(N)]
    streams = {0: [shot(n, ebeam(), env=TRIMMED * trimmed[n]) for n in range(N)]}
    if camera:
        streams[80] = [shot(n, segment([frame(n)]), skew=3) for n in range(N)]
    else:
        streams[0] = [shot(n, segment([frame(n)]), env=TRIMMED * trimmed[n]) for n in range(N)]
    _, frames = read(tmp_path, streams)
    assert frames == [n for n in range(N) if not trimmed[n]]
    assert "run 7: 3 events that the level-3 trigger trimmed are left out" in capsys.readouterr().err


def test_bit_31_of_a_recorders_event_means_nothing(tmp_path):
    recorder = [shot(n, segment([frame(n)]), skew=3, env=TRIMMED) for n in range(N)]
    assert read(tmp_path, {0: [shot(n, ebeam()) for n in range(N)], 80: recorder})[1] == list(range(N))


def test_events_of_epics_values_alone_are_no_shots(tmp_path, capsys):
    epics = segment([writer.source(13, 1, 0x09000000, b"\0" * 32)])
    stream = [shot(0, ebeam()), shot(1, epics), shot(2), shot(3, epics, segment([frame(3)]))]
    _, frames = read(tmp_path, {0: stream})
    assert frames == [None, 3]
    assert "2 events without any data but EPICS are left out" in capsys.readouterr().err


# --- parts that did not arrive -------------------------------------------------------------------


def broken(n: int, where: str, bit: int) -> tuple:
    """The contents of shot `n`, with its camera's part marked as not having arrived whole."""
    if where == "frame":
        return (segment([frame(n, damage=bit)]),)
    if where == "placeholder":
        return (segment([placeholder(bit)]),)
    if where == "camera's container":
        return (segment([writer.source(1, 1, small_runs.CAMERA, frame(n)[:30], bit)]),)
    return (segment([frame(n)[:30]], bit),)


@pytest.mark.parametrize("where", ["frame", "placeholder", "camera's container", "segment"])
@pytest.mark.parametrize("camera", [0, 80])
def test_an_incomplete_contribution_is_damaged_not_missing(tmp_path, where, camera):
    contents = [broken(n, where, INCOMPLETE) if n % 2 else (segment([frame(n)]),) for n in range(N)]
    if camera:
        streams = {0: [shot(n, ebeam()) for n in range(N)], 80: [shot(n, *c) for n, c in enumerate(contents)]}
    else:
        streams = {0: [shot(n, ebeam(), *c) for n, c in enumerate(contents)]}
    shots, _ = read(tmp_path, streams)
    assert shots["status"].tolist() == [USABLE, DAMAGED] * (N // 2)
    assert (shots["ebeamCharge"] == EBEAM[0]).all()


@pytest.mark.parametrize("where", ["frame", "placeholder"])
def test_what_contains_incomplete_is_damaged(tmp_path, where):
    contents = broken(1, where, CONTAINS_INCOMPLETE)
    shots, _ = read(tmp_path, {0: [shot(0, segment([frame(0)])), shot(1, *contents)]})
    assert shots["status"].tolist() == [USABLE, DAMAGED]


def test_a_datagram_that_is_incomplete_is_no_event(tmp_path, capsys):
    """Nobody knows what is in it, and psana has no small data of it."""
    shots, _ = read(tmp_path, {0: [shot(n, segment([frame(n)]), damage=INCOMPLETE * n) for n in range(2)]})
    assert shots["status"].tolist() == [USABLE]
    assert "1 events did not arrive completely and are left out" in capsys.readouterr().err


def test_an_incomplete_part_of_another_detector_leaves_the_frame_alone(tmp_path):
    other = segment([writer.source(1, 1, 0x01000300, b"\0" * 20, INCOMPLETE)], INCOMPLETE)
    shots, frames = read(tmp_path, {0: [shot(n, other, segment([frame(n)])) for n in range(2)]})
    assert frames == [0, 1]
    streams = {0: [shot(n, ebeam(), other) for n in range(3)], 80: [shot(0, segment([frame(0)]))]}
    shots, _ = read(tmp_path, streams)
    assert shots["status"].tolist() == [USABLE, NO_FRAME, NO_FRAME]  # the camera writes elsewhere


def test_a_placeholder_for_what_was_dropped_is_missing(tmp_path):
    shots, _ = read(tmp_path, {0: [shot(0, segment([frame(0)])), shot(1, segment([placeholder()], DROPPED))]})
    assert shots["status"].tolist() == [USABLE, NO_FRAME]


def test_a_compressed_frame_says_what_reads_it(tmp_path):
    compressed = bytearray(frame(0))
    compressed[15] |= 0x80
    with pytest.raises(DataError, match=r"s00-c00.xtc: offset \d+: the frame is compressed.*kind: psana"):
        read(tmp_path, {0: [shot(0, segment([bytes(compressed)]))]})
