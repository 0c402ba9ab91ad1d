"""The training loop: minibatches in, table, metrics, checkpoints and a model out."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Iterator, NamedTuple, Optional

import numpy as np

from common import interrupt
from common.config import dump
from common.dataset import provenance
from common.errors import DataError
from common.files import atomic
from common.progress import bar, say, warn
from common.ranks import Ranks
from train.config import TrainConfig
from train.data.dataset import Data
from train.data.minibatches import Batch
from train.data.order import Position
from train.data.validation import VALIDATION
from train.fit import judged
from train.fit.board import Board
from train.fit.setup import prepared, stepper_of
from train.fit.step import Stepper
from train.fit.timing import Stopwatch, short
from train.fit.watch import Watcher, not_finite
from train.metrics import calibration, measure
from train.model import network
from train.model.predictor import OnRanks
from train.run import checkpoint, folder, history
from train.run.checkpoint import Checkpoint
from train.run.history import History, line

# Saving takes at most this share of the time, however large the network.
SAVING_SHARE = 0.02


class Result(NamedTuple):
    """A finished run: the model (in a Stepper), the table, why it stopped, where its time went.

    calibration: what came of the validation split: temperature, half width of the energy's interval.
    """

    stepper: Stepper
    table: History
    stopped: str
    step: int
    step_seconds: float
    clock: Stopwatch
    calibration: dict[str, Any]


def fit(config: TrainConfig, data: Data, ranks: Ranks, resume: bool = False) -> Result:
    """Train as `config` says in `config.run_dir`, which the caller holds; an earlier run there is replaced.

    resume: continue from its last checkpoint instead. ranks: those that train together; only rank 0
    writes. SIGTERM and Ctrl-C save a checkpoint before they go on as Interrupted. Raises DataError.
    """
    shots = len(data.splits["train"])
    if isinstance(config.minibatch, int) and config.minibatch > shots:
        raise DataError(
            f"{data.path}: split train has {shots} shots, `minibatch: {config.minibatch}` is more; give at "
            f"most {shots}, or full"
        )
    state = _begin(config, data, resume) if ranks.first else None
    state = ranks.from_first(state)
    stepper = stepper_of(config, data, ranks, resumed=state is not None)
    if state is not None:
        stepper.restore(state.model, state.optimizer, state.gradient)
        say(f"{config.run_dir}: resuming after step {state.step}")
    if ranks.first:
        atomic.write_text(config.run_dir / folder.CONFIG, dump(config))
    return _Run(config, data, stepper, state).go()


def _begin(config: TrainConfig, data: Data, resume: bool) -> Optional[Checkpoint]:
    """Make the run's folder ready; returns the checkpoint to go on from, if there is one."""
    run_dir = config.run_dir
    state = folder.resumable(config, data) if resume else None
    if state is None:
        if resume:
            say(f"{run_dir}: no checkpoint yet; starting at the beginning")
        folder.clear(run_dir)
    elif state.step < config.steps:
        folder.reopen(run_dir)
    return state


