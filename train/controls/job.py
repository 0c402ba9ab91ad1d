"""`python -m train controls`: run the controls, store each when it is done, write the table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Callable, Optional

from common import cli
from common.dataset import provenance
from common.errors import OutputExists
from common.files import lock
from common.progress import announce, bar, say
from train.config import TrainConfig
from train.controls import record
from train.controls.bench import Bench
from train.controls.controls import CONTROLS, trainings
from train.controls.counterfactual import opened_beside
from train.controls.outcome import Outcome
from train.controls.record import Record
from train.controls.verdict import verdict
from train.data.dataset import Data, open_data
from train.fit import runtime
from train.run import folder

LOCK = "controls.lock"


def run(config: TrainConfig, force: bool = False, as_json: bool = False) -> None:
    """The whole of `python -m train controls`. Raises UserError."""
    tell = announce if as_json else say  # with JSON nothing else on standard output
    with open_data(config.data, config.input, ["train", "test"], config.cache) as data:
        runtime.start(config.threads, config.seed)
        with opened_beside(config, data) as switched:
            lines = run_on(config, data, force, switched, tell)
    if as_json:
        cli.print_json(record.read(config.run_dir).to_json())
        return
    for line in lines:
        say(line)
    say(f"{config.run_dir}: controls.csv (the table), controls.json")
    if (config.run_dir / folder.SUMMARY).exists():
        say(f"`python -m train report {config.run_dir}` puts them into the run's report")


def run_on(
    config: TrainConfig,
    data: Data,
    force: bool = False,
    switched: Optional[Data] = None,
    tell: Callable[[str], None] = say,
) -> list[str]:
    """Run the controls that are not done yet and `tell` their rows; returns table and verdict as lines.

    switched: the test shots with lasing switched, where they are known.
    Writes controls.json, after every control, and at the end controls.csv into `config.run_dir`.
    Raises OutputExists if controls of another config or other data are there.
    """
    run_dir = config.run_dir
    path = run_dir / record.RESULT
    # TensorFlow takes several networks, one after the other, for a mistake and says so at length.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with lock.only_one(run_dir / LOCK, path):
        key = record.key_of(config, data.digest)
        done = {} if force else _kept(run_dir, key)
        bench = Bench(config, data, lambda: progress.update(), switched)
        todo = [name for name in CONTROLS if name not in done]
        if switched is None and "counterfactual" in todo:
            todo.remove("counterfactual")  # it is done when the file is there
        total = sum(trainings(bench, name) for name in todo) * config.steps
        total += config.steps * (todo == ["counterfactual"])
        progress = bar(None, "controls", "step", total=total)
        for name, control in CONTROLS.items():
            progress.name(f"controls: {name}")
            if name in todo:
                done[name] = control(bench)
                record.write(run_dir, Record(key, data.provenance, done, None))
                for row in done[name]:
                    tell(record.line(row))
        progress.close()
        rows = Record(key, data.provenance, done, None).rows
        found = verdict(rows, bench.alone)
        record.write(run_dir, Record(key, data.provenance, done, found))
    lines = ["", *record.lines(rows), "", *found.lines]
    simulated = provenance.banner(data.provenance)
    if simulated and switched is None:
        lines.append(
            "Not tried: the same shots with lasing switched, which say how much is of the runs. The command "
            f"`python -m prepare counterfactual CONFIG`, with the config that made {data.path}, makes them."
        )
    return [*lines, *([simulated] if simulated else [])]


def _kept(run_dir: Path, key: str) -> dict[str, list[Outcome]]:
    kept = record.read(run_dir)
    if kept.key not in ("", key):
        path = run_dir / record.RESULT
        raise OutputExists(f"{path}: is of another config, number of steps or data file; --force replaces it")
    return dict(kept.controls)
