"""Nothing in a user's home or environment changes what is computed, or stops it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train.conftest import write_data
from train.fit import environment
from train.run import checkpoint

ROOT = Path(__file__).parents[2]
KERAS = {"floatx": "float64", "epsilon": 0.1, "backend": "jax", "image_data_format": "channels_first"}
HOSTILE = {
    "KERAS_BACKEND": "torch",
    "KERAS_MAX_EPOCHS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_SET_ONEDNN_FPMATH_MODE": "BF16",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
    "TF_NUM_INTRAOP_THREADS": "7",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
    "NVIDIA_TF32_OVERRIDE": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "LC_ALL": "C",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


def fit(folder: Path, config: str, **environ: str) -> subprocess.CompletedProcess:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    command = [sys.executable, "-m", "train", "fit", config]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    write_data(folder / "data.h5", {"train": 40, "test": 30})
    (folder / "home").mkdir()
    return folder


def test_home_and_environment_change_nothing(clean, write_config, tmp_path):
    """Weights, table and report of a training in a hostile place are those of one in a clean place."""
    config = Path(write_config(data="data.h5", runs_dir="lässt", report=True)).read_text()
    (clean / "a.yaml").write_text(config)
    (clean / "b.yaml").write_text(config.replace("name: small", "name: other"))
    home = tmp_path / "home"
    (home / ".keras").mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text(json.dumps(KERAS))
    done = fit(clean, "a.yaml", HOME=str(clean / "home"))
    assert done.returncode == 0, done.stderr
    assert list((clean / "home").glob(".keras*")) == []  # and nothing is written there
    (clean / "matplotlibrc").write_bytes(b"text.usetex: True\nbackend: nonsense\nfont.size: \xe9\n")
    done = fit(clean, "b.yaml", HOME=str(home), MPLCONFIGDIR="/proc/none", **HOSTILE)
    assert done.returncode == 0, done.stderr
    assert "TF_ENABLE_ONEDNN_OPTS" in done.stderr  # told that it does not apply
    assert "no report was drawn" not in done.stderr
    runs = [clean / "lässt" / name for name in ("small", "other")]
    one, other = (checkpoint.load(run) for run in runs)
    assert one.table == other.table
    for a, b in zip(
        (*one.model, *one.optimizer, one.gradient), (*other.model, *other.optimizer, other.gradient)
    ):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    assert len({(run / "report.html").read_text().count("data:image") for run in runs}) == 1


@pytest.mark.parametrize(
    "name, stays",
    [
        ("KERAS_HOME", False),
        ("TF_DETERMINISTIC_OPS", False),
        ("ONEDNN_MAX_CPU_ISA", False),
        ("TF_SOMETHING_NEW", False),
        ("TF_CPP_MIN_LOG_LEVEL", True),
        ("TF_FORCE_GPU_ALLOW_GROWTH", True),
        ("TF_VAR_region", True),  # Terraform's
        ("CUDA_VISIBLE_DEVICES", True),
        ("SLURM_JOB_ID", True),
    ],
)
def test_what_stays_says_where_and_how_much_not_what(name, stays):
    environ: dict[str, str] = {name: "1"}
    assert environment.settle(environ) == ([] if stays else [name])
    assert (environ.get(name) == "1") == stays
    assert environment.settle(environ) == []
