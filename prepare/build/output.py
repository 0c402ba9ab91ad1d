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
from common.dataset.index import Index, index_path, read_index, write_index
from common.dataset.reading import Header, read_header
from common.dataset.safety import read_json
from common.errors import DataError, OutputExists
from common.files import atomic
from common.files.lock import only_one
from common.manifest import Row, Rows
from common.progress import say
from prepare.config import PrepareConfig

_REPLACES = "replaces"  # in the folder that is being made: which finished data set --force is to replace
_FORCE = "give --force to replace it"

Check = Callable[[Path], Optional[str]]  # a file of a data set -> what is damaged in it, or None


class Shard(NamedTuple):
    """A fixed, consecutive share of the manifest: its number from 0, its rows in the order of reading."""

    number: int
    rows: Rows
    given: Rows  # the rows as the manifest has them


class Output:
    """The data set of `config` with the manifest's `rows`. Its methods are for who holds its lock."""

    def __init__(self, config: PrepareConfig, rows: Sequence[Row]) -> None:
        self.config, self.rows = config, Rows.of(rows)
        size = config.shard
        shares = [self.rows[first : first + size] for first in range(0, len(rows), size)]
        self.shards = [Shard(n, _in_order(share), share) for n, share in enumerate(shares)]
        self._settings = _settings(json.loads(config.canonical()), list(config.runs.classes))
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

    def found(self, anew: bool, damage: Optional[Check] = None) -> dict[int, Header]:
        """{number: header} of the shards that are there, whole and of this config and manifest.

        Of a finished file its header is believed: who looks at rows and images is `verify`. anew: none of
        what is finished. damage: looks into a finished file for what makes it to be made again; without it a
        damaged one is refused. Raises OutputExists, saying what differs, if something else is where the data
        set goes.
        """
        replaces = self.building / _REPLACES
        replaced = anew or (replaces.exists() and replaces.read_text() == self._state())
        found: dict[int, Header] = {}
        for shard in self.shards:
            header = self._unfinished(self.target(shard), shard) if self.path == self.folder else None
            if header is None and not anew:
                header = self._finished(self.final(shard), shard, replaced, damage)
            if header is not None:
                found[shard.number] = header
        if not replaced:
            self._refuse_others()
        return found

    def is_finished(self, found: dict[int, Header]) -> bool:
        """Whether all is there, under its final names."""
        headers = [found.get(shard.number) for shard in self.shards]
        if any(h is None or h.path != self.final(shard) for h, shard in zip(headers, self.shards)):
            return False
        if self.path == self.file:
            return True
        with contextlib.suppress(DataError):
            index = read_index(index_path(self.folder))
            said = [(entry.name, entry.content_digest) for entry in index.files]
            same = said == [(h.path.name, h.attributes["content_digest"]) for h in headers if h]
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
        with contextlib.suppress(DataError, KeyError):
            if self.path == self.folder:
                files = read_index(index_path(self.folder)).files
                return {entry.name: entry.content_digest for entry in files}.get(self._name(shard), "")
            return str(read_header(self.file).attributes["content_digest"])
        return ""

    def manifest_digest(self) -> str:
        return manifest.digest(Rows.joined(shard.rows for shard in self.shards))

    def _name(self, shard: Shard) -> str:
        return f"{self.config.name}-{shard.number:04d}.h5"

    def _unfinished(self, path: Path, shard: Shard) -> Optional[Header]:
        """The header of what an unfinished build has made of `shard`; raises OutputExists for another's."""
        if not path.exists():
            return None
        try:
            header = read_header(path, whole=True)
            changed = self._difference(header, shard)
        except DataError as error:
            say(f"{error}; it is made again")
            return None
        if changed:
            raise OutputExists(
                f"{self.building}: an interrupted build is there, and since then {changed}; put that back "
                "to go on with it, or give --force to start anew"
            )
        return header

    def _finished(
        self, path: Path, shard: Shard, replaced: bool, damage: Optional[Check]
    ) -> Optional[Header]:
        """The header of a finished file that can stay; raises OutputExists if it must not be touched."""
        if not path.exists():
            return None
        try:
            header = read_header(path)
            changed = self._difference(header, shard)
            damaged = damage(path) if damage else None
        except DataError as error:
            if not (damage or replaced):
                raise OutputExists(
                    f"{error}; `python -m prepare repair` makes it again, or {_FORCE}"
                ) from None
            header, changed, damaged = None, None, str(error)
        if damaged:
            say(f"{damaged}; it is made again")
        elif changed == _GROWN:
            say(f"{path}: {changed}; it is made again with them")
        elif changed and not replaced:
            raise OutputExists(f"{path}: exists already, and {changed}; {_FORCE}")
        return None if changed or damaged else header

    def _difference(self, header: Header, shard: Shard) -> Optional[str]:
        """What makes a file another than that of `shard`, in words; None if nothing does."""
        attributes, where = header.attributes, str(header.path)
        names = read_json(attributes.get("classes"), f"{where}: attribute classes")
        before = _settings(read_json(attributes.get("config"), f"{where}: attribute config"), names)
        for key, value in self._settings.items():
            if before.get(key) != value:
                was = json.dumps(before.get(key))
                return f"the config changed: {key} was {was}, is {json.dumps(value)}"
        asked = attributes.get("manifest_sha256")
        if asked == manifest.digest(shard.rows):
            return None
        rows, most = header.images + len(header.missing), len(shard.rows)
        if rows > most:
            return f"it has {rows} shots, of which {most} belong there now (shard, or the manifest)"
        if asked != manifest.digest(_in_order(shard.given[:rows])):
            return "the manifest changed"
        return _GROWN

    def _refuse_others(self) -> None:
        """Raise OutputExists for a finished data set of another shape that these rows do not contain."""
        if self.path == self.folder and self.file.exists():
            changed = self._difference(read_header(self.file), self.shards[0])
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


def _in_order(rows: Rows) -> Rows:
    return rows[rows.reading_order()]


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
