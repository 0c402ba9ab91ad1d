"""Which psana is there, and what a user reads when it is not."""

from __future__ import annotations

import os
import sys

import pytest

from common.errors import ConfigError, DataError
from prepare.config import load_config
from prepare.sources import open_source
from prepare.sources.psana import find_directory, import_psana


@pytest.fixture
def psana2(monkeypatch, tmp_path):
    """A module that is not LCLS-I's psana, here and in processes that are started."""
    (tmp_path / "psana.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))


def opened(write_config, kind: str):
    return open_source(load_config(write_config(source__kind=kind)))


@pytest.mark.parametrize("kind", ["psana", "psana1"])
def test_psana1_is_found_out(write_config, stand_in, kind):
    with opened(write_config, kind) as source:
        assert source.runs() == (68, 69, 70, 71)


@pytest.mark.parametrize("kind", ["psana", "psana2"])
def test_psana2_is_found_out(write_config, psana2, kind):
    with opened(write_config, kind) as source:
        assert source.runs() == ()  # of LCLS-II's files


def test_the_other_psana_is_refused(write_config, stand_in):
    with pytest.raises(DataError, match="source.kind 'psana2': the psana here is psana1; run in the LCLS-II"):
        opened(write_config, "psana2")


def test_settings_of_either_psana_in_the_environment_are_not_heeded(monkeypatch, stand_in):
    """PS_PARALLEL but `none` lets psana 2 start MPI, take over sys.excepthook and share out the events."""
    for name in ("PS_PARALLEL", "PS_BD_CHUNKSIZE", "PS_SMD_N_EVENTS", "MSGLOGCONFIG"):
        monkeypatch.setenv(name, "7")
    monkeypatch.delitem(sys.modules, "psana", raising=False)
    import_psana("psana1")
    del sys.modules["psana"]
    left = {name: value for name, value in os.environ.items() if name.startswith(("PS_", "MSGLOG"))}
    assert left == {"PS_PARALLEL": "none", "PS_BD_CHUNKSIZE": "4194304"}


@pytest.mark.parametrize("kind", ["psana", "psana1", "psana2"])
def test_no_psana_is_one_line_with_what_to_do(prepare, write_config, kind):
    result = prepare("list", write_config(source__kind=kind))
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert f"error: source.kind '{kind}': psana cannot be loaded by {sys.executable}" in result.output
    assert "`kind: xtc`" in result.output


def test_only_psana_has_a_default_folder(write_config):
    with pytest.raises(ConfigError, match="source: dir is missing; for kind `xtc`"):
        load_config(write_config(source__dir=None))
    assert load_config(write_config(source__dir=None, source__kind="psana")).source.dir is None


@pytest.mark.parametrize("instrument", ["amo", "AMO", "another"])
def test_the_default_folder_is_found_however_the_instrument_is_spelled(
    tmp_path, monkeypatch, capsys, instrument
):
    monkeypatch.setenv("SIT_PSDM_DATA", str(tmp_path))
    folder = tmp_path / instrument / "amo86815" / "xtc"
    with pytest.raises(DataError, match="source.dir is not given, and there is no folder .*name the folder"):
        find_directory("amo86815", None)
    folder.mkdir(parents=True)
    assert find_directory("amo86815", None) == str(folder)
    assert capsys.readouterr().out == f"source.dir is not given: reading {folder}\n"


def test_a_folder_that_is_given_is_made_absolute(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert find_directory("amo86815", "here") == str(tmp_path / "here")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("psana", ["psana1", "psana2"])
def test_a_folder_that_is_not_there(prepare, write_config, request, psana):
    request.getfixturevalue("stand_in" if psana == "psana1" else psana)
    result = prepare("list", write_config(source__kind=psana, source__dir="nowhere"))
    assert result.exit_code == 2
    assert "nowhere: no such folder of" in result.output
