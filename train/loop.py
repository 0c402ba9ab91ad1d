"""The training loop: minibatches in, table, metrics, checkpoints and a model out."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import keras
import numpy as np

from common import atomic
from common.config import dump
from common.errors import DataError, OutputExists
from common.progress import bar, say, warn
from train import checkpoint, measure, network, optimizers, preprocess
from train.checkpoint import Checkpoint
from train.config import TrainConfig
from train.data import Data, Position, minibatch_rows
from train.runtime import Runtime
from train.step import Stepper
from train.watch import Watcher

# Of a run: what may differ between a run and its resumption.
_MAY_CHANGE = {"steps", "stop_when", "runs_dir", "threads", "cache"}

HEADER = "  step m1s  tr.acc/#1s tst.acc/#1s xentropy  loss  |grad| gr-ang  learnrate"


class Result(NamedTuple):
    """A finished run: the model (in a Stepper), the table's rows, why it stopped, mean time of a step."""

    stepper: Stepper
    rows: List[Dict[str, float]]
    stopped: str
    step: int
    step_seconds: float


def fit(
    config: TrainConfig, data: Data, runtime: Runtime, resume: bool = False, force: bool = False
) -> Result:
    """Train as `config` says; writes `config.run_dir`. Raises OutputExists, DataError.

    Ctrl-C saves a checkpoint before it goes on as KeyboardInterrupt.
    """
    run_dir = config.run_dir
    if resume:
        state = _resumable(config, data)
    else:
        if run_dir.exists() and not force:
            raise OutputExists(f"{run_dir}: exists already; --resume goes on with it, --force replaces it")
        _clear(run_dir)
        state = None
    model = build_model(config, data)
    optimizer = optimizers.build(config.optimizer, config.learning_rate.start)
    stepper = Stepper(model, optimizer, config.microbatch, config.optimizer.clip_norm)
    if state is not None:
        stepper.restore(state.model, state.optimizer, state.gradient)
    atomic.write_text(run_dir / "config.yaml", dump(config))
    return _Run(config, data, stepper, state).go()


def build_model(config: TrainConfig, data: Data) -> keras.Model:
    """The config's model for these data, its preprocessing adapted to the train split."""
    before = preprocess.build(config.preprocess, config.input, lambda: data.splits["train"].batches(32))
    return network.build(
        config.network, config.input, len(data.classes), config.seed, before, config.regularise
    )


