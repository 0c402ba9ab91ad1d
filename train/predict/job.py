"""Apply a trained network to every shot of a data file, a few images at a time."""

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Sequence, Union

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
from train.predict.predictions import Predictions
from train.predict.probability_plot import Shots
from train.run import folder

if TYPE_CHECKING:
    from train.model.predictor import Predictor
    from train.predict.spread import Spread
    from train.predict.trust import Trust


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
        path = out or run_dir / f"predictions_{data.paths[0].stem}.csv"
        plot, numbers = path.with_suffix(".png"), path.with_suffix(".json")
        data = _checked(run_dir, config, data, splits, (path, plot, numbers), force)
        threads = runtime.start(config.threads, config.seed)
        from train.predict import trust  # TensorFlow is loaded after what is refused without it

        known = trust.load(run_dir)
        predictor = spread.predictor(
            workers, spread.Origin(run_dir, tuple(data.paths), 0, known.reference is not None)
        )
        origin = {
            "run": str(run_dir),
            "model_sha256": hashlib.sha256((run_dir / folder.MODEL).read_bytes()).hexdigest(),
            "data": data.path,
            "data_digest": data.digest,
            "provenance": data.provenance,
            "trained_on": folder.provenance(run_dir),
        }
        total, start = sum(map(len, data.splits.values())), time.perf_counter()
        with drawing():  # before the work: it says if a package is missing
            with atomic.replacing(path) as partial:
                with bar(None, "predicting", "shot", total=total) as progress:
                    found = predicted(predictor, data, known, progress.update)
                predictions.write(partial, found, origin)
            rate = total / (time.perf_counter() - start)
            runs, scores = summary.of_runs(found, data.blocks), summary.of_labeled(found, data.blocks)
            of_splits = [{"split": name, **score.to_json()} for name, score in scores.items()]
            of_runs = [row.to_json() for row in runs]
            told = {**origin, "classes": data.classes, "runs": of_runs, "splits": of_splits}
            atomic.write_text(numbers, json.dumps(told, indent=1) + "\n")
            shots = Shots(found.classes, found.ids, found.probability, found.label, found.split)
            probability_plot.draw(plot, shots, f"{run_dir.name} on {data.names}")
    if as_json:
        cli.print_json(told)
        return
    for line in summary.lines(runs, scores):
        say(line)
    say(f"{total} shots, {rate:.0f} a second")
    say_origin(run_dir, data)
    if isinstance(workers, parallel.Here):
        say(timing.usage_line(timing.usage(threads)))
    say(f"{path}: the predictions; {plot.name}: over time; {numbers.name}: this summary")


def say_origin(run_dir: Path, data: Data) -> None:
    """Say so if the shots that a model is applied to, or was trained on, are simulated."""
    trained, here = folder.provenance(run_dir), data.provenance
    if provenance.banner(here):
        say(provenance.banner(here))
    if provenance.word(trained) not in (provenance.word(here), folder.UNKNOWN):
        say(f"The network was trained on {trained} shots, these are {here}.")


def predicted(
    predictor: Union[Predictor, Spread], data: Data, trust: Trust, tick: Callable[[int], object]
) -> Predictions:
    """Predict all shots of `data`, with a few images at a time in memory.

    trust: the run's error of energies and its reference for flags. tick: called with the number of shots
    whenever some are done. Raises DataError for an image or a result that is not a number.
    """
    found = Predictions.begun(data, trust.error is not None, trust.reference is not None)
    done = 0
    for split in data.splits.values():
        first = done
        for outputs in predictor.stream(split):
            logits, energy = outputs.logits, outputs.energy
            rows = slice(done, done + len(logits))
            bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
            if len(bad):
                raise DataError(_not_a_number(split, done - first + int(bad[0])))
            found.probability[rows] = softmax(logits.astype(np.float64), axis=1)
            if trust.error is not None:
                half = trust.error.half_width(energy)
                found.energy[rows] = np.stack([energy, np.maximum(energy - half, 0), energy + half], axis=1)
            if trust.reference is not None:
                features = outputs.features.astype(np.float64)
                found.set_flags(rows, trust.reference.reasons(features, logits.argmax(axis=1), energy))
            done = rows.stop
            tick(len(logits))
    if trust.reference is not None:  # what only all shots of a run tell
        found.flag_runs()
    return found


def _checked(
    run_dir: Path,
    config: TrainConfig,
    data: Data,
    splits: Sequence[str],
    outputs: Sequence[Path],
    force: bool,
) -> Data:
    """`data` with only the chosen `splits` (none chosen: all) and the class names of the run.

    Raises DataError if the data do not fit the network of `run_dir`, OutputExists and UserError if the
    predictions cannot be written to `outputs`.
    """
    predictions.check_name(outputs[0])
    for output in outputs:
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


def _not_a_number(split: Split, row: int) -> str:
    shot = " ".join(f"{name} {split.ids[name][row]}" for name in split.ids.dtype.names)
    where = f"{split.name}, image {row} ({shot})"
    if np.isfinite(split.images([row])).all():
        return f"{where}: the model's answer is not a number; train it again with a lower learning_rate.start"
    return f"{where}: the image has values that are not numbers; run `python -m prepare verify` on the file"
