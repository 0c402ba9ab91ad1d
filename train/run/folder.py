"""The folder of a run, runs/NAME/: its file names, its lock, and files of an earlier run."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Iterator, Optional, Sequence

from common.dataset.safety import MAX_JSON, read_json
from common.errors import ConfigError, DataError, OutputExists
from common.files import atomic, lock
from common.progress import warn
from train.config import TrainConfig, load_config
from train.data.dataset import Data, open_data
from train.run import checkpoint
from train.run.checkpoint import Checkpoint

CONFIG, METRICS, MODEL, SUMMARY = "config.yaml", "metrics.csv", "model.keras", "summary.json"
REPORT, BOARD = "report.html", "tensorboard"
REFERENCE, CARD = "reference.npz", "card.md"
LOCK = "lock"

# Of a run: what may differ between a run and its resumption.
_MAY_CHANGE = {
    "steps",
    "stop_when",
    "runs_dir",
    "threads",
    "cache",
    "check_images",
    "checkpoint_seconds",
    "report",
    "tensorboard",
}


@contextlib.contextmanager
def claimed(run_dir: Path, resume: bool, force: bool) -> Iterator[None]:
    """Lock `run_dir`. Raises OutputBusy, or OutputExists if it holds a run and neither flag is set."""
    try:
        with lock.only_one(run_dir / LOCK, run_dir):
            if not resume and not force:
                _refuse(run_dir)
            yield
    finally:
        with contextlib.suppress(OSError):
            run_dir.rmdir()  # only if it is empty: nothing was begun


def is_finished(config: TrainConfig) -> bool:
    """Whether a run of exactly this config, on its data as they are now, has finished; raises DataError."""
    try:
        summary = json.loads((config.run_dir / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not is_same(config) or not (config.run_dir / MODEL).exists():
        return False
    return isinstance(summary, dict) and summary.get("data_digest") == digest_of_data(config)


def is_same(config: TrainConfig) -> bool:
    """Whether the run in the folder is one of this very config, whatever its threads and the like."""
    try:
        there = load_config(str(config.run_dir / CONFIG))
    except ConfigError:
        return False
    free = _MAY_CHANGE - {"steps", "stop_when"}
    return there == config.model_copy(update={name: getattr(there, name) for name in free})


def digest_of_data(config: TrainConfig) -> str:
    """The digest of the config's data, of which no image is read; raises DataError."""
    with open_data(config.data, config.input, config.needed_splits, "stream") as data:
        return data.digest


def config_of(run_dir: Path) -> TrainConfig:
    """The config of the run in `run_dir`; raises DataError if there is no run."""
    if not (run_dir / CONFIG).exists():
        raise DataError(
            f"{run_dir}: no run here (no {CONFIG}); runs are made by `python -m train fit CONFIG`"
        )
    return load_config(str(run_dir / CONFIG))


def clear(run_dir: Path) -> None:
    """Remove an earlier run's files, so that none of them is taken for this run's."""
    reopen(run_dir)
    checkpoint.clear(run_dir)
    for name in (METRICS, CONFIG):
        (run_dir / name).unlink(missing_ok=True)
    shutil.rmtree(run_dir / BOARD, ignore_errors=True)
    for path in sorted(run_dir.glob("predictions_*.csv")):
        warn(f"{path}: made by the model that is being replaced; it is left there")


def reopen(run_dir: Path) -> None:
    """Turn a finished run into an unfinished one: remove its report, summary and model."""
    for name in (REPORT, CARD, SUMMARY, REFERENCE, MODEL):
        (run_dir / name).unlink(missing_ok=True)


def resumable(config: TrainConfig, data: Data) -> Optional[Checkpoint]:
    """The checkpoint to resume from, None if there is none; raises DataError if it is of another run."""
    state = checkpoint.load(config.run_dir)
    if state is None:
        return None
    now = config.model_dump(mode="json")
    changed = [key for key in now if key not in _MAY_CHANGE and now[key] != state.config.get(key)]
    if changed:
        raise DataError(
            f"{config.run_dir}: was trained with another `{changed[0]}:` than the config gives now; "
            "change it back, or choose another `name:`"
        )
    if state.data_digest != data.digest:
        raise DataError(f"{data.path}: is not the file that {config.run_dir} was trained on (digests differ)")
    return state


def classes(run_dir: Path) -> list[str]:
    """The names of the classes that the run was trained on; raises DataError if it did not finish."""
    path = run_dir / SUMMARY
    if not path.exists():
        raise DataError(f"{path}: no such file; finish the run with `python -m train fit CONFIG --resume`")
    with path.open("rb") as file:
        summary = read_json(file.read(MAX_JSON + 1), str(path))
    names = summary.get("classes") if isinstance(summary, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: has no list of classes; train again with --force")
    return names


def check_classes(run_dir: Path, names: Sequence[str], where: str) -> None:
    """Raise DataError if `where` has other classes, or in another order, than the run was trained on."""
    trained = classes(run_dir)
    if list(names) != trained:
        raise DataError(
            f"{where} has the classes {', '.join(names)}; {run_dir} was trained on {', '.join(trained)}"
        )


def _refuse(run_dir: Path) -> None:
    there = [
        path for path in run_dir.iterdir()
        if path.name != LOCK and not path.name.startswith((atomic.PARTIAL_PREFIX, "controls."))
    ]  # fmt: skip
    if not there:
        return
    if (run_dir / CONFIG).exists() and not (run_dir / SUMMARY).exists():
        raise OutputExists(f"{run_dir}: an unfinished run; --resume continues it, --force starts it again")
    raise OutputExists(f"{run_dir}: exists already; --resume continues it, --force replaces it")
