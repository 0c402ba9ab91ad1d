"""`python -m train compare`: trained networks side by side on shots that they were not trained on."""

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
from train.metrics.effective import Share
from train.run import folder

if TYPE_CHECKING:
    from train.model.predictor import Predictor
    from train.predict.trust import Trust

SPLIT = "test"


class Shots(NamedTuple):
    """The test shots of one data set, and what they are: "held-out", "lasing switched" or "other"."""

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
        from train.predict import spread, trust

        known = [(name, spread.here(name, features=True), trust.load(name)) for name in run_dirs]
        for shots, data in zip(sets, opened):
            banners.append(provenance.banner(data.provenance))
            rows += [_row(shots, name, data, predictor, of_run) for name, predictor, of_run in known]
    if as_json:
        cli.print_json({"rows": [row.to_json() for row in rows]})
        return
    for line in [*lines(rows), "", *dict.fromkeys(filter(None, banners))]:
        say(line)


def chosen(own: Sequence[Sequence[Path]], more: Sequence[Path]) -> list[Shots]:
    """The data of the runs, the same with lasing switched if that exists, and `more`, each once."""
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


class Compared(NamedTuple):
    """How a network does on the test shots of a data set.

    what: as in Shots. data: the files; runs: the runs of the shots; share: of shots classified correctly.
    flagged: number of shots unlike those the network was trained on, None if the run cannot tell;
    not_flagged: the share of the others that is classified correctly, None if there are none.
    """

    what: str
    data: list[str]
    runs: list[int]
    network: str
    share: Share
    flagged: Optional[int] = None
    not_flagged: Optional[Share] = None

    def to_json(self) -> dict[str, Any]:
        """The row for programs."""
        where = {"shots": self.what, "data": self.data, "runs": self.runs, "network": self.network}
        row = {**where, **_share_to_json(self.share)}
        if self.flagged is not None:
            row.update(flagged=self.flagged, not_flagged=_share_to_json(self.not_flagged))
        return row

    @property
    def shots(self) -> str:
        """The shots in words."""
        names, runs = ", ".join(Path(path).name for path in self.data), self.runs
        of_runs = f"run {runs[0]}" if len(runs) == 1 else f"runs {runs[0]} to {runs[-1]}"
        named = {
            "held-out": f"held-out shots of {names}, {of_runs}",
            "lasing switched": "the same shots, lasing switched",
        }
        return named.get(self.what, f"{names}, {of_runs}")


def _row(shots: Shots, run_dir: Path, data: Data, predictor: Predictor, trust: Trust) -> Compared:
    """Compare one network's predictions with the labels of the test shots of `data`."""
    split = data.splits[SPLIT]
    outputs, block = predictor.outputs(split), data.blocks.of_times(split.ids)
    right, runs = outputs.logits.argmax(axis=1) == split.labels, np.unique(split.ids["run"]).tolist()
    share = effective.share(right, block, split.labels)
    found = Compared(shots.what, list(map(str, data.paths)), runs, run_dir.name, share)
    if trust.reference is None:
        return found
    from train.predict.trust import flags

    known = ~flags(trust.reference, outputs, split.ids["run"])
    not_flagged = effective.share(right, block, split.labels, known) if known.any() else None
    return found._replace(flagged=int((~known).sum()), not_flagged=not_flagged)


def lines(rows: Sequence[Compared]) -> list[str]:
    """The rows as a table with a line for each network, which names the shots once."""
    cells, last = [], None
    for row in rows:
        first, last = last != row.data, row.data
        shots = {"test shots": row.shots, "n": row.share.n} if first else {"test shots": "", "n": ""}
        cell = {**shots, "network": row.network, "right": row.share.with_interval}
        if row.flagged is not None:
            cell["flagged"] = f"{row.flagged / row.share.n:.3f}"
            cell["right, not flagged"] = row.not_flagged.with_interval if row.not_flagged else "-"
        cells.append(cell)
    return text_table.lines(cells)


def _share_to_json(share: Optional[Share]) -> dict[str, Any]:
    if share is None:
        return {"n": 0, "correct": 0}
    return {"n": share.n, "correct": share.k, "accuracy": share.value, **share.to_json()}


def _paths(data: Union[str, Sequence[str]]) -> list[Path]:
    return [Path(path) for path in ([data] if isinstance(data, str) else data)]
