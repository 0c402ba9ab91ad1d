"""The calibration of the XTCAV screen, from the EPICS values of a run."""

from __future__ import annotations

import struct

import pytest

from common.shots import CALIBRATION_UNITS
from prepare.formats.xtc1 import writer
from prepare.formats.xtc1.addresses import XTCAV_ADDRESS
from prepare.sources.native import XtcSource
from tests.prepare import small_runs
from tests.prepare.conftest import XTC1
from tests.prepare.small_runs import RUN, frame, shot
from tests.prepare.test_xtc_shots import as_a_run, segment


def test_the_calibration_of_the_screen_is_read_once_a_run():
    """What the generator wrote into the camera's stream (XTC1); the place of the region is (0, 0)."""
    expected = {"um_per_pixel": 20.0, "streak_strength": 120.0, "rf_amplitude": 75.0, "rf_phase": 90.0,
                "dump_energy": 13.6, "dump_dispersion": 0.56, "roi_start_x": 0, "roi_start_y": 0}  # fmt: skip
    source = XtcSource(str(XTC1 / "experiment"), XTCAV_ADDRESS)
    for run in (68, 69, 70, 71):
        assert source.calibration(run) == expected
    assert set(expected) == set(CALIBRATION_UNITS)


def epics(number: int, value: float, name: str = "") -> bytes:
    """A value of type double, with its name as Configure has it, or with a time as a shot has it."""
    if name:
        payload = struct.pack("<hhh64s", number, 34, 1, name.encode()).ljust(152, b"\0") + struct.pack(
            "<d", value
        )
    else:
        payload = struct.pack("<hhh", number, 20, 1).ljust(24, b"\0") + struct.pack("<d", value)
    return writer.source(13, 1, 0x09000000, payload)


@pytest.mark.parametrize("screen", ["DMP1", "DMPH"])
@pytest.mark.parametrize("at_shot", [None, 0, 120, 300])
def test_values_are_those_of_the_first_shot_that_has_them(tmp_path, screen, at_shot):
    shots = [shot(n, segment([frame(n), *([epics(3, 21.5)] if n == at_shot else [])])) for n in range(302)]
    names = [epics(3, 20.0, f"OTRS:{screen}:695:RESOLUTION"), epics(4, 1.0, "OTRS:LI21:291:RESOLUTION")]
    folder = small_runs.write(tmp_path / "run", {0: shots}, configure=[segment(names)])
    expected = 21.5 if at_shot in (0, 120) else 20.0  # two seconds are looked at
    assert XtcSource(str(folder), XTCAV_ADDRESS).calibration(RUN) == {"um_per_pixel": expected}


def test_a_run_without_such_values_has_no_calibration(tmp_path):
    assert as_a_run("t1.xtc", tmp_path).calibration(99) == {}


def test_values_cut_short_are_no_values(tmp_path):
    cut = writer.source(13, 1, 0x09000000, epics(3, 20.0, "OTRS:DMP1:695:RESOLUTION")[20:100])
    folder = small_runs.write(tmp_path / "run", {0: [shot(0)]}, configure=[segment([cut])])
    assert XtcSource(str(folder), XTCAV_ADDRESS).calibration(RUN) == {}
