"""Which psana is there, and what a user reads when it is not."""

from __future__ import annotations

import os
import sys
from types import ModuleType

import pytest

from common.errors import ConfigError, DataError
from prepare.config import load_config
from prepare.sources import open_source
from prepare.sources.base import default_directory
from prepare.sources.psana1 import Psana1Source
from prepare.sources.psana2 import Psana2Source
from tests.prepare.conftest import XTC1
from tests.prepare.stand_in import Psana1


@pytest.fixture
def psana1(monkeypatch):
    monkeypatch.setitem(sys.modules, "psana", Psana1(XTC1 / "experiment"))


@pytest.fixture
def psana2(monkeypatch):
    monkeypatch.setitem(sys.modules, "psana", ModuleType("psana"))


def opened(write_config, kind: str):
    return open_source(load_config(write_config(source__kind=kind)))


@pytest.mark.parametrize("kind", ["psana", "psana1"])
def test_psana1_is_found_out(write_config, psana1, kind):
    assert isinstance(opened(write_config, kind), Psana1Source)


@pytest.mark.parametrize("kind", ["psana", "psana2"])
def test_psana2_is_found_out(write_config, psana2, kind, monkeypatch):
    monkeypatch.delenv("PS_PARALLEL", raising=False)
    assert isinstance(opened(write_config, kind), Psana2Source)
    assert os.environ["PS_PARALLEL"] == "none"  # or psana starts MPI and takes over sys.excepthook


def test_the_other_psana_is_refused(write_config, psana1):
    with pytest.raises(DataError, match="source.kind 'psana2': the psana here is psana1; run in the LCLS-II"):
        opened(write_config, "psana2")


@pytest.mark.parametrize("kind", ["psana", "psana1", "psana2"])
def test_no_psana_is_one_line_with_what_to_do(prepare, write_config, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "psana", None)  # as if it could not be imported
    result = prepare("list", write_config(source__kind=kind))
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert f"error: source.kind '{kind}': psana cannot be loaded by {sys.executable}" in result.output
    assert "`kind: xtc`" in result.output


def test_only_psana_has_a_default_folder(write_config, monkeypatch):
    with pytest.raises(ConfigError, match="source: dir is missing; for kind `xtc`"):
        load_config(write_config(source__dir=None))
    assert load_config(write_config(source__dir=None, source__kind="psana")).source.dir is None
    monkeypatch.setenv("SIT_PSDM_DATA", "/data/lcls")
    assert default_directory("amo86815", None) == "/data/lcls/amo/amo86815/xtc"
    assert default_directory("amo86815", "here") == "here"


@pytest.mark.parametrize("psana", ["psana1", "psana2"])
def test_a_folder_that_is_not_there(prepare, write_config, request, psana):
    request.getfixturevalue(psana)
    result = prepare("list", write_config(source__kind=psana, source__dir="nowhere"))
    assert result.exit_code == 2
    assert "nowhere: no such folder of" in result.output
