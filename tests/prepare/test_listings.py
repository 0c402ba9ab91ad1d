"""Listings that are kept: used while nothing changed, made again when something did."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from prepare.sources.listings import Listings
from tests.prepare.conftest import XTC1, make_shots
from tests.prepare.small_data import write_small_data

SHOTS = make_shots(70, 5)


@pytest.fixture
def kept(tmp_path):
    """A folder of listings, a data file, and a function that asks; it says whether the run was read."""
    data = tmp_path / "data.xtc2"
    data.write_bytes(b"x" * 100)

    def ask(made_by: tuple = ("psana2", "xtcav"), shots: np.ndarray = SHOTS) -> bool:
        read = []
        given = Listings(tmp_path / "kept").get(70, made_by, [data], lambda: read.append(1) or shots)
        assert given.dtype == SHOTS.dtype
        assert given.tobytes() == shots.tobytes()
        return bool(read)

    ask.data, ask.folder = data, tmp_path / "kept"
    return ask


def test_a_run_is_read_once(kept):
    assert [kept(), kept(), kept()] == [True, False, False]


def test_it_is_read_again_when_a_file_or_the_camera_changed(kept):
    kept()
    kept.data.write_bytes(b"x" * 101)
    assert kept()
    os.utime(kept.data, ns=(1, 1))
    assert kept()
    assert kept(("psana2", "another"))
    assert not kept(("psana2", "another"))
    assert len(list(kept.folder.iterdir())) == 1  # the stale ones are gone


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_damaged_listing_is_made_again(kept, at):
    kept()
    (path,) = kept.folder.iterdir()
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    assert kept()
    path.write_bytes(b"")
    assert kept()
    assert not kept()


def test_where_it_cannot_be_kept_a_warning_says_so(kept, capsys):
    kept.folder.write_text("a file where the folder would be")
    assert kept()
    assert kept()
    assert "the listing of run 70 is not kept for the next command" in capsys.readouterr().err


def test_nothing_is_kept_unasked(tmp_path):
    reads = []
    for _ in range(2):
        Listings(None).get(70, (), [], lambda: reads.append(1) or SHOTS)
    assert len(reads) == 2


def test_build_lists_no_run_that_select_has_listed_and_check_psana_trusts_none(
    prepare, write_config, stand_in, tmp_path, monkeypatch
):
    folder = tmp_path / "experiment"
    shutil.copytree(XTC1 / "experiment", folder)
    write_small_data(folder)
    log = tmp_path / "listed"
    monkeypatch.setenv("STAND_IN_LOG", str(log))
    config = write_config(folder, source__kind="psana1")

    def opened(command: str) -> list:
        log.write_text("")
        assert prepare(command, config).exit_code == 0
        return sorted(log.read_text().split())

    assert opened("select") == ["69", "70", "71"]
    assert opened("build") == [
        "68",
        "68",
        "68",
        "69",
        "70",
        "71",
    ]  # 68 is listed, all are read, the dark twice
    (path,) = (tmp_path / "data").glob("*.h5")
    path.unlink()
    small = folder / "smalldata" / "e815-r0070-s80-c00.smd.xtc"
    os.utime(small, ns=(1, 1))
    assert opened("build") == ["68", "68", "69", "70", "70", "71"]  # small data count as well
    assert opened("check-psana") == ["68", "68", "69", "69", "70", "70", "71", "71"]
