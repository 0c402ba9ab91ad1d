"""What is wrong with a config, in one line for each mistake: file:line, key, value, what is meant."""

from __future__ import annotations

import difflib
import re
import typing
from typing import Any, Iterable, Iterator, Union

import pydantic

from common.errors import ConfigError
from common.yaml_lines import Loc, dotted

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

# What pydantic says at length or in its own words, by its type.
_MESSAGES = {
    "bool_type": "say true or false",
    "list_type": "is to be a list: [value, ...]",
    "tuple_type": "is to be a list: [value, ...]",
    "string_pattern_mismatch": "is to be made of letters, digits",
    "string_type": "is to be text; quote it",
}


def explain(
    problem: Any, model: type[pydantic.BaseModel], data: Any, origins: dict[Loc, str], path: str
) -> str:
    """One line for one pydantic problem: file:line: key: value: what is wrong."""
    loc = _without_tags(tuple(problem["loc"]), data)
    if not loc:  # a check across keys: its message begins with the key it is about
        loc = _leading_key(problem["msg"].split(", ", 1)[-1])
    where = _place(loc, origins, path)
    kind, context = problem["type"], problem.get("ctx", {})
    shown = "null" if problem["input"] is None else repr(problem["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if kind == "extra_forbidden":
        return f"{where}: {dotted(loc)}: unknown key{suggest(str(loc[-1]), _keys_at(model, loc[:-1]))}"
    if kind == "missing":
        return f"{where}: {dotted(loc)}: missing; it has no default"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context.get("expected", ""))
        hint = suggest(str(problem["input"]), choices) or f"; choose one of {', '.join(choices)}"
        return f"{where}: {dotted(loc)}: {shown} is not a choice{hint}"
    if kind in ("value_error", "assertion_error"):
        message = problem["msg"].split(", ", 1)[-1]
        named = not problem["loc"]  # the message names the key itself
        return f"{where}: {message if named else f'{dotted(loc)}: {message}'}"
    message = _MESSAGES.get(kind, problem["msg"])
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        keys = _keys_at(model, loc) if kind != "dict_type" else []
        of = f" of {', '.join(keys)}" if 0 < len(keys) <= 12 else ""
        message = f"is to be a section{of}: {{key: value, ...}}"
    elif kind == "too_short":
        message = f"is to have at least {context['min_length']}"
    elif kind == "string_pattern_mismatch" and "." in context.get("pattern", ""):
        message += ", _ . -"
    return f"{where}: {dotted(loc)}: {shown}: {message[0].lower()}{message[1:]}"


def refuse_renamed(data: dict, source: str, origins: dict[Loc, str]) -> None:
    """Raise ConfigError for keys and words that have another name now, a line for each."""
    lines = [
        f"{_place(loc, origins, source)}: {dotted(loc)}: is now called {new}"
        for loc, new in _renamed_in(data)
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def _renamed_in(data: Any, loc: Loc = ()) -> Iterator[tuple[Loc, str]]:
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


def refuse_other_stage(data: dict, model: type[pydantic.BaseModel], source: str) -> None:
    """Raise ConfigError if `data`, which is no `model`, is a config of another command."""
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


def suggest(word: str, names: Iterable[str]) -> str:
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


def _keys_at(model: type[pydantic.BaseModel], loc: Loc) -> list[str]:
    """The keys that the models allow at `loc` (union branches that do not match are skipped)."""
    candidates: list[Any] = [model]
    for part in loc:
        found: list[Any] = []
        for candidate in candidates:
            if _is_model(candidate):
                field = candidate.model_fields.get(part) if isinstance(part, str) else None
                found += models_in(field.annotation) if field else []
        # A part that names no field is an index, a key of a mapping or the tag of a union.
        candidates = found or candidates
    return list(dict.fromkeys(key for c in candidates for key in c.model_fields))


def models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """The models that a field of this annotation may hold."""
    if _is_model(annotation):
        return [annotation]
    return [m for part in typing.get_args(annotation) for m in models_in(part)]


def _is_model(annotation: Any) -> bool:
    # Python 3.9 counts list[int] as a class.
    plain = isinstance(annotation, type) and typing.get_origin(annotation) is None
    return plain and issubclass(annotation, pydantic.BaseModel)
