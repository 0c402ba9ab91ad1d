"""A data set: one data file, or a folder of them with an index that says which, in which order.

`data/NAME/` holds `NAME-0000.h5`, `NAME-0001.h5`, ... and `NAME.json`, which is written when all are
there: a folder without it is of a build that did not finish, or of a copy that did not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, Sequence, Union

from common.dataset.layout import FORMAT_VERSION
from common.dataset.safety import read_json
from common.errors import DataError
from common.files import atomic

FORMAT = "xtcav-lasing data set"


class Entry(NamedTuple):
    """A file of a data set: its name in the folder, the shots in it, its content digest."""

    name: str
    shots: int
    content_digest: str


class Index(NamedTuple):
    """What a data set's folder holds, in order; the digests of all of its content and of its manifest."""

    files: list[Entry]
    content_digest: str
    manifest_sha256: str


def index_path(folder: Path) -> Path:
    """Where the index of the data set `folder` is."""
    return folder / f"{folder.name}.json"


def write_index(path: Path, index: Index) -> None:
    """Write `index` to `path`, complete or not at all."""
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **index._asdict(),
        "files": [entry._asdict() for entry in index.files],
    }
    atomic.write_text(path, json.dumps(content, indent=1) + "\n")


def read_index(path: Path) -> Index:
    """The index at `path`; raises DataError for what is none."""
    try:
        content: dict[str, Any] = read_json(path.read_text(encoding="utf-8"), str(path))
        version = content["format_version"] if content["format"] == FORMAT else None
        if version != FORMAT_VERSION:
            raise DataError(f"{path}: is of format version {version}, this software reads {FORMAT_VERSION}")
        entries = [Entry(str(e["name"]), int(e["shots"]), str(e["content_digest"])) for e in content["files"]]
        if not entries or any(Path(entry.name).name != entry.name for entry in entries):
            raise ValueError
        return Index(entries, str(content["content_digest"]), str(content["manifest_sha256"]))
    except (KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: {error.strerror}") from None
        raise DataError(f"{path}: is not the index of a data set; copy or build it again") from None


def data_files(paths: Union[str, Path, Sequence[Union[str, Path]]]) -> list[Path]:
    """The data files of the data set(s) at `paths`, each a file or a folder, in order.

    `data/NAME` stands for `data/NAME.h5` where that is the data set. Raises DataError for a folder
    without files, or without one that its index names.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    return [file for path in map(Path, paths) for file in _files_of(path)]


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        alone = path.with_name(f"{path.name}.h5")
        return [alone if not path.exists() and alone.exists() else path]
    index = index_path(path)
    if not index.exists():
        raise DataError(
            f"{path}: is a folder without {index.name}, as a build or a copy leaves it that did not finish; "
            "build or copy it again, or name data files"
        )
    files = [path / entry.name for entry in read_index(index).files]
    gone = [file.name for file in files if not file.is_file()]
    if gone:
        raise DataError(
            f"{path}: {len(gone)} of its {len(files)} files are missing, first {gone[0]}; make them again "
            "with `python -m prepare repair CONFIG`, or copy the data set again"
        )
    return files
