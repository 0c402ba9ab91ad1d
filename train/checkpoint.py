"""A checkpoint: everything a run needs to go on as if it had never stopped.

One .npz file without pickle: the model's and optimizer's variables, the last gradient (for
gr-ang), and a JSON text with the step, the position in the data and the table's rows so far.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import numpy as np

from common import atomic
from common.errors import DataError
from train.data import Position

NAME = "checkpoint.npz"


class Checkpoint(NamedTuple):
    """The state after `step` steps."""

    step: int
    position: Position
    rows: List[Dict[str, float]]
    model: List[np.ndarray]
    optimizer: List[np.ndarray]
    gradient: np.ndarray
    config: Dict[str, Any]
    data_digest: str
    cpu_seconds: float


def save(run_dir: Path, state: Checkpoint) -> None:
    """Write the checkpoint of `run_dir`, complete or not at all."""
    header = {
        "step": state.step,
        "position": list(state.position),
        "rows": state.rows,
        "config": state.config,
        "data_digest": state.data_digest,
        "cpu_seconds": state.cpu_seconds,
        "variables": [len(state.model), len(state.optimizer)],
    }
    arrays = {f"model_{i}": array for i, array in enumerate(state.model)}
    arrays.update({f"optimizer_{i}": array for i, array in enumerate(state.optimizer)})
    with atomic.replacing(run_dir / NAME) as partial, open(partial, "wb") as file:
        np.savez(file, header=np.array(json.dumps(header)), gradient=state.gradient, **arrays)


def load(run_dir: Path) -> Checkpoint:
    """The checkpoint of `run_dir`; raises DataError if there is none or it cannot be read."""
    path = run_dir / NAME
    if not path.exists():
        raise DataError(f"{path}: no checkpoint to resume from; start without --resume")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            n_model, n_optimizer = header["variables"]
            return Checkpoint(
                step=header["step"],
                position=Position(*header["position"]),
                rows=header["rows"],
                model=[file[f"model_{i}"] for i in range(n_model)],
                optimizer=[file[f"optimizer_{i}"] for i in range(n_optimizer)],
                gradient=file["gradient"],
                config=header["config"],
                data_digest=header["data_digest"],
                cpu_seconds=header["cpu_seconds"],
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is damaged ({error}); start again with --force") from None
