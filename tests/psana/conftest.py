"""Fixtures for tests that need the real psana 2: the same small runs as XTC and as xtc2, and no network."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import yaml

os.environ["PS_PARALLEL"] = "none"
try:
    import psana

    REASON = "psana 1 is installed" if hasattr(psana, "MPIDataSource") else ""
except ImportError as error:
    REASON = str(error)
if REASON:  # never a silent skip
    raise pytest.UsageError(f"tests/psana needs psana 2 ({REASON}); run `make test-psana`")

from prepare.config import load_config
from prepare.shots import USABLE
from prepare.simulate.run import simulate
from prepare.sources.psana2 import Psana2Source
from tests.prepare.conftest import prepare as prepare

ADDRESS = "XrayTransportDiagnostic.0:Opal1000.0"
CAMERA_FILE = "amo86815-r0070-s000-c000.xtc2"
CAMERA_SMALL = "smalldata/amo86815-r0070-s000-c000.smd.xtc2"
SIMULATED = {
    "name": "small",
    "camera": {"address": "XrayTransportDiagnostic.0:Opal1000.0", "shape": [96, 80]},
    "runs": {"dark": [68], "classes": {"nolasing": [69], "lasing": [70]}},
    "select": {"train": 20, "test": 10},
    "simulate": {
        "shots": {"dark": 20, "nolasing": 60, "lasing": 60},
        "missing": 0.1,
        "damaged": 0.1,
        "chunk_shots": 25,
    },
}


def open_psana2(folder: Path, camera: str = ADDRESS) -> Psana2Source:
    return Psana2Source(psana, "amo86815", str(folder), camera)


def usable(source: Psana2Source, run: int) -> list:
    return np.flatnonzero(source.shots(run)["status"] == USABLE).tolist()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """psana must not ask the logbook or the calibration database: any look outside fails the test."""

    connect = socket.socket.connect

    def refuse(*args, **_):
        raise AssertionError(f"a look into the network: {args[1:2]}")

    def connect_here(self, address):
        return connect(self, address) if self.family == socket.AF_UNIX else refuse(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def both_formats(tmp_path_factory) -> Path:
    """A folder with the same three runs as XTC and as xtc2 with small data. Not to be written to."""
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**SIMULATED, "source": {"dir": str(folder)}}))
    config = load_config(str(path))
    simulate(config)
    simulate(config, form="xtc2")
    return folder


@pytest.fixture(params=["with small data", "without"])
def folder(request, both_formats, tmp_path) -> Path:
    if request.param == "with small data":
        return both_formats
    for path in both_formats.glob("*.xtc2"):
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.fixture
def runs(both_formats, tmp_path) -> Path:
    """A copy of `both_formats` to be damaged."""
    return Path(shutil.copytree(both_formats, tmp_path / "runs"))


@pytest.fixture
def write_config(tmp_path) -> Callable[..., str]:
    """Write a config for the runs in a folder, with changes such as select__train=8; gives its path."""

    def write(folder: Path, kind: str = "psana", **changes: object) -> str:
        data = {
            **SIMULATED,
            "source": {"kind": kind, "dir": str(folder)},
            "manifest_dir": str(tmp_path / "manifest"),
            "output_dir": str(tmp_path / "data"),
        }
        for dotted, value in changes.items():
            *parents, key = dotted.split("__")
            place = data
            for parent in parents:
                place[parent] = place = dict(place.get(parent, {}))
            place[key] = value
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return str(path)

    return write
