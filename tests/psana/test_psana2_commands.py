"""The commands on xtc2 files, through the real psana 2, and writing such files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.errors import DataError
from prepare.formats import xtc2
from prepare.simulate import xtc2 as writer
from tests.psana.conftest import CAMERA_FILE, CAMERA_SMALL
from tests.psana.test_ranks import ENVIRONMENT, MPIRUN

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
