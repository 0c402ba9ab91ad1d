"""Names by psana's rules: of detectors, and of the files of a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from common.errors import DataError
from prepare.formats.files import FileName, parse_name
from prepare.formats.xtc1.addresses import XTCAV_ADDRESS, address_of, source_phy
from prepare.sources.native import XtcSource
from tests.prepare.conftest import XTC1
from tests.prepare.small_runs import frame, shot
from tests.prepare.test_xtc_shots import read, segment


@pytest.mark.parametrize(
    "address, phy",
    [
        (XTCAV_ADDRESS, 0x2E000300),
        ("XppEndstation.0:Opal2000.3", 0x16001203),
        ("AmoVMI.0:Opal1000.0", 0x06000300),
        ("CxiDs1.1:Cspad.0", 0x20010A00),
        ("DetLab.255:Alvium.7", 0x34FF3907),
        ("46.0:3.0", 0x2E000300),
    ],
)
def test_addresses_by_psanas_names(address, phy):
    assert source_phy(address) == phy
    assert source_phy(address_of(phy)) == phy


@pytest.mark.parametrize(
    "address, said",
    [("XrayTransportDiagnostics.0:Opal1000.0", "no detector '.*'; did you mean 'XrayTransportDiagnostic'"),
     ("XppEndstation.0:Opal200.3", "no device 'Opal200'; did you mean 'Opal2000'"),
     ("AmoEndstation.0:Opal1000.256", "256 is no number of a detector")],
)  # fmt: skip
def test_an_address_that_there_is_not_is_no_alias(tmp_path, address, said):
    with pytest.raises(DataError, match=said):
        read(tmp_path, {0: [shot(0, segment([frame(0)]))]}, address)


@pytest.mark.parametrize("kind", ["dead link", "link to itself", "folder", "pipe", "no permission"])
@pytest.mark.parametrize("chunk", ["e815-r0055-s80-c03.xtc", "e815-r0055-s01-c01.xtc"])
def test_what_has_a_runs_name_and_cannot_be_read_is_named(tmp_path, kind, chunk, monkeypatch):
    folder = tmp_path / "untidy"
    shutil.copytree(XTC1 / "untidy", folder)
    path = folder / chunk
    path.unlink()
    if kind == "dead link":
        path.symlink_to("gone.xtc")
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # to open it would wait for ever
    else:
        path.write_bytes(b"")
        access = os.access
        monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != path and access(p, mode))
    with pytest.raises(DataError, match=f"{chunk}: .*: its shots are missing"):
        XtcSource(str(folder), XTCAV_ADDRESS).shots(55)


@pytest.mark.parametrize(
    "name, form, parts",
    [("e815-r0070-s80-c00.xtc", "xtc", ("e815", 70, 80, 0)),
     ("amox12345-r12345-s00-c10.xtc.inprogress", "xtc", ("amox12345", 12345, 0, 10)),
     ("tmo-a-r0001-s010-c000.xtc2", "xtc2", ("tmo-a", 1, 10, 0)),
     ("e815-r0070-s80-c00.xtc2", "xtc", None), ("e815-r0070-s80-c00.xtc", "xtc2", None),
     ("e815-r0070-s80-c00.smd.xtc", "xtc", None), ("partial.e815-r0070-s80-c00.xtc", "xtc", None),
     ("e815-r70-s80-c00.xtc", "xtc", None), ("e815-r0070-s80-c00.xtc.bak", "xtc", None)],
)  # fmt: skip
def test_names_of_files(name, form, parts):
    found = parse_name(name, form)
    assert found == (None if parts is None else FileName(*parts, form))
    if found is not None:
        assert name.startswith(str(found))