class _Run:
    """One run of the loop; keeps where it is."""

    def __init__(
        self, config: TrainConfig, data: Data, stepper: Stepper, state: Optional[Checkpoint]
    ) -> None:
        self.config, self.data, self.stepper = config, data, stepper
        self.step = state.step if state else 0
        self.position = state.position if state else Position(0, 0)
        self.rows: List[Dict[str, float]] = list(state.rows) if state else []
        self.cpu_before = state.cpu_seconds if state else 0.0
        sizes = {name: len(split) for name, split in data.splits.items()}
        self.watcher = Watcher(config.watch, data.classes, sizes)
        for row in self.rows:
            self.watcher.look(row)
        self.in_steps = 0.0
        self.done = 0

    def go(self) -> Result:
        say(HEADER)
        for row in self.rows:
            say(line(row))
        stopped = self._stop_reason()
        progress = bar(None, "training", "step", total=self.config.steps)
        progress.update(self.step)
        try:
            while not stopped:
                self._one_step()
                progress.update(1)
                stopped = self._stop_reason()
        except KeyboardInterrupt:
            progress.close()
            self._save()
            raise
        progress.close()
        self._save()
        with atomic.replacing(self.config.run_dir / "model.keras") as partial:
            self.stepper.model.save(partial)
        mean = self.in_steps / self.done if self.done else float("nan")
        return Result(self.stepper, self.rows, stopped, self.step, mean)

    def _one_step(self) -> None:
        train, step = self.data.splits["train"], self.step + 1
        rows, after = minibatch_rows(len(train), self.config.minibatch, self.config.seed, self.position)
        images, labels = train.images(rows), train.labels[rows]
        tabled = (step - 1) % self.config.table_every == 0
        row: Dict[str, float] = {"step": step, "m1s": int((labels == 1).sum())}
        if tabled:  # accuracies at the weights that loss and gradient of this row are of
            row.update(self._accuracies())
        rate = self.config.learning_rate.at(step)
        start = time.perf_counter()
        result = self.stepper.step(images, labels, rate)
        self.in_steps += time.perf_counter() - start
        self.done += 1
        if not np.isfinite(result.loss) or not np.isfinite(result.gradient_norm):
            raise DataError(
                f"step {step}: the loss is {result.loss}, |grad| {result.gradient_norm}: lower "
                f"learning_rate.start ({rate:g} at this step) or the momentum, or give optimizer.clip_norm"
            )
        self.step, self.position = step, after
        if tabled:
            row.update(result._asdict(), learning_rate=rate)
            self.rows.append(row)
            findings = self.watcher.look(row)
            say(line(row))
            for finding in findings:
                warn(finding)
            self._save()

    def _accuracies(self) -> Dict[str, float]:
        values: Dict[str, float] = {}
        for name, split in self.data.splits.items():
            predicted = self.stepper.predict(split).argmax(axis=1)
            values[f"{name}_accuracy"] = measure.score(split.labels, predicted).accuracy
            values[f"{name}_ones"] = int((predicted == 1).sum())
        return values

    def _stop_reason(self) -> str:
        """Why training ends here, or ''."""
        if self.step >= self.config.steps:
            return f"all {self.config.steps} steps done"
        if self.watcher.should_stop:
            return f"the network is one-sided at step {self.step} (watch.stop)"
        rule = self.config.stop_when
        if rule is not None and self.rows and self.rows[-1]["step"] == self.step:
            accuracy = self.rows[-1].get(f"{rule.split}_accuracy", 0.0)
            if accuracy >= rule.accuracy:
                return f"{rule.split} accuracy {accuracy:.3f} reached (stop_when {rule.accuracy:g})"
        return ""

    def _save(self) -> None:
        model, optimizer, gradient = self.stepper.state()
        cpu = self.cpu_before + time.process_time()
        config = self.config.model_dump(mode="json")
        state = Checkpoint(
            self.step, self.position, self.rows, model, optimizer, gradient, config, self.data.digest, cpu
        )
        checkpoint.save(self.config.run_dir, state)
        atomic.write_text(self.config.run_dir / "metrics.csv", csv_text(self.rows))


def line(row: Dict[str, float]) -> str:
    """A row of the seed's table. `m1s`: ones in the minibatch; `#1s`: ones predicted."""
    return (
        f"{row['step']:>6} {row['m1s']:>3} {row['train_accuracy']:>6.2f} {row['train_ones']:>3} "
        f"{row['test_accuracy']:>6.2f} {row['test_ones']:>3} {row['cross_entropy']:>8.4f} "
        f"{row['loss']:>8.4f} {row['gradient_norm']:>6.3f} {row['gradient_cosine']:>6.2f} "
        f"{row['learning_rate']:>8.4f}"
    )


def csv_text(rows: List[Dict[str, float]]) -> str:
    """The table as CSV with named columns."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["step"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_summary(config: TrainConfig, data: Data, result: Result, closing: Dict[str, Any]) -> None:
    """The final numbers as JSON: what was trained on what, how it ended, and the `closing` numbers."""
    summary = {
        "name": config.name,
        "data": str(data.path),
        "data_digest": data.digest,
        "classes": data.classes,
        "step": result.step,
        "watch": sorted({word for row in result.rows for word in str(row["watch"]).split()}),
        "stopped": result.stopped,
        "step_seconds": result.step_seconds,
        **closing,
    }
    atomic.write_text(config.run_dir / "summary.json", json.dumps(summary, indent=1) + "\n")


def _resumable(config: TrainConfig, data: Data) -> Checkpoint:
    """The checkpoint to go on from, if it is one of this config and these data."""
    state = checkpoint.load(config.run_dir)
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


def _clear(run_dir: Path) -> None:
    """Remove an earlier run's files, so that none of them is taken for this run's."""
    for name in ("config.yaml", "metrics.csv", "model.keras", "summary.json", checkpoint.NAME):
        (run_dir / name).unlink(missing_ok=True)
