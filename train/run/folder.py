"""The folder of a run, runs/NAME/: its file names, its lock, and files of an earlier run."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any, Iterator, Optional, Union

from common import places
from common.dataset.index import data_files
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
EXPORTED = "exported"  # a folder: the model in formats of others
LOCK = "lock"
UNKNOWN = "unknown"  # the provenance of runs that earlier versions trained

# Keys of the config that may differ between a run and its resumption.
_MAY_CHANGE = {
    "steps", "stop_when", "runs_dir", "threads", "cache", "check_images", "checkpoint_seconds", "report",
    "tensorboard",
}  # fmt: skip


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
    """Whether a run of exactly this config, on its data as they are now, has finished; raises DataError.

    Data that are gone altogether are taken for those that it was trained on.
    """
    if not is_same(config) or not (config.run_dir / MODEL).exists():
        return False
    digest = _summary(config.run_dir).get("data_digest")
    files = data_files(config.data)
    if digest is not None and not any(path.exists() for path in files):
        warn(f"{', '.join(map(str, files))}: is not there any more; {config.run_dir} was trained on it")
        return True
    return digest is not None and digest == digest_of_data(config)


def is_same(config: TrainConfig) -> bool:
    """Whether the run in the folder has this config, apart from keys that change no result."""
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
    """The config of the run in `run_dir`, its data where they are now; raises DataError if there is no run.

    A relative path of data is looked for from where the run's own place was relative to, then from the
    folder in which it was trained, then from here.
    """
    if not (run_dir / CONFIG).exists():
        raise DataError(
            f"{run_dir}: no run here (no {CONFIG}); runs are made by `python -m train fit CONFIG`"
        )
    config = load_config(str(run_dir / CONFIG))
    starts = [places.start_of(run_dir, Path(config.runs_dir) / config.name), _started_in(run_dir), Path()]
    names = [config.data] if isinstance(config.data, str) else config.data
    of_data = [str(places.found(name, starts)) for name in names]
    return config.model_copy(update={"data": of_data[0] if isinstance(config.data, str) else of_data})


def data_of(run_dir: Path, config: TrainConfig, named: Optional[str]) -> Union[str, list[str]]:
    """The data that a command works on: `named`, or the run's own; raises DataError if those are gone."""
    if named is not None:
        return named
    files = data_files(config.data)
    if not any(path.exists() for path in files):
        raise DataError(
            f"{', '.join(map(str, files))}: is not there any more; name other data for {run_dir}: --data FILE"
        )
    return config.data


def check_data(run_dir: Path, data: Data) -> None:
    """Raise DataError if `data`, found by their name, are not those that the run was trained on."""
    digest = _summary(run_dir).get("data_digest")
    if digest != data.digest:
        raise DataError(
            f"{data.path}: is not what {run_dir} was trained on (digests differ); name the data: --data FILE"
        )


def calibration(run_dir: Path) -> dict[str, Any]:
    """What was fitted on the validation split of the run; empty where nothing was."""
    found = _summary(run_dir).get("calibration")
    return found if isinstance(found, dict) else {}


def _started_in(run_dir: Path) -> Optional[Path]:
    """The folder in which the run was trained, if it has finished."""
    start = _summary(run_dir).get("started_in")
    return Path(start) if isinstance(start, str) else None


def _summary(run_dir: Path) -> dict[str, Any]:
    """summary.json of the run, empty if there is none that can be read."""
    try:
        summary = read_json((run_dir / SUMMARY).read_bytes()[: MAX_JSON + 1], str(run_dir / SUMMARY))
    except (OSError, DataError):
        return {}
    return summary if isinstance(summary, dict) else {}


def clear(run_dir: Path) -> None:
    """Remove an earlier run's files, so that none of them is taken for this run's."""
    reopen(run_dir)
    checkpoint.clear(run_dir)
    for name in (METRICS, CONFIG):
        (run_dir / name).unlink(missing_ok=True)
    shutil.rmtree(run_dir / BOARD, ignore_errors=True)
    for path in sorted([*run_dir.glob("predictions_*.csv"), *run_dir.glob(EXPORTED)]):
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
    if state.step > config.steps:
        raise DataError(
            f"{config.run_dir}: {state.step} steps are done, the config says `steps: {config.steps}`; "
            "give at least as many, or choose another `name:`"
        )
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


def provenance(run_dir: Path) -> str:
    """Of the shots that the run was trained and tested on: `common.dataset.provenance`'s words."""
    found = _summary(run_dir).get("provenance")
    return found if isinstance(found, str) else UNKNOWN


def classes(run_dir: Path) -> list[str]:
    """The names of the classes that the run was trained on; raises DataError if it did not finish."""
    names = _finished(run_dir).get("classes")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{run_dir / SUMMARY}: has no list of classes; train again with --force")
    return names


def check_fits(run_dir: Path, data: Data) -> None:
    """Raise DataError unless `data` are such as the run was trained on.

    That is, images that were made alike and, where a split is labeled, the same classes in the same order.
    """
    trained, names = _finished(run_dir).get("processing"), classes(run_dir)
    if data.processing != trained:
        raise DataError(
            f"{data.path}: its images are made otherwise than those that {run_dir} was trained on: "
            f"{_difference(trained, data.processing)}; prepare them with the same `image:` section"
        )
    if any(split.labels is not None for split in data.splits.values()) and data.classes != names:
        raise DataError(
            f"{data.path}: has the classes {', '.join(data.classes)}; {run_dir} was trained on "
            f"{', '.join(names)}; name data of those classes, or without labels for `predict`"
        )


def _difference(trained: Any, now: Any) -> str:
    """What differs between two `image:` sections, in words."""
    if not isinstance(trained, dict) or not isinstance(now, dict):
        return "one of them does not say how"
    keys = sorted(key for key in {*trained, *now} if trained.get(key) != now.get(key))
    return ", ".join(f"`{key}: {now.get(key)}`, not {trained.get(key)}" for key in keys)


def _finished(run_dir: Path) -> dict[str, Any]:
    """summary.json of a finished run; raises DataError if it did not finish."""
    path = run_dir / SUMMARY
    if not path.exists():
        raise DataError(f"{path}: no such file; finish the run with `python -m train fit CONFIG --resume`")
    with path.open("rb") as file:
        summary = read_json(file.read(MAX_JSON + 1), str(path))
    if not isinstance(summary, dict):
        raise DataError(f"{path}: is not a summary of a run; train again with --force")
    return summary


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
