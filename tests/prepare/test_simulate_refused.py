"""Numbers of a simulation that cannot be: refused in one line; all others make pictures."""

from __future__ import annotations

import contextlib
from typing import Iterator

import numpy as np
import pytest

from common.config import Model, from_data
from common.errors import ConfigError
from prepare.config import PrepareConfig
from prepare.simulate.config import BeamOnScreen, Bunch, SimulateConfig
from prepare.simulate.run import plan, simulate
from prepare.sources.native import XtcSource
from tests.prepare.simulated import config


def test_an_unknown_lasing_class_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="simulate.lasing: 'lazing' is not a class"):
        plan(config(tmp_path, lasing=["lazing"]))


def test_runs_without_a_length_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="simulate.shots: says nothing of 'nolasing'"):
        plan(config(tmp_path, shots={"dark": 3, "lasing": 3}))


@pytest.mark.parametrize("rate", [0.0, 50.0, 240.0, -1.0])
def test_rates_the_machine_does_not_have_are_refused(rate):
    with pytest.raises(ValueError, match="Hz is not 120 Hz divided"):
        SimulateConfig(shots={"dark": 1}, rate=rate)


def numbers(model: type[Model], path: tuple = ()) -> Iterator[tuple[tuple, type]]:
    """The path and the type of each number in the sections of `model`."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if kind in (int, float):
            yield (*path, name), kind
        elif hasattr(kind, "model_fields") and name != "vary":
            yield from numbers(kind, (*path, name))


EXTREMES = {int: (-1, 0, 1 << 33, 1 << 62), float: (-1e30, -1.0, 0.0, 1e-300, 1e-9, 1e9, 1e300)}


@pytest.mark.parametrize("path, kind", [*numbers(SimulateConfig), *numbers(Bunch, ("bunch",))])
def test_numbers_out_of_reach_are_refused_and_all_others_make_pictures(tmp_path, path, kind):
    """In one line, when the config is read or the runs are planned; what is left overflows nowhere."""
    for value in EXTREMES[kind]:
        section = {"shots": {"dark": 2, "nolasing": 3, "lasing": 3}}
        if path[0] == "bunch":
            changed = {**BeamOnScreen().bunches[0].model_dump(), path[1]: value}
            section["beam"] = {"bunches": [changed]}
        else:
            inner = section
            for name in path[:-1]:
                inner = inner.setdefault(name, {})
            inner[path[-1]] = value
        data = config(tmp_path).model_dump(mode="json")
        data.update(camera={"shape": [4, 6]}, simulate=section)
        with contextlib.suppress(ConfigError), np.errstate(all="raise", under="ignore"):
            made = from_data(data, PrepareConfig, "x.yaml")
            simulate(made, force=True)
            with XtcSource(made.source.dir, made.camera.address) as source:
                assert len(source.shots(70)) == 3


@pytest.mark.parametrize("run", [-1, 0, 1 << 31])
def test_numbers_that_no_run_has_are_refused(run):
    data = {"name": "x", "source": {"kind": "psana"}, "runs": {"dark": [run], "unlabeled": [70]}}
    with pytest.raises(ConfigError, match=f"runs.dark.0.: {run}: input should be"):
        from_data(data, PrepareConfig, "x.yaml")


@pytest.mark.parametrize(
    "blocks", [{"length": 1e30}, {"length": 1e-10, "guard": 0.0}, {"cycle": {"train": 1 << 62, "test": 1}}]
)
def test_blocks_that_no_time_has_are_refused(tmp_path, blocks):
    data = config(tmp_path).model_dump(mode="json")
    data["select"]["blocks"] = blocks
    with pytest.raises(ConfigError, match="select.blocks.*: (input should be|cycle: .* at the most)"):
        from_data(data, PrepareConfig, "x.yaml")
