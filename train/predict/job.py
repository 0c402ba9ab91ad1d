"""Apply a trained network to every shot of a data file, a few images at a time."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple, Optional, Sequence, Union

import numpy as np
from scipy.special import softmax

from common import cli, parallel
from common.dataset import provenance
from common.errors import DataError
from common.files import atomic
from common.progress import bar, say
from common.report.drawing import drawing
from train.config import TrainConfig
from train.data.dataset import Data, open_data
from train.data.minibatches import Split
from train.fit import runtime, timing
from train.predict import predictions, probability_plot, spread, summary
from train.predict.predictions import Part
from train.run import folder

if TYPE_CHECKING:
    from train.model.predictor import Predictor
    from train.predict.spread import Spread
    from train.predict.trust import Trust

    Streams = Union[Predictor, Spread]


class Predicted(NamedTuple):
    """Results: one row for each run and split, one for each labeled split, images per second."""

    n: int
    runs: list[dict[str, Any]]
    splits: list[dict[str, Any]]
    images_per_second: float
    plot: Path
    summary: Path


def run(
    run_dir: Path,
    data_path: str,
    splits: Sequence[str],
    out: Optional[Path],
    force: bool,
    as_json: bool,
    workers: Executor,
) -> None:
    """The whole of `python -m train predict`. Raises UserError."""
    config = folder.config_of(run_dir)
    with open_data(data_path, None, splits, "stream", unlabeled=True) as data:
        path = out or default_out(run_dir, data.paths[0])
        data = check(run_dir, config, data, splits, path, force)
        threads = runtime.start(config.threads, config.seed)
        from train.predict import trust  # TensorFlow is loaded after what is refused without it

        known = trust.load(run_dir)
        origin = spread.Origin(run_dir, tuple(data.paths), 0, known.reference is not None)
        done = predict(spread.predictor(workers, origin), run_dir, data, path, known)
    if as_json:
        cli.print_json(json.loads(done.summary.read_text(encoding="utf-8")))
        return
    for line in summary.lines(done.runs, done.splits, data.classes):
        say(line)
    say(f"{done.n} shots, {done.images_per_second:.0f} a second")
    say_origin(run_dir, data)
    if isinstance(workers, parallel.Here):
        say(timing.usage_line(timing.usage(threads)))
    say(f"{path}: the predictions; {done.plot.name}: over time; {done.summary.name}: this summary")


def say_origin(run_dir: Path, data: Data) -> None:
    """Say where shots are simulated that a model is applied to, or was trained on."""
    trained, here = folder.provenance(run_dir), data.provenance
    if provenance.banner(here):
        say(provenance.banner(here))
    if provenance.word(trained) not in (provenance.word(here), folder.UNKNOWN):
        say(f"The network was trained on {trained} shots, these are {here}.")


def default_out(run_dir: Path, data_path: Path) -> Path:
    """The default output path: in the run's folder."""
    return run_dir / f"predictions_{data_path.stem}.csv"


def beside(out: Path) -> tuple[Path, Path]:
    """The plot and the summary that go with `out`."""
    return out.with_suffix(".png"), out.with_suffix(".json")


def check(
    run_dir: Path, config: TrainConfig, data: Data, splits: Sequence[str], out: Path, force: bool
) -> Data:
    """`data` with the asked-for `splits` only (none: all), under the names of the run's classes.

    Raises DataError where they are not what the network of `run_dir` was trained for, OutputExists
    and UserError where the predictions cannot go to `out`.
    """
    predictions.check_name(out)
    for output in (out, *beside(out)):
        atomic.refuse_existing(output, force)
    classes = folder.classes(run_dir)
    chosen = {name: split for name, split in data.splits.items() if not splits or name in splits}
    if not chosen:
        raise DataError(f"{data.path}: has no shots")
    for split in chosen.values():
        if split.image != config.input:
            raise DataError(
                f"{data.path}: images are {split.image[0]} x {split.image[1]}, {run_dir} was trained on "
                f"{config.input[0]} x {config.input[1]}; prepare them with the same image: settings"
            )
    data = data._replace(splits=chosen)
    folder.check_fits(run_dir, data)
    return data._replace(classes=classes)


