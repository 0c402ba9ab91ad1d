"""The files of a run's controls: controls.json, written after each control, and controls.csv."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple, Optional

from common import text_table
from common.dataset import provenance
from common.dataset.safety import MAX_JSON, read_json
from common.errors import DataError
from common.files import atomic
from train.config import TrainConfig
from train.controls.outcome import Outcome
from train.controls.verdict import Verdict

VERSION = 2  # of controls.json; the first had a verdict of words only
RESULT, TABLE = "controls.json", "controls.csv"
# The controls in the order of the table; `simple` is several regressions.
TOLD = ("network", "counterfactual", "permuted", "beam_free", "other_runs", "simple")
# Of a config: what changes nothing about the controls' outcome; the data are told by their digest.
_NO_MATTER = {
    "name",
    "data",
    "runs_dir",
    "threads",
    "cache",
    "checkpoint_seconds",
    "check_images",
    "table_every",
    "table_shots",
    "table_share",
    "watch",
    "stop_when",
}


class Record(NamedTuple):
    """What controls.json holds.

    key: digest of config and data (`key_of`); provenance: of the data; controls: {name: outcomes};
    verdict: None until all are done.
    """

    key: str
    provenance: str
    controls: dict[str, list[Outcome]]
    verdict: Optional[Verdict]

    def to_json(self) -> dict[str, Any]:
        """What controls.json holds."""
        rows = {name: [row.to_json() for row in of] for name, of in self.controls.items()}
        return {
            "version": VERSION,
            "key": self.key,
            "provenance": self.provenance,
            "controls": {name: rows[name] for name in TOLD if name in rows},
            "verdict": self.verdict.to_json() if self.verdict else None,
        }

    @property
    def rows(self) -> list[Outcome]:
        """All rows: the network, its controls, the regressions, the correlations."""
        rows = [row for name in TOLD for row in self.controls.get(name, [])]
        return sorted(rows, key=lambda row: row.kind)


def key_of(config: TrainConfig, data_digest: str) -> str:
    """A digest of everything the outcomes depend on: config and data."""
    # Without defaults, so that a setting that a newer version adds does not make old results others'.
    settings = config.model_dump(mode="json", exclude=_NO_MATTER, exclude_defaults=True)
    text = json.dumps([settings, data_digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read(run_dir: Path) -> Record:
    """Read the record in a run's folder, empty if there is none; raises DataError if it is damaged."""
    path = run_dir / RESULT
    if not path.exists():
        return Record("", "", {}, None)
    damaged = f"{path}: is damaged (%s); --force runs the controls again"
    try:
        with path.open("rb") as file:
            kept = read_json(file.read(MAX_JSON + 1), "")
        version = kept.get("version")
    except (DataError, AttributeError) as error:
        raise DataError(damaged % error) from None
    if version != VERSION:
        raise DataError(f"{path}: is of another version of the software; --force runs the controls again")
    try:
        key, told, controls, words = (kept[name] for name in ("key", "provenance", "controls", "verdict"))
        found = None if words is None else Verdict.from_json(words)
        done = {name: [Outcome.from_json(row) for row in controls[name]] for name in TOLD if name in controls}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(damaged % error) from None
    return Record(str(key), str(told), done, found)


def write(run_dir: Path, record: Record) -> None:
    """Write controls.json and, if there is a verdict, controls.csv."""
    atomic.write_text(run_dir / RESULT, json.dumps(record.to_json(), indent=1) + "\n")
    if record.verdict:
        table = [_flat(row, record.provenance) for row in record.rows]
        atomic.write_text(run_dir / TABLE, text_table.csv_text(table))


def line(row: Outcome) -> str:
    """One row as a sentence."""
    of_row = row.cells
    chance = f", always guessing the larger class {of_row['larger class']}" if of_row["larger class"] else ""
    number = f"{of_row['result']} {of_row['95 % by blocks']} of {of_row['n']}{chance}"
    return f"{of_row['control']}: {number}: {of_row['finding']}"


def _flat(row: Outcome, of: str) -> dict[str, Any]:
    """A row for CSV."""
    names = ("control", "what", "kind", "n", "value", "n_effective", "low", "high", "chance", "finding")
    cells = {
        **dataclasses.asdict(row),
        "low": row.interval[0],
        "high": row.interval[1],
        "finding": row.finding,
    }
    return {**{name: cells[name] for name in names}, "provenance": provenance.word(of)}
