"""`python -m train controls`: run the controls, store each when it is done, write the table."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import Executor
from typing import Callable, Iterator, Optional

from common import cli, parallel, processes, text_table
from common.dataset import provenance
from common.errors import OutputExists
from common.files import lock
from common.progress import Progress, announce, bar, say
from train.config import TrainConfig
from train.controls import record
from train.controls.bench import Bench
from train.controls.controls import CONTROLS, Part, outcomes, parts
from train.controls.counterfactual import opened_beside
from train.controls.outcome import Outcome
from train.controls.record import Record
from train.controls.verdict import verdict
from train.data.dataset import Data, open_data
from train.fit import runtime
from train.run import folder

LOCK = "controls.lock"


def run(config: TrainConfig, force: bool, workers: Executor, as_json: bool = False) -> None:
    """The whole of `python -m train controls`. Raises UserError."""
    tell = announce if as_json else say  # with JSON nothing else on standard output
    with _opened(config) as (data, switched):
        lines = run_on(config, data, force, switched, workers, tell)
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
    workers: Optional[Executor] = None,
    tell: Callable[[str], None] = say,
) -> list[str]:
    """Run the controls that are not done yet and `tell` their rows; returns table and verdict as lines.

    switched: the test shots with lasing switched, if they exist. workers: the executor that does the work.
    Writes controls.json after every control, and controls.csv at the end, into `config.run_dir`. Raises
    OutputExists if controls of another config or other data are there.
    """
    run_dir = config.run_dir
    path = run_dir / record.RESULT
    with lock.only_one(run_dir / LOCK, path):
        key = record.key_of(config, data.digest)
        kept = Record("", "", {}, None) if force else record.read(run_dir)
        if kept.key not in ("", key):
            raise OutputExists(
                f"{path}: is of another config, number of steps or data file; --force replaces it"
            )
        done = dict(kept.controls)
        bench = Bench(config, data, lambda: progress.update(), switched)
        todo = [name for name in CONTROLS if name not in done]
        if switched is None:  # it is done when the file is there
            todo = [name for name in todo if name != "counterfactual"]
        tasks = parts(bench, todo)
        total = sum(part.trainings for part in tasks) * config.steps
        found: dict[Part, dict[str, list[Outcome]]] = {}
        with bar(None, "controls", "step", total=total) as progress:
            for part, outcomes_of_part in _results(bench, tasks, workers or parallel.Here(), progress):
                found[part] = outcomes_of_part
                for name in part.controls:
                    of_control = [other for other in tasks if name in other.controls]
                    if all(other in found for other in of_control):
                        done[name] = [row for other in of_control for row in found[other][name]]
                record.write(run_dir, Record(key, data.provenance, done, None))
                for row in (row for rows in outcomes_of_part.values() for row in rows):
                    tell(record.line(row))
        done.update({name: [] for name in todo if name not in done})  # without folds: nothing
        rows = Record(key, data.provenance, done, None).rows
        judged = verdict(rows, bench.alone)
        record.write(run_dir, Record(key, data.provenance, done, judged))
    lines = ["", *text_table.lines([row.cells for row in rows]), "", *judged.lines]
    simulated = provenance.banner(data.provenance)
    if simulated and switched is None:
        lines.append(
            "Not tried: the same shots with lasing switched, which say how much is of the runs. The command "
            f"`python -m prepare counterfactual CONFIG`, with the config that made {data.path}, makes them."
        )
    return [*lines, *([simulated] if simulated else [])]


@contextlib.contextmanager
def _opened(config: TrainConfig) -> Iterator[tuple[Data, Optional[Data]]]:
    """Open the data, and those with lasing switched if they exist, and start TensorFlow."""
    sharing = processes.own.size
    with open_data(
        config.data, config.input, ["train", "test"], config.cache, processes=sharing
    ) as data, opened_beside(config, data) as switched:  # fmt: skip
        runtime.start(config.threads, config.seed)
        # TensorFlow takes several networks, one after the other, for a mistake and says so at length.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        yield data, switched


def _results(
    bench: Bench, tasks: list[Part], workers: Executor, progress: Progress
) -> Iterator[tuple[Part, dict[str, list[Outcome]]]]:
    """Each part with its outcomes, when it is done."""
    if isinstance(workers, parallel.Here):
        for part in tasks:
            progress.name(f"controls: {part.controls[0]}")
            yield part, outcomes(bench, part)
        return
    for part, found in parallel.results(workers, _elsewhere, [(bench.config, part) for part in tasks]):
        progress.update(part.trainings * bench.config.steps)
        yield part, found


_mine: list[tuple[contextlib.ExitStack, Bench]] = []  # of this process, if it works for another one


def _elsewhere(config: TrainConfig, part: Part) -> tuple[Part, dict[str, list[Outcome]]]:
    """Run a part in another process, which keeps what it has opened and computed for the next part."""
    if not _mine:
        with contextlib.ExitStack() as stack:
            data, switched = stack.enter_context(_opened(config))
            _mine.append((stack.pop_all(), Bench(config, data, lambda: None, switched)))
    return part, outcomes(_mine[0][1], part)