def predict(predictor: Streams, run_dir: Path, data: Data, out: Path, trust: Trust) -> Predicted:
    """Write the predictions of `data` to `out`, and a plot and a summary (JSON) beside it.

    Images are read and predicted a few at a time; ids and predictions stay in memory (some 100 bytes
    a shot). Raises DataError for an image or an answer that is not a number.
    """
    with drawing():  # before the work: it says if a package is missing
        return _predict(predictor, run_dir, data, out, trust)


def _predict(predictor: Streams, run_dir: Path, data: Data, out: Path, trust: Trust) -> Predicted:
    plot, numbers = beside(out)
    origin = {
        "run": str(run_dir),
        "model_sha256": hashlib.sha256((run_dir / "model.keras").read_bytes()).hexdigest(),
        "data": data.path,
        "data_digest": data.digest,
        "provenance": data.provenance,
        "trained_on": folder.provenance(run_dir),
    }
    total = sum(len(split) for split in data.splits.values())
    parts: list[Part] = []
    start = time.perf_counter()
    extras = trust.error is not None, trust.reference is not None
    with predictions.writing(out, data.classes, total, origin, *extras) as writer:
        progress = bar(None, "predicting", "shot", total=total)
        streams = (stream(predictor, split, trust) for split in data.splits.values())
        for part in itertools.chain.from_iterable(streams):
            parts.append(part)
            progress.update(len(part.ids))
        progress.close()
        parts = _flagged_with_runs(parts)  # which only all shots of a run tell
        for part in parts:
            writer.write(part)
    rate = total / (time.perf_counter() - start)
    runs = summary.of_runs(parts, data.classes, data.blocks)
    of_splits = summary.of_labeled(parts, data.blocks)
    atomic.write_text(
        numbers,
        json.dumps({**origin, "classes": data.classes, "runs": runs, "splits": of_splits}, indent=1) + "\n",
    )
    probability_plot.draw(plot, parts, data.classes, f"{run_dir.name} on {data.names}")
    return Predicted(total, runs, of_splits, rate, plot, numbers)


def stream(predictor: Streams, split: Split, trust: Trust) -> Iterator[Part]:
    """The predictions of `split` in order, a few shots at a time; raises DataError for NaN or infinity."""
    done = 0
    for outputs in predictor.stream(split):
        logits, energy = outputs.logits, outputs.energy
        rows = np.s_[done : done + len(logits)]
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(bad):
            raise DataError(_not_a_number(split, done + int(bad[0])))
        labels = None if split.labels is None else split.labels[rows]
        interval = flags = None
        if trust.error is not None:
            half = trust.error.half_width(energy)
            interval = np.stack([energy, np.maximum(energy - half, 0), energy + half], axis=1)
        if trust.reference is not None:
            features = outputs.features.astype(np.float64)
            flags = trust.reference.reasons(features, logits.argmax(axis=1), energy)
        probability = softmax(logits.astype(np.float64), axis=1)
        yield Part(split.name, split.ids[rows], labels, probability, split.simulated[rows], interval, flags)
        done += len(logits)


def _flagged_with_runs(parts: Sequence[Part]) -> list[Part]:
    """The parts, in which all shots are flagged of a run in which many are; split by split."""
    from train.model.novelty import with_runs

    found = []
    for _, of_split in itertools.groupby(parts, lambda part: part.split):
        mine = list(of_split)
        if mine[0].flags is not None:
            run = np.concatenate([part.ids["run"] for part in mine])
            flags = iter(with_runs([flag for part in mine for flag in part.flags], run))
            mine = [part._replace(flags=list(itertools.islice(flags, len(part.ids)))) for part in mine]
        found += mine
    return found


def _not_a_number(split: Split, row: int) -> str:
    shot = " ".join(f"{name} {split.ids[name][row]}" for name in split.ids.dtype.names)
    where = f"{split.name}, image {row} ({shot})"
    if np.isfinite(split.images([row])).all():
        return f"{where}: the model's answer is not a number; train it again with a lower learning_rate.start"
    return f"{where}: the image has values that are not numbers; run `python -m prepare verify` on the file"
