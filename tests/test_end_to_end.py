"""The whole job on small files: simulate, prepare, delete the camera's files, train, evaluate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import HANGS

PREPARE = """
name: tiny
source: {kind: xtc, dir: xtc}
camera: {shape: [120, 96]}
runs: {dark: [68], classes: {nolasing: [69], lasing: [70, 71]}}
select: {train: 120, test: 40, by: block, blocks: {length: 10, guard: 2, cycle: {train: 2, test: 1}}}
simulate: {rate: 4.0, shots: {dark: 20, nolasing: 320, lasing: 200}}
"""
TRAIN = """
name: tiny
data: data/tiny.h5
threads: {intra: 1, inter: 1}
input: [48, 60]
network:
  - convolution: {kernel_size: [5, 5], filters: 4, strides: [2, 2], stddev: 0.1}
  - relu
  - average_pool: {pool_size: [4, 4], strides: [3, 3]}
  - output: {stddev: 0.01}
optimizer: {kind: adam}
learning_rate: {start: 0.005}
minibatch: 20
steps: 31
report: false
"""
ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command as a user does, in a folder of its own; returns what it printed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "prepare.yaml").write_text(PREPARE)
    (tmp_path / "train.yaml").write_text(TRAIN)

    def command(*words: str) -> str:
        process = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True, timeout=HANGS
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    return command


def test_the_whole_job(run, tmp_path):
    run("prepare", "simulate", "prepare.yaml")
    assert "nolasing" in run("prepare", "list", "prepare.yaml")
    run("prepare", "select", "prepare.yaml")
    built = run("prepare", "build", "prepare.yaml")
    assert "train: 120 shots (60 lasing, 60 nolasing)" in built
    assert "20 images computed again" in run("prepare", "verify", "data/tiny.h5")

    shutil.rmtree(tmp_path / "xtc")  # from here on there are no camera files
    shutil.rmtree(tmp_path / "data_manifest")
    fitted = run("train", "fit", "train.yaml")
    evaluated = run("train", "evaluate", "runs/tiny")
    scores = [line for line in fitted.splitlines() if line.startswith(("train ", "test "))]
    assert scores == [line for line in evaluated.splitlines() if line.startswith(("train ", "test "))]
    summary = json.loads((tmp_path / "runs" / "tiny" / "summary.json").read_text())
    assert summary["splits"]["train"]["n"] == 120
    assert summary["splits"]["train"]["accuracy"] > 0.55
    assert [band["name"] for band in summary["splits"]["test"]["by_pulse_energy"]] == [
        "weak",
        "medium",
        "strong",
    ]
