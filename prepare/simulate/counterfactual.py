"""The same shots with lasing switched: they show whether a network judges lasing, or the run.

Machine, jitters, background and noise are those of the data set; only the lasing differs, and with it
the label. No camera files are written.
"""

from __future__ import annotations

from typing import Sequence

from common.config import from_data
from common.errors import ConfigError, ManifestError
from common.manifest import Row, Rows
from prepare.config import PrepareConfig

SPLIT = "test"


def switched(config: PrepareConfig, rows: Sequence[Row], path: str) -> tuple[PrepareConfig, Rows]:
    """The config and the manifest of the counterfactual data set of `config` with the shots `rows`.

    It has the test shots alone, each with the other label. Raises ConfigError, which begins with the config's
    `path`, unless its runs are simulated and of two classes, of which one lases; ManifestError where there
    are no test shots.
    """
    classes = list(config.runs.classes)
    if config.simulate is None:
        raise ConfigError(f"{path}: simulate: missing; only simulated shots can be made again without lasing")
    lasing = [name for name in classes if name in config.simulate.lasing]
    if len(classes) != 2 or len(lasing) != 1:
        raise ConfigError(
            f"{path}: simulate.lasing: {len(lasing)} of {len(classes)} classes lase; "
            "lasing can be switched where it is 1 of 2"
        )
    other = dict(zip(classes, reversed(classes)))
    rows = Rows.of(rows)
    test = Rows(rows[rows.of_split(SPLIT)].table, [other.get(label, label) for label in rows.labels])
    if not test:
        raise ManifestError(f"{config.manifest_path}: has no shot of split {SPLIT}")
    data = config.model_dump(mode="json")
    data["name"] = f"{config.name}.counterfactual"
    data["source"] = {"kind": "simulated"}
    data["runs"]["classes"] = {name: config.runs.classes[other[name]] for name in classes}
    data["select"].update(train=0, validation=0, predict=None)
    data["simulate"]["switched"] = not config.simulate.switched
    return from_data(data, PrepareConfig, path), test