class _Run:
    """One run of the loop; keeps where it is."""

    def __init__(
        self, config: TrainConfig, data: Data, stepper: Stepper, state: Optional[Checkpoint]
    ) -> None:
        self.config, self.stepper, self.stored, self.ranks = config, stepper, data, stepper.ranks
        self.predictor = OnRanks(stepper, stepper.ranks)
        splits = {name: prepared(config, stepper, split) for name, split in data.splits.items()}
        self.data = data._replace(splits=splits)
        self.step = state.step if state else 0
        self.position = state.position if state else Position(0, 0)
        self.table = History(state.table if state else b"")
        self.watcher = Watcher(config.watch, data.classes, data.splits)
        self.board = Board(config.run_dir, self.table) if config.tensorboard and self.ranks.first else None
        self.called: dict[str, np.ndarray] = {}  # of each split, what its judged shots were called last
        self.sizes = {name: len(split) for name, split in splits.items()}
        self.rows = judged.plan(config, self.sizes)
        place = stepper.ranks.place.size
        self.judged = {
            name: judged.chosen(split, self.rows.shots[name], place) for name, split in splits.items()
        }
        self.clock = Stopwatch(state.times if state else None)
        self.done = state.timed if state else 0
        self.saved_at, self.save_seconds = time.monotonic(), 0.0

    def go(self) -> Result:
        """Train to the end; a signal ends the run after a step, on all ranks after the same one."""
        with interrupt.postponed() if self.ranks.size > 1 else contextlib.nullcontext():
            return self._go()

    def _go(self) -> Result:
        if how := judged.line(self.rows, self.judged, self.sizes):
            say(how)
        say(history.header(self.data.classes))
        for row in self.table:
            self.watcher.look(row)
            say(line(row))
        if self.ranks.first:
            atomic.write_bytes(self.config.run_dir / folder.METRICS, self.table.text)
        stopped = self._stop_reason()
        progress = bar(None, "training", "step", total=self.config.steps, initial=self.step)
        config, train = self.config, self.data.splits["train"]
        try:
            part = self.ranks.minibatch_part
            minibatches = train.minibatches(config.minibatch, config.seed, self.position, part)
            with contextlib.closing(minibatches) as batches:
                while not stopped:
                    self._one_step(batches)
                    progress.note(short(self.clock.times(self.data.reading)))
                    progress.update()
                    if number := self.ranks.greatest(interrupt.asked()):
                        raise interrupt.Interrupted(number)
                    stopped = self._stop_reason()
                    if stopped or time.monotonic() - self.saved_at >= self._save_every():
                        self._save()
        except interrupt.Interrupted:
            self._save()
            raise
        finally:
            progress.close()
        calibrated = self._calibrated()
        if self.ranks.first:
            with atomic.replacing(self.config.run_dir / folder.MODEL) as partial:
                self.stepper.whole.save(partial)
        if self.board:
            self.board.finish(self.stepper.whole, self.stored, self.step)
        mean = self.clock.seconds["step"] / self.done if self.done else 0.0
        return Result(self.stepper, self.table, stopped, self.step, mean, self.clock, calibrated)

    def _one_step(self, batches: Iterator[Batch]) -> None:
        step = self.step + 1
        with self.clock.part("waiting"):
            batch = next(batches)
        tabled = (step - 1) % self.rows.every == 0
        row: dict[str, float] = {"step": step, **history.drawn(batch.labels, len(self.data.classes))}
        if tabled:  # accuracies at the weights that loss and gradient of this row are of
            with self.clock.part("evaluation"):
                row.update(self._accuracies())
        rate = self.config.learning_rate.at(step)
        # Weights, position and table change together: there is no safe point for a signal from here on.
        with self.clock.part("step"):
            result = self.stepper.step(batch.images, batch.labels, rate, step, batch.energy)
        self.done += 1
        if not result.is_finite:
            self._write({**row, **result._asdict(), "learning_rate": rate, "watch": "nan"})
            raise DataError(not_finite(step, result.loss, result.gradient_norm, rate))
        self.step, self.position = step, batch.position
        if tabled:
            row.update(result._asdict(), learning_rate=rate)
            self._add(row)

    def _calibrated(self) -> dict[str, Any]:
        """Calibrate the model that is to be kept, on the validation split, where there is one."""
        split, found = self.data.splits.get(VALIDATION), {}
        if split is not None:
            logits, energy, _ = self.predictor.outputs(split)
            found["temperature"] = calibration.temperature(logits, split.labels)
            if energy is not None and (known := np.isfinite(split.energy)).any():
                estimate = energy[known] * network.ENERGY_UNIT
                error = calibration.energy_error(estimate, split.energy[known])
                found["pulse_energy"] = error._asdict()
        network.calibrate(self.stepper.whole, found.get("temperature", 1.0))
        return found

    def _add(self, row: dict[str, float]) -> None:
        """Add a row to the table and say it, with what the watch finds."""
        findings = self.watcher.look(row)
        self._write(row)
        say(line(row))
        for finding in findings:
            warn(finding)

    def _write(self, row: dict[str, float]) -> None:
        added = self.table.append({**row, "provenance": provenance.word(self.stored.provenance)})
        if self.ranks.first:
            with (self.config.run_dir / folder.METRICS).open("ab") as file:
                file.write(added)
        if self.board:
            self.board.add(row)

    def _accuracies(self) -> dict[str, float]:
        """Of the shots that the table judges, each rank predicting its share of them."""
        values: dict[str, float] = {}
        for name, shots in self.judged.items():
            predicted = self.predictor.outputs(shots).logits.argmax(axis=1)
            self.called[name] = predicted
            values[f"{name}_accuracy"] = float((shots.labels == predicted).mean())
            called = np.bincount(predicted, minlength=len(self.data.classes))
            values.update(history.called(name, called))
            values[f"{name}_largest"] = int(called.argmax())  # the class that most shots are called
            values[f"{name}_largest_share"] = float(called.max() / len(predicted))
        return values

    def _stop_reason(self) -> str:
        """Why training ends here, or ''."""
        if self.step >= self.config.steps:
            return f"all {self.config.steps} steps done"
        if self.watcher.should_stop:
            return f"the network has collapsed to one class at step {self.step} (watch.stop)"
        rule = self.config.stop_when
        if rule is not None and self.table.last and self.table.last["step"] == self.step:
            accuracy = self.table.last.get(f"{rule.split}_accuracy", 0.0)
            if accuracy >= rule.accuracy:
                shots = self.judged[rule.split]
                block = self.data.blocks.of_times(shots.ids)
                score = measure.score(shots.labels, self.called[rule.split], block)
                return f"{rule.split} {score}: stop_when {rule.accuracy:g} reached"
        return ""

    def _save_every(self) -> float:
        """Seconds from one checkpoint to the next."""
        return max(self.config.checkpoint_seconds, self.save_seconds / SAVING_SHARE)

    def _save(self) -> None:
        if not self.ranks.first:
            return
        start = time.monotonic()
        state = Checkpoint(
            self.step,
            self.position,
            self.table.text,
            *self.stepper.state(),
            self.config.model_dump(mode="json"),
            self.data.digest,
            self.done,
            self.clock.times(self.data.reading),
        )
        with self.clock.part("saving"):
            checkpoint.save(self.config.run_dir, state)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - start
