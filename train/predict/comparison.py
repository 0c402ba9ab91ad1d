"""Trained networks side by side on shots that they were not trained on: `python -m train compare`."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Sequence, Union

import numpy as np

from common import cli, text_table
from common.dataset import provenance
from common.errors import DataError
from common.progress import say
from train.controls.counterfactual import paths_beside
from train.data.dataset import Data, open_data
from train.fit import runtime
from train.metrics import effective
from train.run import folder

if TYPE_CHECKING:
    from train.model.predictor import Predictor
    from train.predict.trust import Trust

SPLIT = "test"


class Shots(NamedTuple):
    """The test shots of `paths`, one data set, and in words what they are to the networks."""

    paths: tuple[Path, ...]
    what: str


def run(run_dirs: Sequence[Path], more: Sequence[Path], as_json: bool) -> None:
    """The whole of `python -m train compare`. Raises UserError."""
    configs = [folder.config_of(run_dir) for run_dir in run_dirs]
    for run_dir, config in zip(run_dirs, configs):
        if config.input != configs[0].input:
            raise DataError(f"{run_dir}: takes images of another size than {run_dirs[0]}; compare them apart")
    sets, rows, banners = chosen([_paths(config.data) for config in configs], more), [], []
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(open_data(shots.paths, configs[0].input, [SPLIT], "stream")) for shots in sets
        ]
        for (run_dir, config), data in itertools.product(zip(run_dirs, configs), opened):
            folder.check_fits(run_dir, data)
            if data.paths == _paths(config.data):
                folder.check_data(run_dir, data)
        runtime.start(configs[0].threads, configs[0].seed)
        from train.predict import trust

        known = [(name, _predictor(name), trust.load(name)) for name in run_dirs]
        for shots, data in zip(sets, opened):
            banners.append(provenance.banner(data.provenance))
            rows += [_row(shots, name, data, predictor, of_run) for name, predictor, of_run in known]
    if as_json:
        cli.print_json({"rows": rows})
        return
    for line in [*lines(rows), "", *dict.fromkeys(filter(None, banners))]:
        say(line)


def chosen(own: Sequence[Sequence[Path]], more: Sequence[Path]) -> list[Shots]:
    """The data of the runs, the same with lasing switched where that was made, and `more`; each once."""
    sets: list[Shots] = []
    for paths in own:
        sets.append(Shots(tuple(paths), "held-out"))
        if switched := paths_beside(paths):
            sets.append(Shots(tuple(switched), "lasing switched"))
    sets += [Shots((path,), "other") for path in more]
    once: dict[tuple[Path, ...], Shots] = {}
    for shots in sets:
        once.setdefault(tuple(path.resolve() for path in shots.paths), shots)
    return list(once.values())


def _row(shots: Shots, run_dir: Path, data: Data, predictor: Predictor, trust: Trust) -> dict[str, Any]:
    """How the network of a run does on the test shots of `data`, and on those that it does not flag."""
    split = data.splits[SPLIT]
    outputs, block = predictor.outputs(split), data.blocks.of_times(split.ids)
    right = outputs.logits.argmax(axis=1) == split.labels
    found = {
        "shots": shots.what,
        "data": list(map(str, data.paths)),
        "runs": np.unique(split.ids["run"]).tolist(),
        "network": run_dir.name,
        **_share(right, block, split.labels),
    }
    if trust.reference is not None:
        from train.predict.trust import flags

        known = ~flags(trust.reference, outputs, split.ids["run"])
        found["flagged"] = int((~known).sum())
        of = None if block is None else block[known]
        found["not_flagged"] = _share(right[known], of, split.labels[known])
    return found


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as a table: a line for each network, the shots named once."""
    cells, last = [], None
    for found in rows:
        first, last = last != found["data"], found["data"]
        cell = {
            "test shots": _named(found) if first else "",
            "n": found["n"] if first else "",
            "network": found["network"],
            "right": _told(found),
        }
        if "flagged" in found:
            cell["flagged"] = f"{found['flagged'] / found['n']:.3f}"
            cell["right, not flagged"] = _told(found["not_flagged"])
        cells.append(cell)
    return text_table.lines(cells)


def _named(found: dict[str, Any]) -> str:
    names = ", ".join(Path(path).name for path in found["data"])
    runs = found["runs"]
    of_runs = f"run {runs[0]}" if len(runs) == 1 else f"runs {runs[0]} to {runs[-1]}"
    return {
        "held-out": f"held-out shots of {names}, {of_runs}",
        "lasing switched": "the same shots, lasing switched",
    }.get(found["shots"], f"{names}, {of_runs}")


def _share(right: np.ndarray, block: Optional[np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    if not len(right):
        return {"n": 0, "correct": 0}
    share = effective.share(right, block, labels)
    return {"n": share.n, "correct": share.k, "accuracy": share.value, **share.to_json()}


def _told(found: dict[str, Any]) -> str:
    if not found["n"]:
        return "-"
    low, high = found["interval"]
    return f"{found['accuracy']:.3f} [{low:.3f}, {high:.3f}]"


def _paths(data: Union[str, Sequence[str]]) -> list[Path]:
    return [Path(path) for path in ([data] if isinstance(data, str) else data)]


def _predictor(run_dir: Path) -> Any:
    from train.model import saved
    from train.model.network import with_features
    from train.model.predictor import Predictor

    return Predictor(with_features(saved.load_model(run_dir)))
