"""Listings of runs, kept from one command to the next.

psana decodes every event of a run to tell the shots' fiducials and records, some 0.1 ms each, which
for a few images out of a long run takes longer than all the rest. `select` has done it when
`build` begins, and the first rank when the others do, so a listing is kept on disk under what it
was made from; when that changes, it is made again.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Callable, Iterable, Optional

import numpy as np

from common import __version__
from common.errors import UserError
from common.files import atomic
from common.progress import warn
from prepare.shots import SHOT_DTYPE

_DIGEST = hashlib.sha256().digest_size


class Listings:
    """Listings in `folder`; with None for a folder nothing is kept."""

    def __init__(self, folder: Optional[Path]) -> None:
        self._folder = folder

    def get(
        self, run: int, made_by: Iterable[str], files: Iterable[Path], read: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """The shots of `run`, (n,) SHOT_DTYPE: kept for the same software and files, or else `read()`."""
        if self._folder is None:
            return read()
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        made_from = json.dumps([__version__, str(SHOT_DTYPE), *made_by, states])
        path = self._folder / f"run{run:04d}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
        shots = _load(path)
        if shots is None:
            shots = read()
            try:
                self._keep(run, path, shots)
            except (OSError, UserError) as error:
                reason = getattr(error, "strerror", None) or error
                warn(f"{path}: {reason}: the listing of run {run} is not kept for the next command")
        return shots

    def _keep(self, run: int, path: Path, shots: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.save(buffer, shots, allow_pickle=False)
        content = buffer.getvalue()
        with atomic.replacing(path) as partial:
            partial.write_bytes(hashlib.sha256(content).digest() + content)
        for stale in self._folder.glob(f"run{run:04d}-*"):
            if stale != path:
                stale.unlink()


def _load(path: Path) -> Optional[np.ndarray]:
    """The listing at `path`, or None if there is none or it is not what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        return None
    return np.load(io.BytesIO(content[_DIGEST:]), allow_pickle=False)
