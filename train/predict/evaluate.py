"""The scores of a finished run, on its own or other data."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from typing import Optional

from common import cli, parallel
from common.errors import DataError
from common.progress import say
from train.data.dataset import open_data
from train.data.validation import with_validation
from train.fit import runtime, timing
from train.run import folder


def evaluate(run_dir: Path, data_path: Optional[str], workers: Executor, as_json: bool) -> None:
    """Print the scores of a run on the data at `data_path`, or on its own; raises DataError."""
    config = folder.config_of(run_dir)
    with open_data(folder.data_of(run_dir, config, data_path), config.input, [], "stream") as data:
        if not data.splits:
            raise DataError(f"{data.path}: has no labeled split; give it to `python -m train predict`")
        folder.check_fits(run_dir, data)
        if data_path is None:
            folder.check_data(run_dir, data)
        threads = runtime.start(config.threads, config.seed)
        from train.metrics import scores
        from train.predict import spread, trust
        from train.predict.job import say_origin

        share = config.validation_share if data_path is None else 0
        data = with_validation(data, share)
        known = trust.load(run_dir)
        origin = spread.Origin(run_dir, tuple(data.paths), share, features=False)
        found = scores.of_data(spread.predictor(workers, origin), data, known.error)
        if as_json:
            places = {"run": str(run_dir), "data": data.path}
            made = {"provenance": data.provenance, "trained_on": folder.provenance(run_dir)}
            cli.print_json({**places, **made, "classes": data.classes, "splits": scores.to_json(found)})
            return
        for line in scores.lines(found, data.classes):
            say(line)
        say_origin(run_dir, data)
        if known.reference is not None:
            telling = spread.predictor(workers, origin._replace(features=True))
            for line in trust.lines(trust.flagged(telling, known.reference, data)):
                say(line)
        if isinstance(workers, parallel.Here):
            say(timing.usage_line(timing.usage(threads)))
