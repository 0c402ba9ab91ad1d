"""A config of small simulated runs, for the tests of the simulator."""

from __future__ import annotations

from pathlib import Path

from prepare.config import PrepareConfig
from prepare.simulate.config import SimulateConfig

SHAPE = (96, 80)


def config(tmp_path: Path, **simulated: object) -> PrepareConfig:
    return PrepareConfig.model_validate_json(
        PrepareConfig(
            name="x",
            source={"dir": str(tmp_path / "xtc")},
            camera={"shape": SHAPE},
            runs={"dark": [68], "classes": {"nolasing": [69], "lasing": [70]}},
            select={"train": 10, "test": 10},
            simulate=SimulateConfig(**{"shots": {"dark": 12, "nolasing": 60, "lasing": 60}, **simulated}),
        ).model_dump_json()
    )
