"""YAML as configs are written in it: plain values, with the file and line of every key.

Numbers and truth values are those of YAML 1.2: decimal digits, true and false. What YAML 1.1 would
have read as another number (0020 as 16, 1:30 as 90) is refused, with what to write instead; yes, no, on
and off are words. Reading is bounded: one file is at most 200 kB, integers fit 64 bits, and aliases
(which can expand without bound) and tags (which can ask for other types than a config has) are refused.
"""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Any, Union

import yaml

from common.errors import ConfigError

MAX_BYTES = 200_000
MAX_BASES = 8  # of a config, each the base of the one before
MAX_NUMBER = 100  # characters
MAX_INTEGER = 2**63 - 1

Loc = tuple[Union[str, int], ...]


class Loader(yaml.SafeLoader):
    """SafeLoader with the numbers and truth values of YAML 1.2, which refuses aliases and tags."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        what = "aliases (*name)" if isinstance(event, yaml.AliasEvent) else "tags (!name)"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=f"{what} are not read", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


class Dumper(yaml.SafeDumper):
    """SafeDumper that quotes every text that Loader, or YAML 1.1, would read as something else."""


_INT, _FLOAT, _BOOL = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool"))
_WHOLE = r"(?:0|[1-9][0-9]*)"
_NUMBERS = {
    _INT: re.compile(rf"[-+]?{_WHOLE}$"),
    _FLOAT: re.compile(
        rf"[-+]?(?:{_WHOLE}\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        rf"|{_WHOLE}[eE][-+]?[0-9]+)$"
    ),
}
Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in (_INT, _FLOAT, _BOOL)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _regexp in _NUMBERS.items():
    Loader.add_implicit_resolver(_tag, _regexp, list("-+.0123456789"))
    Dumper.add_implicit_resolver(_tag, _regexp, list("-+.0123456789"))
Loader.add_implicit_resolver(_BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))

# Texts that YAML 1.1, or a reader, takes for numbers: refused, because their value is not what it seems.
_OLD_NUMBERS = (
    (r"[-+]?[0-9.][0-9_.]*_[0-9_.]*([eE][-+]?[0-9_]+)?", "has underscores, and numbers have none here"),
    (r"[-+]?0[xXbBoO][0-9a-fA-F_]+", "is not decimal, and numbers are here"),
    (
        r"[-+]?0[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?",
        "begins with a zero, which YAML 1.1 reads as octal; leave the zero out",
    ),
    (
        r"[-+]?[0-9]+(:[0-9]+)+(\.[0-9]*)?",
        "is what YAML 1.1 reads as a number of base 60; write it as one decimal number",
    ),
    (r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "is not a finite number"),
)
for _pattern, _ in _OLD_NUMBERS:
    Dumper.add_implicit_resolver(_INT, re.compile(f"(?:{_pattern})$"), list("-+.0123456789"))


def _represent_text(dumper: Dumper, text: str) -> yaml.Node:
    """`text`, in double quotes where it has a character that YAML takes for the end of a line."""
    style = '"' if re.search("[\x85\u2028\u2029\ufeff]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _represent_text)


def parse(text: str) -> Any:
    """The value that `text` has behind a key of a config; raises ConfigError."""
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node, (), {}, "")
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} is not a value ({' '.join(str(error).split())[:80]})") from None


def read(path: Path) -> tuple[dict, dict[Loc, str]]:
    """The config at `path` as it is written, and where each key is; raises ConfigError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config{nearest_file(path)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; is this a config?")
    try:
        loader = Loader(raw)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path}: is not a list of `key: value` lines")
        origins: dict[Loc, str] = {}
        return _construct(loader, node, (), origins, str(path)), origins
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None


def _construct(loader: Loader, node: yaml.Node, loc: Loc, origins: dict[Loc, str], path: str) -> Any:
    """The Python value of `node`; notes in `origins` the file and line of every key."""
    where = f"{path}:{node.start_mark.line + 1}"
    origins.setdefault(loc, where)
    if isinstance(node, yaml.MappingNode):
        result: dict = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node)
            key_where = f"{path}:{key_node.start_mark.line + 1}"
            if not isinstance(key, str):
                shown = getattr(key_node, "value", key)
                shown = shown if isinstance(shown, str) else key
                raise ConfigError(
                    f"{key_where}: {dotted(loc)}: key {shown} is not a word; quote it: '{shown}'"
                )
            _refuse_old_numbers(key_node, f"{key_where}: {dotted(loc)}: key ")
            if key in result:
                raise ConfigError(f"{key_where}: {dotted((*loc, key))}: given twice")
            origins[(*loc, key)] = key_where
            result[key] = _construct(loader, value_node, (*loc, key), origins, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, n, (*loc, i), origins, path) for i, n in enumerate(node.value)]
    if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER:
        raise ConfigError(f"{where}: {dotted(loc)}: a number of over {MAX_NUMBER} characters")
    _refuse_old_numbers(node, f"{where}: {dotted(loc)}: ")
    value = loader.construct_object(node)
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ConfigError(f"{where}: {dotted(loc)}: {node.value} does not fit 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {dotted(loc)}: {node.value} is not a finite number")
    if value is not None and not isinstance(value, (str, int, float, bool)):
        raise ConfigError(
            f"{where}: {dotted(loc)}: {node.value!r} is read as a {type(value).__name__}; quote it"
        )
    return value


def _refuse_old_numbers(node: yaml.Node, where: str) -> None:
    """Raise ConfigError if the unquoted scalar `node` looks like a number and is none."""
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return
    shown = node.value if len(node.value) <= MAX_NUMBER else f"{node.value[:40]}..."
    for pattern, why in _OLD_NUMBERS:
        if re.fullmatch(pattern, node.value) and re.search("[0-9]|inf|nan", node.value, re.IGNORECASE):
            raise ConfigError(f"{where}{shown} {why}; if it is text, quote it: '{shown}'")


def dotted(loc: Loc) -> str:
    """`select.blocks.length`, `network[2].dropout`: a key as messages name it."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(top level)"


def nearest_file(path: Path) -> str:
    """`; did you mean FILE?` for the config beside `path` with the nearest name, or ''."""
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
