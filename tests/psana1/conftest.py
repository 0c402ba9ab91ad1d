"""Tests with the original psana 1, in the LCLS-I environment: `python -m pytest tests/psana1`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Callable

import pytest

try:
    import psana

    REASON = "" if hasattr(psana, "MPIDataSource") else "psana 2 is installed"
except ImportError as error:
    REASON = str(error)
if REASON:  # never a silent skip
    raise pytest.UsageError(f"tests/psana1 needs psana 1 ({REASON}); run it in the LCLS-I environment")

from tests.prepare.conftest import XTC1
from tests.prepare.conftest import prepare as prepare
from tests.prepare.conftest import write_config as write_config
from tests.prepare.small_data import write_small_data


@pytest.fixture
def folder(tmp_path) -> Callable[[str], Path]:
    """Copy a folder of tests/data and make its small data."""

    def copy(name: str = "experiment") -> Path:
        shutil.copytree(XTC1 / name, tmp_path / name)
        write_small_data(tmp_path / name)
        return tmp_path / name

    return copy
