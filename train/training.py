"""A whole training, from the config to the finished folder: loop, scores, the model's card, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from common.dataset import provenance
from common.files import atomic
from common.progress import say, warn
from common.ranks import Ranks
from train.config import TrainConfig
from train.data.dataset import Data, open_data
from train.data.validation import with_validation
from train.fit import runtime, timing
from train.run import folder

if TYPE_CHECKING:
    from train.fit.loop import Result


def train(config: TrainConfig, resume: bool, together: Ranks) -> None:
    """Train `config` in the folder of its run, and write everything that belongs to a finished run.

    The caller has locked the folder. together: the ranks that train; only rank 0 writes and prints. Raises
    DataError and Interrupted.
    """
    with open_data(
        config.data,
        config.input,
        config.needed_splits,
        config.cache,
        check=config.check_images,
        processes=together.place.size,
    ) as data:
        threads = runtime.start(config.threads, config.seed, together)
        runtime.check_compute(config.compute)
        from train.fit import loop  # Keras, after its threads and seed are set
        from train.metrics import scores
        from train.metrics.calibration import EnergyError
        from train.model.network import with_features
        from train.model.predictor import OnRanks, Predictor
        from train.predict import trust
        from train.report import card, write_with

        data = with_validation(data, config.validation_share)
        result = loop.fit(config, data, together, resume)
        with result.clock.part("evaluation"):
            model, error = result.stepper.whole, result.calibration.get("pulse_energy")
            error = EnergyError(**error) if error else None
            found = scores.of_data(OnRanks(Predictor(model), together), data, error)
            telling = OnRanks(Predictor(with_features(model)), together)
            known = trust.learn(telling, data)
            flags = trust.flagged(telling, known, data)
        if not together.first:
            return
        trust.save(config.run_dir, known)
        used = timing.usage(threads)
        _write_summary(config, data, result, {"splits": scores.to_json(found), "flags": flags, "usage": used})
        say(f"stopped: {result.stopped}; {result.step_seconds:.3f} s a step")
        for line in scores.lines(found, data.classes):
            say(line)
        for line in trust.lines(flags):
            say(line)
        if provenance.banner(data.provenance):
            say(provenance.banner(data.provenance))
        say(timing.line(result.clock.times(data.reading)))
        say(timing.usage_line(used))
        say(f"{config.run_dir}: config.yaml, metrics.csv, model.keras, checkpoints/, summary.json")
        say(f"{card.write(config.run_dir)}: the model's card")
        if config.report:
            _report(config.run_dir, lambda: write_with(config.run_dir, result.stepper.whole, data))


def complete(config: TrainConfig, together: Ranks) -> None:
    """Write what the folder of a finished run lacks because `train` was killed at its end: card, report.

    Raises OutputBusy while another process writes them.
    """
    run_dir = config.run_dir
    if together.first:
        with folder.claimed(run_dir, resume=True, force=False):
            if not (run_dir / folder.CARD).exists():
                from train.report import card

                say(f"{card.write(run_dir)}: the model's card")
            if config.report and not (run_dir / folder.REPORT).exists():
                from train import report

                runtime.start(config.threads, config.seed)
                _report(run_dir, lambda: report.write(run_dir))
    say(f"{run_dir}: is complete, nothing is left to do; --force trains again")


def _report(run_dir: Path, write: Callable[[], Path]) -> None:
    """Write the report at the end of a training; if that fails, the training has succeeded all the same."""
    try:
        say(f"{write()}: open it in a browser")
    except Exception as error:  # hours of training must not end as a failure for want of a picture
        reason = " ".join(str(error).split()) or type(error).__name__
        warn(f"no report was drawn ({reason}); try again with: python -m train report {run_dir}")


def _write_summary(config: TrainConfig, data: Data, result: Result, closing: dict[str, Any]) -> None:
    """The final numbers as JSON: what was trained on what, how it ended, and the `closing` numbers."""
    summary = {
        "name": config.name,
        "data": data.path,
        "started_in": str(Path.cwd()),
        "data_digest": data.digest,
        "test_digest": data.splits["test"].digest,
        "provenance": data.provenance,
        "shots": data.shots,
        "classes": data.classes,
        "processing": data.processing,
        "step": result.step,
        "watch": sorted({word for row in result.table for word in str(row["watch"]).split()}),
        "stopped": result.stopped,
        "step_seconds": result.step_seconds,
        "time": result.clock.times(data.reading),
        "calibration": result.calibration,
        **closing,
    }
    atomic.write_text(config.run_dir / folder.SUMMARY, json.dumps(summary, indent=1) + "\n")
