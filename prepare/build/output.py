"""Where a data set goes, and what of it is there already.

Up to `shard` rows of the manifest are one file, `data/NAME.h5`. More are files of so many rows each,
`data/NAME/NAME-0000.h5` and on, with an index (common/dataset/index.py). Such a folder is made as
`data/NAME.building/`: each file appears there when it is complete, and the folder under its name
when all are.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

from common import manifest
from common.dataset import layout, reading
from common.dataset.index import Index, index_path, read_index, write_index
from common.dataset.safety import read_json
from common.errors import DataError, OutputExists
from common.files import atomic
from common.files.lock import only_one
from common.manifest import Row
from common.progress import say
from prepare.config import PrepareConfig

_REPLACES = "replaces"  # in the folder that is being made: which finished data set --force is to replace
_FORCE = "give --force to replace it"

Check = Callable[[Path], Optional[str]]  # a file of a data set -> what is damaged in it, or None


class Shard(NamedTuple):
    """A fixed, consecutive share of the manifest: its number from 0, its rows in the order of reading."""

    number: int
    rows: Sequence[Row]
    given: Sequence[Row]  # the rows as the manifest has them


class Output:
    """The data set of `config` with the manifest's `rows`. Its methods are for who holds its lock."""

    def __init__(self, config: PrepareConfig, rows: Sequence[Row]) -> None:
        self.config = config
        size = config.shard
        shares = [rows[first : first + size] for first in range(0, len(rows), size)]
        self.shards = [Shard(n, in_reading_order(share), share) for n, share in enumerate(shares)]
        self.file = config.output_path
        self.folder = self.file.with_suffix("")
        self.building = self.file.with_suffix(".building")
        self.path = self.file if len(self.shards) == 1 else self.folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other builds of this data set away; remove what no build could continue from."""
        with only_one(self.file.with_name(f".{self.config.name}.lock"), self.path):
            try:
                yield
            except Exception as error:
                if self.begun():
                    error.advice = f"what was made so far is kept in {self.building}, build again to go on"
                raise
            finally:
                if not self.begun():
                    shutil.rmtree(self.building, ignore_errors=True)

    def begun(self) -> bool:
        """Whether there is something to continue from."""
        return bool(self.made())

    def made(self) -> list[Path]:
        """The files that an unfinished build has made."""
        return sorted(self.building.glob(f"{self.config.name}-*.h5"))

    def target(self, shard: Shard) -> Path:
        """Where the file of `shard` appears when it is complete."""
        return self.file if self.path == self.file else self.building / self._name(shard)

    def final(self, shard: Shard) -> Path:
        """Where the file of `shard` is in the finished data set."""
        return self.file if self.path == self.file else self.folder / self._name(shard)

    def begin(self, anew: bool) -> None:
        """Make room: with `anew` nothing that is there is continued from."""
        if anew:
            shutil.rmtree(self.building, ignore_errors=True)
            if self.path == self.folder and self.path.exists():
                atomic.write_text(self.building / _REPLACES, self._state())

    def found(self, anew: bool, damage: Optional[Check] = None) -> dict[int, Path]:
        """{number: path} of the shards that are there, whole and of this config and manifest.

        anew: none of what is finished. damage: looks into a finished file for what makes it to be made
        again; without it a damaged one is refused. Raises OutputExists, saying what differs, if
        something else is where the data set goes.
        """
        replaces = self.building / _REPLACES
        replaced = anew or (replaces.exists() and replaces.read_text() == self._state())
        found: dict[int, Path] = {}
        for shard in self.shards:
            being_made = self.target(shard)
            if self.path == self.folder and self._is_whole(being_made, shard):
                found[shard.number] = being_made
            elif not anew and self._fits(self.final(shard), shard, replaced, damage):
                found[shard.number] = self.final(shard)
        if not replaced:
            self._refuse_others()
        return found

    def is_finished(self, found: dict[int, Path]) -> bool:
        """Whether all is there, under its final names."""
        if any(found.get(shard.number) != self.final(shard) for shard in self.shards):
            return False
        if self.path == self.file:
            return True
        with contextlib.suppress(DataError):
            index = read_index(index_path(self.folder))
            digests = [_content_digest(self.folder / entry.name) for entry in index.files]
            same = digests == [entry.content_digest for entry in index.files]
            return same and index.manifest_sha256 == self.manifest_digest()
        return False

    def put(self, index: Index) -> None:
        """Give a folder its final name, or move what is new into the one there; remove what is replaced."""
        if self.path == self.file:
            if index_path(self.folder).exists():
                index_path(self.folder).unlink()
                self._remove_others(())
            return
        (self.building / _REPLACES).unlink(missing_ok=True)
        if not self.folder.exists():
            write_index(self.building / index_path(self.folder).name, index)
            self.building.replace(self.folder)
        else:
            for made in self.made():
                made.replace(self.folder / made.name)
            write_index(index_path(self.folder), index)
            self._remove_others([entry.name for entry in index.files])
            shutil.rmtree(self.building, ignore_errors=True)
        atomic.sync_folder(self.folder.parent)
        self.file.unlink(missing_ok=True)

    def _remove_others(self, names: Sequence[str]) -> None:
        """Remove the files of the data set but those called `names`; a folder that then is empty, too."""
        for path in self.folder.glob(f"{self.config.name}-*.h5"):
            if path.name not in names:
                path.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # fails, as it should, while something is in it

    def expected(self, shard: Shard) -> str:
        """The content digest that the finished file of `shard` had, if one can still be read; else ""."""
        with contextlib.suppress(DataError, OSError, KeyError):
            if self.path == self.folder:
                files = {
                    entry.name: entry.content_digest for entry in read_index(index_path(self.folder)).files
                }
                return files.get(self._name(shard), "")
            return _content_digest(self.file)
        return ""

    def _name(self, shard: Shard) -> str:
        return f"{self.config.name}-{shard.number:04d}.h5"

    def manifest_digest(self) -> str:
        return manifest.digest([row for shard in self.shards for row in shard.rows])

    def _is_whole(self, path: Path, shard: Shard) -> bool:
        """Whether an unfinished build has made the file of `shard`; raises OutputExists for another's."""
        if not path.exists():
            return False
        try:
            changed = _difference(path, shard, self.config)
        except DataError as error:
            say(f"{error}; it is made again")
            return False
        if changed:
            raise OutputExists(
                f"{self.building}: an interrupted build is there, and since then {changed}; put that back "
                "to go on with it, or give --force to start anew"
            )
        return True

    def _fits(self, path: Path, shard: Shard, replaced: bool, damage: Optional[Check]) -> bool:
        """Whether a finished file can stay; raises OutputExists if it must not be touched."""
        if not path.exists():
            return False
        try:
            changed = _difference(path, shard, self.config)
            damaged = damage(path) if damage else None
        except DataError as error:
            if not (damage or replaced):
                raise OutputExists(
                    f"{error}; `python -m prepare repair` makes it again, or {_FORCE}"
                ) from None
            changed, damaged = None, str(error)
        if damaged:
            say(f"{damaged}; it is made again")
        elif changed == _GROWN:
            say(f"{path}: {changed}; it is made again with them")
        elif changed and not replaced:
            raise OutputExists(f"{path}: exists already, and {changed}; {_FORCE}")
        return not (changed or damaged)

    def _refuse_others(self) -> None:
        """Raise OutputExists for a finished data set of another shape that these rows do not contain."""
        if self.path == self.folder and self.file.exists():
            changed = _difference(self.file, self.shards[0], self.config)
            if changed not in (None, _GROWN):
                raise OutputExists(f"{self.file}: exists already, and {changed}; {_FORCE}")
        if self.folder.exists():
            most = len(self.shards) if self.path == self.folder else 0
            index = index_path(self.folder)
            if index.exists() and len(read_index(index).files) > most:
                raise OutputExists(f"{self.folder}: exists already, with more shots; {_FORCE}")

    def _state(self) -> str:
        """What tells the finished data set from another that comes under its name."""
        if not self.path.exists():
            return ""
        status = (index_path(self.path) if self.path == self.folder else self.path).stat()
        return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


