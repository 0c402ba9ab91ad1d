"""`python -m train controls`: runs the controls, keeps each as it is done, puts them in one table."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Dict, List

from common import atomic, lock, table
from common.errors import DataError, OutputExists
from common.progress import bar, say
from train.config import TrainConfig
from train.controls.experiments import EXPERIMENTS, Bench, Row, trainings
from train.controls.verdict import finding, verdict
from train.data import Data

RESULT, TABLE, LOCK = "controls.json", "controls.csv", "controls.lock"
# Of a config: what changes nothing about the controls' outcome.
_NO_MATTER = {
    "name",
    "runs_dir",
    "threads",
    "cache",
    "checkpoint_seconds",
    "check_images",
    "table_every",
    "watch",
    "stop_when",
}


def run(config: TrainConfig, data: Data, force: bool = False) -> List[str]:
    """Run the controls that are not done yet, say each row as it comes; returns table and verdict as lines.

    Writes controls.json, after every control, and at the end controls.csv into `config.run_dir`.
    Raises OutputExists if controls of another config or other data are there.
    """
    path = config.run_dir / RESULT
    # TensorFlow takes several networks, one after the other, for a mistake and says so at length.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with lock.only_one(config.run_dir / LOCK, path):
        key = _key(config, data)
        done = {} if force else _kept(path, key)
        bench = Bench(config, data, lambda: progress.update(1))
        todo = [name for name in EXPERIMENTS if name not in done]
        total = sum(trainings(bench, name) for name in todo) * config.steps
        progress = bar(None, "controls", "step", total=total)
        for name, experiment in EXPERIMENTS.items():
            progress.set_description(f"controls: {name}")
            if name in todo:
                done[name] = experiment(bench)
                _keep(path, key, done)
                for row in done[name]:
                    say(line(row))
        progress.close()
        rows = in_order(done)
        words = verdict(rows)
        _keep(path, key, done, verdict=words)
        atomic.write_text(config.run_dir / TABLE, table.csv_text([_flat(row) for row in rows]))
    return ["", *lines(rows), "", *words]


def in_order(done: Dict[str, List[Row]]) -> List[Row]:
    """All rows: the network, its controls, the regressions, the correlations."""
    rows = [row for name in (*[n for n in EXPERIMENTS if n != "simple"], "simple") for row in done[name]]
    return sorted(rows, key=lambda row: row["kind"])


def lines(rows: List[Row]) -> List[str]:
    """The table as text."""
    return table.lines([_cells(row) for row in rows])


def line(row: Row) -> str:
    """One row as a sentence."""
    cells = _cells(row)
    chance = f", always guessing the larger class {cells['larger class']}" if cells["larger class"] else ""
    number = f"{cells['result']} {cells['95 % by blocks']} of {cells['n']}{chance}"
    return f"{cells['control']}: {number}: {cells['finding']}"


def _cells(row: Row) -> Dict[str, str]:
    accuracy = row["kind"] == "accuracy"
    return {
        "control": row["what"],
        "n": str(row["n"]),
        "result": f"{row['value']:.3f}",
        "95 % Wilson": _interval(row["wilson"]) if accuracy else "",
        "worth": f"{row['n_effective']:.0f}" + ("" if accuracy else " blocks"),
        "95 % by blocks": _interval(row["interval"]),
        "larger class": f"{row['chance']:.3f}" if accuracy else "",
        "finding": finding(row),
    }


def _flat(row: Row) -> Dict[str, Any]:
    """A row for CSV."""
    low, high = row.get("wilson", ("", ""))
    return {
        "control": row["control"],
        "what": row["what"],
        "kind": row["kind"],
        "n": row["n"],
        "value": row["value"],
        "wilson_low": low,
        "wilson_high": high,
        "n_effective": row["n_effective"],
        "low": row["interval"][0],
        "high": row["interval"][1],
        "chance": row.get("chance", ""),
        "finding": finding(row),
    }


def _interval(of: List[float]) -> str:
    return f"[{of[0]:.3f}, {of[1]:.3f}]"


def _key(config: TrainConfig, data: Data) -> str:
    """What a result is the result of: the same key, the same outcome."""
    # Without defaults, so that a setting that a newer version adds does not make old results others'.
    settings = config.model_dump(mode="json", exclude=_NO_MATTER, exclude_defaults=True)
    text = json.dumps([settings, data.digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _keep(path: Path, key: str, done: Dict[str, List[Row]], **more: Any) -> None:
    in_order = {name: done[name] for name in EXPERIMENTS if name in done}
    atomic.write_text(path, json.dumps({"key": key, "experiments": in_order, **more}, indent=1) + "\n")


def _kept(path: Path, key: str) -> Dict[str, List[Row]]:
    if not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text())
        same, done = kept["key"] == key, dict(kept["experiments"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error}); --force runs the controls again") from None
    if not same:
        raise OutputExists(f"{path}: is of another config, number of steps or data file; --force replaces it")
    return {name: rows for name, rows in done.items() if name in EXPERIMENTS}
