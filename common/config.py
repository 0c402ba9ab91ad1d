"""Configs: YAML files, each possibly a variant of a `base:` file, validated by strict models.

A variant gives what differs. Sections merge key by key, over any depth; lists, and dictionaries whose
keys are names (`runs.classes`, `select.blocks.cycle`, `simulate.shots`), replace the base's whole: two
lists of classes, one on top of the other, would be a third that nobody wrote.

Numbers and truth values are those of YAML 1.2: decimal digits, true and false. What YAML 1.1 would
have read as another number (0020 as 16, 1:30 as 90) is refused, with what to write instead; yes, no, on
and off are words. Relative paths are relative to the folder where a command is started, `base:` to the
config's own; `~` is the home, and variables are not read.

Each mistake is reported with file, line, key, value and, where a name is close to a right
one, that name. Reading is bounded: one file is at most 200 kB, bases nest at most 8 deep, integers
fit 64 bits, and YAML aliases (which can expand without bound) and tags (which can ask for other
types than a config has) are refused.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import typing
from pathlib import Path
from typing import Annotated, Any, Dict, Optional, TypeVar, Union

import pydantic
import yaml

from common.errors import ConfigError

MAX_BYTES = 200_000
MAX_BASES = 8
MAX_NUMBER = 100  # characters
MAX_INTEGER = 2**63 - 1

# Keys and words that had another name before the first release: where they stood, without the
# places in lists, and what they are called now.
RENAMED = {
    "max_losses": "max_missing",
    "network.convolution.window": "kernel_size",
    "network.convolution.channels": "filters",
    "network.max_pool.window": "pool_size",
    "network.average_pool.window": "pool_size",
    "network.batch_normalisation": "batch_normalization",
    "network.local_response_normalisation": "local_response_normalization",
    "preprocess.standardise": "standardize",
    "regularise": "regularize",
    "runs.unlabelled": "unlabeled",
    "select.beam.min_level": "min_mean_intensity",
    "simulate.shots.unlabelled": "unlabeled",
    "simulate.unlabelled_lasing": "unlabeled_lasing",
}

# Keys that tell what a config is for.
_COMMANDS = {
    "python -m prepare": {"source", "camera", "runs", "select", "simulate", "dark", "image", "manifest_dir"},
    "python -m prepare signal-noise": {"shape", "train", "test", "validation", "noise_std", "signal_mean"},
    "python -m train": {"data", "network", "learning_rate", "optimizer", "minibatch", "steps", "preprocess"},
}

Loc = tuple[Union[str, int], ...]
M = TypeVar("M", bound="Model")


def own_path(text: str) -> str:
    """`text` with `~` or `~user` in front written out; raises ValueError for what would be no path."""
    if not text:
        raise ValueError("is empty")
    if re.search(r"\$[\w{(]", text):
        raise ValueError(f"{text!r}: variables are not read here; write the path out")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ValueError(f"{text!r}: there is no such user; a name that begins with ~ is written ./~...")
    return path


PathText = Annotated[str, pydantic.AfterValidator(own_path)]


class Model(pydantic.BaseModel):
    """Base of all config models: no unknown keys, no silent conversions, immutable."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)

    def canonical(self) -> str:
        """The config, defaults filled in, as JSON with sorted keys: equal configs, equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def load(path: Union[str, Path], model: type[M]) -> M:
    """Read the config at `path`, with its bases, as a `model`; raises ConfigError."""
    data, origins = _read_with_bases(Path(path).expanduser(), (), model)
    return from_data(data, model, str(path), origins)


def from_data(data: dict, model: type[M], source: str, origins: Optional[dict[Loc, str]] = None) -> M:
    """`data`, as YAML or JSON reads it, as a `model`; raises ConfigError.

    Messages say `source`, or for keys that have one their place in `origins`.
    """
    renamed = [
        f"{_place(loc, origins or {}, source)}: {_dotted(loc)}: is now called {new}"
        for loc, new in _renamed_in(data)
    ]
    if renamed:
        raise ConfigError("\n".join(renamed))
    try:
        # Through JSON, because strict models take a list for a tuple only from JSON.
        return model.model_validate_json(json.dumps(data))
    except pydantic.ValidationError as error:
        _refuse_other_stage(data, model, source)
        lines = [_explain(problem, model, data, origins or {}, source) for problem in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def dump(config: Model) -> str:
    """The whole config, defaults filled in, as YAML that `load` reads back to an equal config."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, allow_unicode=True)