_GROWN = "the manifest has more shots now"


def _content_digest(path: Path) -> str:
    with reading.open_data(path) as file, reading.damage_named(path):
        return str(reading.attributes(file)["content_digest"])


def in_reading_order(rows: Sequence[Row]) -> list[Row]:
    """`rows` run by run and in time, so that a run that is read in sequence is read once."""
    return sorted(rows, key=lambda row: row.shot)


def _difference(path: Path, shard: Shard, config: PrepareConfig) -> Optional[str]:
    """What makes the file at `path` another than that of `shard`, in words; None if nothing does.

    Raises DataError if it is no good data file. Its images are not looked at.
    """
    with reading.open_data(path) as file, reading.damage_named(path):
        attributes = reading.attributes(file)
        before = _settings(
            read_json(attributes["config"], f"{path}: attribute config"), reading.classes(file)
        )
        rows = len(reading.missing(file)) + sum(
            file[split]["images"].shape[0] for split in layout.present(file)
        )
    for key, value in _settings(json.loads(config.canonical()), list(config.runs.classes)).items():
        if before.get(key) != value:
            return f"the config changed: {key} was {json.dumps(before.get(key))}, is {json.dumps(value)}"
    if rows > len(shard.rows):
        return f"it has {rows} shots, of which {len(shard.rows)} belong there now (shard, or the manifest)"
    if attributes["manifest_sha256"] != manifest.digest(in_reading_order(shard.given[:rows])):
        return "the manifest changed"
    return _GROWN if rows < len(shard.rows) else None


def _settings(config: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    """{"image.dtype": ...}: the settings that the content of a file depends on, apart from the rows' keys."""
    runs, select = config.get("runs", {}), config.get("select", {})
    parts = {
        "experiment": config.get("experiment"),
        "camera": config.get("camera"),
        "runs": {"dark": runs.get("dark"), "classes": classes},
        "dark": config.get("dark"),
        "image": config.get("image"),
        "select": {"seed": select.get("seed")},
    }
    return _flat(parts)


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat.update(_flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value})
    return flat
