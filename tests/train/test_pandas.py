"""The worked example of `train/README.md`: results read into pandas."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from common import text_table
from tests.train.conftest import write_data
from train.config import load_config
from train.run.folder import is_finished
from train.sweep import sweep_table
from train.sweep.grid import Case

README = Path(__file__).parents[2] / "train" / "README.md"


def test_the_example_reads_predictions_history_and_a_sweep(data, write_config, train, tmp_path, monkeypatch):
    path = write_config(name="demo", steps=6, table_every=2)
    assert train("fit", path).exit_code == 0
    write_data(tmp_path / "next.h5", {"test": 30, "predict": 180}, seed=3)
    assert train("predict", str(tmp_path / "runs/demo"), str(tmp_path / "next.h5")).exit_code == 0
    config = load_config(path)
    table = sweep_table.table([Case("base", [config])], is_finished)
    (tmp_path / "runs/demo_sweep").mkdir()
    (tmp_path / "runs/demo_sweep/sweep.csv").write_text(text_table.csv_text(table))

    (code,) = re.findall(r"```python\n(import pandas as pd\n.*?)```", README.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(code, "train/README.md", "exec"), found)

    shots = found["shots"]
    assert len(shots) == 210 and shots.label.isna().sum() == 180
    assert shots.index.names == ["run", "time"] and shots.index.is_monotonic_increasing
    assert (shots.probability_nolasing + shots.probability_lasing).to_numpy() == pytest.approx(1)
    assert shots.simulated.dtype == bool
    trusted = shots[shots.flag.isna()]
    assert found["shares"].sum(axis=1).to_numpy() == pytest.approx(1)
    minutes = found["minutes"]
    assert minutes["count"].sum() == (trusted.index.get_level_values("run") == 70).sum()
    assert minutes.index[0] == pd.Timestamp(0, unit="s", tz="UTC")
    assert found["best"]["test_accuracy"] == found["history"].test_accuracy.loc[5]
    assert found["ranking"].loc["base", "finished"] == 1
