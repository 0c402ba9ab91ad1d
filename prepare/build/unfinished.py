"""The folder of an unfinished build, `NAME.h5.parts` beside the output: what it holds and for whom.

    plan.json   what is being built: config, manifest, source files
    dark.npz    the averaged dark
    *.part      images, or where they are (see prepare/build/parts.py)
    images.h5   the file to be, if one process builds it without compression: the images are in their places
    lock        held by the process that builds

A build that is started again goes on from it, unless the plan has changed. It is removed when
the finished file is in place.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from common import manifest
from common.dataset import schema
from common.dataset.safety import read_json
from common.errors import DataError, OutputExists
from common.files import atomic
from common.manifest import Row
from prepare.build import parts
from prepare.config import PrepareConfig
from prepare.image.dark import Dark
from prepare.sources import Source

# What the stored images depend on; the rest of the config may change between two starts.
_SECTIONS = ("source", "experiment", "camera", "runs", "dark", "image")
_DARK_FIELDS = ("mean", "std", "frames", "rejected_frames", "rejected_pixels")


class Unfinished:
    """The folder beside `output`. Its methods are for the process that holds the lock."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".parts")

    @property
    def lock(self) -> Path:
        """The lock file."""
        return self.folder / "lock"

    def started(self) -> bool:
        """Whether there is something to go on from."""
        return self.dark_path.exists() or bool(parts.paths(self.folder))

    def replaces(self) -> bool:
        """Whether the finished file that is there is the one that the interrupted build was to replace."""
        return self.output.exists() and self._read_plan().get("replaces") == _state(self.output)

    def made(self) -> bool:
        """Whether the interrupted build has made the finished file, and was killed before it tidied up."""
        if not self.output.exists() or self.replaces():
            return False
        plan = self._read_plan().get("plan", {})
        settings = plan.get("config", {})
        try:
            with schema.open_data(self.output) as file:
                found = schema.attributes(file)
                config = read_json(found["config"], f"{self.output}: attribute config")
                same = found["manifest_sha256"] == plan.get("manifest")
        except (DataError, KeyError):
            return False
        return same and all(config.get(name) == settings.get(name) for name in _SECTIONS)

    def begin(self, plan: Dict[str, Any], anew: bool) -> bytes:
        """Take up, or with `anew` start, the build that `plan` describes; returns its identity.

        The finished file that is there now, if there is one, is what it will replace. Raises
        OutputExists, saying what differs, if something of another build is there.
        """
        if anew:
            self._empty()
        before = self._read_plan()
        if self.started():
            changed = _difference(before.get("plan", {}), plan)
            if changed:
                raise OutputExists(
                    f"{self.folder}: an interrupted build is there, and since then {changed}; put that back "
                    "to go on with it, or give --force to start anew"
                )
        replaced = _state(self.output) if self.output.exists() else None
        atomic.write_text(self._plan_path, json.dumps({"plan": plan, "replaces": replaced}, indent=1))
        of_images = {name: value for name, value in plan.items() if name != "sources"}
        return hashlib.sha256(json.dumps(of_images, sort_keys=True).encode()).digest()

    def new_parts(self, count: int) -> List[Path]:
        """Names for `count` part files that are not there yet."""
        there = [int(path.stem) for path in parts.paths(self.folder) if path.stem.isdigit()]
        first = max(there, default=0) + 1
        return [self.folder / f"{first + n:05d}{parts.SUFFIX}" for n in range(count)]

    @property
    def images_path(self) -> Path:
        """Where the file to be is, while its images come into it."""
        return self.folder / parts.IMAGES

    def slots(
        self, config: PrepareConfig, sizes: Mapping[str, int], found: parts.Found
    ) -> Optional[parts.Slots]:
        """The places of {split: number} images in the file to be, which is made if it is not there.

        A file that an interrupted build left is given back the structure that it began with, byte by
        byte and around the images that are `found` in it: HDF5, which can crash on a file that it had
        no time to complete, never reads it. None if there can be no places: with compression nobody
        knows an image's size beforehand; and another version of HDF5 may have put the images elsewhere.
        """
        if config.image.compression != "none":
            return None
        try:
            with schema.create(self._fresh_path, sizes, *config.stored_as) as file:
                offsets = {split: schema.image_offsets(file[split]["images"]) for split in sizes}
            if any(at is None for at in offsets.values()):
                return None
            slots = parts.Slots(self.images_path, offsets)
            if not self.images_path.exists():
                atomic.put(self._fresh_path, self.images_path)
            elif found.elsewhere(slots):
                return None
            else:
                image = int(np.prod(config.image_shape)) * np.dtype(config.image.dtype).itemsize
                _restore(self.images_path, self._fresh_path, np.concatenate(list(offsets.values())), image)
            return slots
        finally:
            self._fresh_path.unlink(missing_ok=True)

    @property
    def dark_path(self) -> Path:
        """Where the dark is kept."""
        return self.folder / "dark.npz"

    def load_dark(self) -> Optional[Dark]:
        """The dark that was kept; None if there is none or it is damaged."""
        try:
            with self.dark_path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                mean, std, *counts = (file[name] for name in _DARK_FIELDS)
                return Dark(mean, std, *map(int, counts))
        except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def save_dark(self, dark: Dark) -> None:
        """Keep the dark, complete or not at all."""
        whole = io.BytesIO()  # a zip file that cannot be written to its end complains for long
        np.savez(whole, **dark._asdict())
        with atomic.replacing(self.dark_path) as partial:
            partial.write_bytes(whole.getbuffer())

    def remove(self) -> None:
        """Remove everything; the folder itself goes when the lock is released."""
        self._empty()
        self._plan_path.unlink(missing_ok=True)

    @property
    def _fresh_path(self) -> Path:
        return self.folder / f"{atomic.PARTIAL_PREFIX}{parts.IMAGES}"

    @property
    def _plan_path(self) -> Path:
        return self.folder / "plan.json"

    def _empty(self) -> None:
        for path in (self.dark_path, self.images_path, self._fresh_path, *parts.paths(self.folder)):
            path.unlink(missing_ok=True)

    def _read_plan(self) -> Dict[str, Any]:
        try:
            read = json.loads(self._plan_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return read if isinstance(read, dict) else {}


def _restore(path: Path, fresh: Path, offsets: np.ndarray, size: int) -> None:
    """Make all bytes of `path` those of `fresh`, but for images of `size` bytes that start at `offsets`."""
    with fresh.open("rb") as source, path.open("r+b") as target:
        end = os.fstat(source.fileno()).st_size
        at = 0
        for start in (*np.sort(offsets).tolist(), end):
            source.seek(at)
            target.seek(at)
            target.write(source.read(start - at))
            at = start + size
        target.truncate(end)


def _state(path: Path) -> List[int]:
    """What tells the file at `path` from another that comes under its name."""
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def plan_of(source: Source, config: PrepareConfig, rows: Sequence[Row]) -> Dict[str, Any]:
    """What a build's images depend on: what must be the same when it goes on."""
    settings = json.loads(config.canonical())
    runs = [*config.runs.dark, *config.runs.measured]
    return {
        "parts": parts.MAGIC.decode(),
        "config": {**{name: settings[name] for name in _SECTIONS}, "select.seed": config.select.seed},
        "manifest": manifest.digest(rows),
        "sources": {str(run): dict(source.files(run)) for run in runs},
    }


def _difference(before: Dict[str, Any], now: Dict[str, Any]) -> str:
    """The first thing that differs, in words; "" if nothing does."""
    if before.get("parts") != now["parts"]:
        return "the software was replaced by one that keeps images differently"
    old, new = _flat(before.get("config", {})), _flat(now["config"])
    for key in new:
        if old.get(key) != new[key]:
            return f"the config changed: {key} was {json.dumps(old.get(key))}, is {json.dumps(new[key])}"
    if before.get("manifest") != now["manifest"]:
        return "the manifest changed"
    for run, files in now["sources"].items():
        old = before.get("sources", {}).get(run, {})
        # A file that has come since changes no image that was made, but it would the dark.
        names = {**old, **files} if int(run) in now["config"]["runs"]["dark"] else old
        for name in names:
            was, size = old.get(name), files.get(name)
            if was != size:
                was, size = (f"{n} bytes" if n is not None else "not there" for n in (was, size))
                return f"the source file {name} changed: was {was}, is {size}"
    return ""


def _flat(settings: Dict[str, Any], before: str = "") -> Dict[str, Any]:
    """{"image.dtype": ...} of nested mappings."""
    flat: Dict[str, Any] = {}
    for key, value in settings.items():
        flat.update(_flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value})
    return flat
