"""The points of a sweep: settings, their values, and the config of every run."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple, Sequence

from common.config import from_data
from common.config_errors import RENAMED, suggest
from common.errors import ConfigError, UserError
from common.yaml_lines import parse
from train.config import TrainConfig
from train.data.dataset import class_names
from train.model.shapes import layer_shapes, network_input

# What a sweep gives each run itself.
_OWN = {
    "seed": "give --seeds N",
    "name": "runs are named by their settings",
    "runs_dir": "set it in the config",
}

Key = tuple[str, ...]


class Setting(NamedTuple):
    """One --set option: its name as typed, the config keys it matches, and the values to try."""

    name: str
    keys: list[Key]
    values: list[Any]


class Case(NamedTuple):
    """One point of the grid: its label, and the configs of its runs, one for each seed."""

    label: str
    runs: list[TrainConfig]


def parse_setting(text: str, base: TrainConfig) -> Setting:
    """Parse `learning_rate.start=.1,.01`: a key of the config and values as in YAML.

    The key is a dotted key, the end of one if that is unique (`momentum`), or a pattern in which `*`
    stands for any keys in between (`network.*.bias`: the bias of every layer). Raises UserError for
    a key that the config does not have or that is ambiguous.
    """
    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        raise UserError(f"--set {text}: give KEY=VALUE[,VALUE...]")
    keys = _fitting(name, base)
    own = next((key[0] for key in keys if key[0] in _OWN), None)
    if own:
        raise UserError(f"--set {name}: not to be set in a sweep; {_OWN[own]}")
    return Setting(name, keys, [_value(part) for part in re.split(r",(?![^\[]*\])", values)])


def plan(
    base: TrainConfig, settings: Sequence[Setting], seeds: int, one_at_a_time: bool = False
) -> list[Case]:
    """All points of the grid, validated before anything runs; raises ConfigError.

    The points are every combination of the values, or with `one_at_a_time` the config as it is
    and each value by itself.
    """
    if one_at_a_time:
        points = [[], *([(setting, value)] for setting in settings for value in setting.values)]
    else:
        points = [list(zip(settings, values)) for values in itertools.product(*(s.values for s in settings))]
    return [_case(base, point, seeds) for point in points]


def _case(base: TrainConfig, point: Sequence[tuple[Setting, Any]], seeds: int) -> Case:
    label = ",".join(f"{setting.name}={_short(value)}" for setting, value in point) or "base"
    runs = []
    for seed in range(1, seeds + 1):
        data = {**base.model_dump(mode="json"), "report": False}  # `train report` makes those one looks at
        for setting, value in point:
            for key in setting.keys:
                _put(data, key, value)
        data["seed"] = seed
        words = re.sub(r"[^A-Za-z0-9.-]+", "_", label.replace("*", "all")).strip("_")
        data["name"] = f"{words}_seed{seed}"
        data["runs_dir"] = str(Path(base.runs_dir) / f"{base.name}_sweep")
        runs.append(from_data(data, TrainConfig, f"--set {label}"))
    layer_shapes(runs[0].network, network_input(runs[0]), len(class_names(runs[0])) or 2)
    return Case(label, runs)


def _fitting(name: str, base: TrainConfig) -> list[Key]:
    """The config keys that `name` matches: exactly one, or with a `*` at least one."""
    keys = {".".join(key): key for key in _keys(base.model_dump(mode="json"))}
    if "*" in name:
        pattern = re.escape(name).replace(r"\*", ".+")
        fitting = [text for text in keys if re.fullmatch(pattern, text)]
    elif name in keys:
        fitting = [name]
    else:
        ends = [text for text in keys if text.endswith(f".{name}")]
        # the short name of a layer's setting only where nothing else has it
        fitting = [text for text in ends if not text.startswith("network.")] or ends
        if len(fitting) > 1:
            raise UserError(f"--set {name}: fits {', '.join(fitting)}; name one of them whole, or all by a *")
    if not fitting:
        last = name.split(".")[-1]
        now = sorted({new for old, new in RENAMED.items() if old.split(".")[-1] == last})
        near = suggest(name, [*keys, *(key[-1] for key in keys.values())])
        near = f"; it is now called {' or '.join(now)}" if now else near
        raise UserError(f"--set {name}: no such key{near}")
    return [keys[text] for text in fitting]


def _keys(data: Any, before: Key = ()) -> list[Key]:
    """Every key in `data`; layers are numbered from 0."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    keys: list[Key] = []
    for name, value in pairs:
        key = (*before, str(name))
        keys.append(key)
        if isinstance(value, dict) or key == ("network",):
            keys += _keys(value, key)
    return keys


def _put(data: Any, key: Key, value: Any) -> None:
    for name in key[:-1]:
        data = data[int(name) if isinstance(data, list) else name]
    data[int(key[-1]) if isinstance(data, list) else key[-1]] = value


def _value(text: str) -> Any:
    try:
        return parse(text)
    except ConfigError as error:
        raise UserError(f"--set {str(error).rpartition('(top level): ')[2]}") from None


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return str(value)