# --- reading -----------------------------------------------------------------------------


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

# What is no number here and was one, another than it looks, in YAML 1.1 or to a reader.
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


def parse(text: str) -> Any:
    """The value that `text` has behind a key of a config; raises ConfigError."""
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node, (), {}, "")
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} is not a value ({' '.join(str(error).split())[:80]})") from None
    finally:
        loader.dispose()


def _read_with_bases(path: Path, seen: tuple[Path, ...], model: type[Model]) -> tuple[dict, dict[Loc, str]]:
    data, origins = _read_one(path)
    if "base" not in data:
        return data, origins
    name, where = data.pop("base"), origins[("base",)]
    if not isinstance(name, str):
        raise ConfigError(f"{where}: base: {name!r} is not the name of a config file")
    base = path.parent / Path(name).expanduser()
    if path.resolve() in seen or len(seen) >= MAX_BASES:
        raise ConfigError(f"{where}: base: {name!r} leads back to itself or too deep (over {MAX_BASES})")
    if not base.is_file():
        raise ConfigError(f"{where}: base: {base} is not there{_nearest_file(base)}")
    base_data, base_origins = _read_with_bases(base, (*seen, path.resolve()), model)
    return _merge(base_data, data, model), {**base_origins, **origins}


def _read_one(path: Path) -> tuple[dict, dict[Loc, str]]:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config{_nearest_file(path)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; is this a config?")
    loader = None
    try:
        loader = Loader(raw)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path}: is not a list of `key: value` lines")
        origins: dict[Loc, str] = {}
        data = _construct(loader, node, (), origins, str(path))
        return data, origins
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
    finally:
        if loader is not None:
            loader.dispose()


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
                    f"{key_where}: {_dotted(loc)}: key {shown} is not a word; quote it: '{shown}'"
                )
            _refuse_old_numbers(key_node, f"{key_where}: {_dotted(loc)}: key ")
            if key in result:
                raise ConfigError(f"{key_where}: {_dotted((*loc, key))}: given twice")
            origins[(*loc, key)] = key_where
            result[key] = _construct(loader, value_node, (*loc, key), origins, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, n, (*loc, i), origins, path) for i, n in enumerate(node.value)]
    if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER:
        raise ConfigError(f"{where}: {_dotted(loc)}: a number of over {MAX_NUMBER} characters")
    _refuse_old_numbers(node, f"{where}: {_dotted(loc)}: ")
    value = loader.construct_object(node)
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ConfigError(f"{where}: {_dotted(loc)}: {node.value} does not fit 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {_dotted(loc)}: {node.value} is not a finite number")
    if value is not None and not isinstance(value, (str, int, float, bool)):
        raise ConfigError(
            f"{where}: {_dotted(loc)}: {node.value!r} is read as a {type(value).__name__}; quote it"
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


def _merge(base: Any, variant: Any, annotation: Any) -> Any:
    """`variant` over `base`: sections (models) key by key, everything else replaced whole."""
    models = _models_in(annotation)
    if not (isinstance(base, dict) and isinstance(variant, dict) and models and not _is_of_names(annotation)):
        return variant
    fields = {name: field.annotation for model in models for name, field in model.model_fields.items()}
    return {
        key: _merge(base[key], variant[key], fields.get(key)) if key in base and key in variant
        else variant[key] if key in variant else base[key]
        for key in (*base, *(k for k in variant if k not in base))
    }  # fmt: skip


def _is_of_names(annotation: Any) -> bool:
    """Whether `annotation` is of a dictionary whose keys are names, and no section."""
    parts = [annotation, *typing.get_args(annotation)]
    return any(typing.get_origin(part) in (dict, Dict) for part in parts)


# --- explaining --------------------------------------------------------------------------


def _explain(problem: Any, model: type[Model], data: Any, origins: dict[Loc, str], path: str) -> str:
    """One line for one pydantic problem: file:line: key: value: what is wrong."""
    loc = _without_tags(tuple(problem["loc"]), data)
    if not loc:  # a check across keys: its message begins with the key it is about
        loc = _leading_key(problem["msg"].split(", ", 1)[-1])
    where = _place(loc, origins, path)
    kind, context = problem["type"], problem.get("ctx", {})
    shown = repr(problem["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if kind == "extra_forbidden":
        return f"{where}: {_dotted(loc)}: unknown key{suggest(str(loc[-1]), _keys_at(model, loc[:-1]))}"
    if kind == "missing":
        return f"{where}: {_dotted(loc)}: missing; it has no default"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context.get("expected", ""))
        hint = suggest(str(problem["input"]), choices) or f"; choose one of {', '.join(choices)}"
        return f"{where}: {_dotted(loc)}: {shown} is not a choice{hint}"
    if kind in ("value_error", "assertion_error"):
        message = problem["msg"].split(", ", 1)[-1]
        named = not problem["loc"]  # the message names the key itself
        return f"{where}: {message if named else f'{_dotted(loc)}: {message}'}"
    message = problem["msg"]
    if kind == "bool_type":
        message = "say true or false"
    return f"{where}: {_dotted(loc)}: {shown}: {message[0].lower()}{message[1:]}"


def _renamed_in(data: Any, loc: Loc = ()) -> typing.Iterator[tuple[Loc, str]]:
    """Every key and word in `data` that has another name now, with that name."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        here = (*loc, key)
        for word in (here, (*here, value)):
            old = ".".join(part for part in word if isinstance(part, str))
            if isinstance(word[-1], str) and old in RENAMED:
                yield word, RENAMED[old]
        yield from _renamed_in(value, here)


def _place(loc: Loc, origins: dict[Loc, str], path: str) -> str:
    """The file and line of `loc`, or of the nearest key around it that has one."""
    return next((origins[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in origins), path)


def _refuse_other_stage(data: dict, model: type[Model], source: str) -> None:
    """Raise ConfigError if `data`, which is no `model`, is what another command reads."""
    counts = {command: len(keys & set(data)) for command, keys in _COMMANDS.items()}
    best = max(counts, key=lambda command: counts[command])
    if counts[best] > len(set(model.model_fields) & set(data) - {"name"}):
        keys = ", ".join(sorted(_COMMANDS[best] & set(data)))
        raise ConfigError(f"{source}: this is a config for `{best}` (it has {keys})")


def _leading_key(message: str) -> Loc:
    """The key that a message like `select.train: 81 shots ...` or `network[2]: ...` begins with."""
    match = re.match(r"([\w.]+(?:\[\d+\])?(?:\.[\w.]+)?): ", message)
    parts = re.findall(r"[^.\[\]]+", match[1]) if match else []
    return tuple(int(part) if part.isdigit() else part for part in parts)


def suggest(word: str, names: typing.Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `names`, or the names themselves, or ''."""
    names = list(names)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known here: {', '.join(names)}" if 0 < len(names) <= 12 else ""


def _without_tags(loc: Loc, data: Any) -> Loc:
    """`loc` without the union tags that pydantic puts between the keys of the file."""
    kept: list[Union[str, int]] = []
    for n, part in enumerate(loc):
        inside = isinstance(part, str) and isinstance(data, dict) and part in data
        inside = inside or isinstance(part, int) and isinstance(data, list) and part < len(data)
        if inside or n == len(loc) - 1:
            kept.append(part)
            data = data[part] if inside else None
    return tuple(kept)


def _dotted(loc: Loc) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(top level)"


def _keys_at(model: type[Model], loc: Loc) -> list[str]:
    """The keys that the models allow at `loc` (union branches that do not match are skipped)."""
    candidates: list[Any] = [model]
    for part in loc:
        found: list[Any] = []
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, Model):
                field = candidate.model_fields.get(part) if isinstance(part, str) else None
                found += _models_in(field.annotation) if field else []
        # A part that names no field is an index, a key of a mapping or the tag of a union.
        candidates = found or candidates
    return list(dict.fromkeys(key for c in candidates for key in c.model_fields))


def _models_in(annotation: Any) -> list[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    return [m for part in typing.get_args(annotation) for m in _models_in(part)]


def _nearest_file(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
