"""Begin to load psana, in a process of its own, as soon as a command knows the name of its config.

Only light modules are imported here: the rest is loaded while psana is.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from common import yaml_lines
from common.errors import ConfigError
from prepare.children.starter import Starter

_starters: dict[tuple[str, ...], Starter] = {}  # {kind and where modules are found: where psana is loaded}


def starter(kind: str) -> Starter:
    """What starts children that have loaded the psana that `kind` (psana, psana1, psana2) asks for."""
    return _starters.setdefault((kind, *sys.path), Starter("prepare.sources.psana:load", kind))


def begin(config_path: str) -> str:
    """Begin with the psana that a config names; returns `config_path`.

    What is wrong with the config, or with starting, is told later.
    """
    with contextlib.suppress(ConfigError, OSError):
        kind = _kind(Path(config_path).expanduser())
        if isinstance(kind, str) and kind.startswith("psana"):
            starter(kind).begin()
    return config_path


def _kind(path: Path) -> object:
    """`source.kind` of a config or of its bases, None if none has one."""
    for _ in range(yaml_lines.MAX_BASES):
        data, _ = yaml_lines.read(path)
        source, base = data.get("source"), data.get("base")
        if isinstance(source, dict) and "kind" in source:
            return source["kind"]
        if not isinstance(base, str):
            return None
        path = path.parent / Path(base).expanduser()
    return None
