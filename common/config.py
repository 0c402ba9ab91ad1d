"""Configs: YAML files, each possibly a variant of a `base:` file, validated by strict models.

A variant gives what differs. Sections merge key by key, over any depth; lists, and dictionaries whose
keys are names (`runs.classes`, `select.blocks.cycle`, `simulate.shots`), replace the base's as a whole.

Relative paths are relative to the folder where a command is started, `base:` to the
config's own; `~` is the home, and variables are not read.

Bases nest at most 8 deep. common/yaml_lines.py reads a file, common/config_errors.py says what is
wrong in it: file, line, key, value and, where a name is close to a right one, that name.
"""

from __future__ import annotations

import json
import os
import re
import typing
from pathlib import Path
from typing import Annotated, Any, Dict, Optional, TypeVar, Union

import pydantic
import yaml

from common import yaml_lines
from common.config_errors import explain, models_in, refuse_other_stage, refuse_renamed
from common.errors import ConfigError
from common.yaml_lines import Dumper, Loc, nearest_file

M = TypeVar("M", bound="Model")


def own_path(text: str) -> str:
    """`text` with `~` or `~user` in front written out; raises ValueError for text that is no path."""
    if not text:
        raise ValueError("is empty")
    if "\0" in text:
        raise ValueError(f"{text!r}: has the character that ends a path")
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
    """Validate `data`, read from YAML or JSON, as a `model`; raises ConfigError.

    Messages name the place of a key in `origins`, or else `source`.
    """
    refuse_renamed(data, source, origins or {})
    try:
        # Through JSON, because strict models take a list for a tuple only from JSON.
        return model.model_validate_json(json.dumps(data))
    except pydantic.ValidationError as error:
        refuse_other_stage(data, model, source)
        lines = [explain(problem, model, data, origins or {}, source) for problem in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def dump(config: Model) -> str:
    """The whole config, defaults filled in, as YAML that `load` reads back to an equal config."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def _read_with_bases(path: Path, seen: tuple[Path, ...], model: type[Model]) -> tuple[dict, dict[Loc, str]]:
    data, origins = yaml_lines.read(path)
    if "base" not in data:
        return data, origins
    name, where = data.pop("base"), origins[("base",)]
    if not isinstance(name, str):
        raise ConfigError(f"{where}: base: {name!r} is not the name of a config file")
    base = path.parent / Path(name).expanduser()
    if path.resolve() in seen or len(seen) >= yaml_lines.MAX_BASES:
        raise ConfigError(
            f"{where}: base: {name!r} leads back to itself or too deep (over {yaml_lines.MAX_BASES})"
        )
    if not base.is_file():
        raise ConfigError(f"{where}: base: {base} is not there{nearest_file(base)}")
    base_data, base_origins = _read_with_bases(base, (*seen, path.resolve()), model)
    return _merge(base_data, data, model), {**base_origins, **origins}


def _merge(base: Any, variant: Any, annotation: Any) -> Any:
    """`variant` over `base`: sections (models) key by key, everything else replaced whole."""
    models = models_in(annotation)
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
