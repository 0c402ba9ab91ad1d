"""Checkpoints: everything a run needs to resume exactly where it stopped.

    runs/NAME/checkpoints/step-00000120.npz     the last KEEP of them

Each is one .npz file (a zip of arrays, nothing compressed, no pickle): `model_N`, `optimizer_N`
and `gradient` are the variables' values, `table` the bytes of metrics.csv, `header` a JSON text
with the rest, `digest` the SHA-256 of all of these. A file whose digest does not agree, or that
cannot be read, is damaged; the one before it is used then.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from common.errors import DataError
from common.files import atomic
from common.progress import warn
from train.data.order import Position
from train.run.archive import ZIP_ERRORS, read_arrays

FOLDER = "checkpoints"
KEEP = 3
FORMAT = 2  # 1 had no times
_NAME = re.compile(r"step-\d{8,}\.npz")


class Checkpoint(NamedTuple):
    """The state after `step` steps, of which `timed` were timed; `times`: of a Stopwatch, in seconds."""

    step: int
    position: Position
    table: bytes  # metrics.csv so far
    model: list[np.ndarray]
    optimizer: list[np.ndarray]
    gradient: np.ndarray
    config: dict[str, Any]
    data_digest: str
    timed: int
    times: dict[str, float]


def save(run_dir: Path, state: Checkpoint) -> Path:
    """Write a checkpoint of `run_dir`, complete or not at all; only the last KEEP stay. Returns its path."""
    header = {
        "format": FORMAT,
        "step": state.step,
        "position": list(state.position),
        "config": state.config,
        "data_digest": state.data_digest,
        "timed": state.timed,
        "times": state.times,
        "variables": [len(state.model), len(state.optimizer)],
    }
    arrays = {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "table": np.frombuffer(state.table, np.uint8),
        "gradient": state.gradient,
        **{f"model_{i}": array for i, array in enumerate(state.model)},
        **{f"optimizer_{i}": array for i, array in enumerate(state.optimizer)},
    }
    path = run_dir / FOLDER / f"step-{state.step:08d}.npz"
    with atomic.replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, digest=np.frombuffer(_digest(arrays), np.uint8), **arrays)
    _prune(path)
    return path


def load(run_dir: Path) -> Optional[Checkpoint]:
    """The newest checkpoint of `run_dir` that is sound, with a warning for each that is not.

    None if there is no checkpoint. Raises DataError if there are some and all are damaged.
    """
    paths = find(run_dir)
    for path in reversed(paths):
        try:
            state = _read(path)
        # What zipfile, numpy and json raise for rubbish, and our own checks.
        except (*ZIP_ERRORS, OSError, TypeError, RecursionError) as error:
            warn(f"{path}: is damaged ({' '.join(str(error).split())[:200]}); taking the one before it")
        else:
            return state
    if paths:
        raise DataError(f"{paths[-1]}: is damaged, and so is every one before it; start again with --force")
    return None


def find(run_dir: Path) -> list[Path]:
    """The checkpoints of `run_dir`, sound or not, oldest first."""
    folder = run_dir / FOLDER
    paths = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(paths, key=lambda path: int(path.stem[len("step-") :]))


def clear(run_dir: Path) -> None:
    """Remove all checkpoints of `run_dir`, oldest first, so that a kill in between leaves the newest."""
    for path in find(run_dir):
        path.unlink()
    folder = run_dir / FOLDER
    if folder.is_dir():
        _remove_partial(folder)


def _prune(newest: Path) -> None:
    """Remove all but the last KEEP up to `newest`; any later ones are damaged, or they would be `newest`."""
    paths = find(newest.parent.parent)
    upto = paths.index(newest) + 1
    for path in (*paths[: max(upto - KEEP, 0)], *paths[upto:]):
        path.unlink()
    _remove_partial(newest.parent)


def _remove_partial(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in folder.glob(f"{atomic.PARTIAL_PREFIX}*"):
        path.unlink()


def _read(path: Path) -> Checkpoint:
    arrays = read_arrays(path)
    if arrays.pop("digest").tobytes() != _digest(arrays):
        raise ValueError("its digest does not agree with its content")
    header = json.loads(arrays["header"].tobytes())
    if header["format"] != FORMAT:
        raise ValueError(
            f"format {header['format']} is not {FORMAT}; another version of the software wrote it"
        )
    n_model, n_optimizer = header["variables"]
    return Checkpoint(
        step=int(header["step"]),
        position=Position(*map(int, header["position"])),
        table=arrays["table"].tobytes(),
        model=[arrays[f"model_{i}"] for i in range(n_model)],
        optimizer=[arrays[f"optimizer_{i}"] for i in range(n_optimizer)],
        gradient=arrays["gradient"],
        config=dict(header["config"]),
        data_digest=str(header["data_digest"]),
        timed=int(header["timed"]),
        times={name: float(seconds) for name, seconds in header["times"].items()},
    )


def _digest(arrays: dict[str, np.ndarray]) -> bytes:
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array))
    return sha.digest()
