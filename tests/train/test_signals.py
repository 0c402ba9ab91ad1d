"""Signals and limits that meet TensorFlow: one line and a code, never a stack of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import HANGS

ROOT = Path(__file__).parents[2]

# Run by Python before us: the signal comes when a module of such a name is imported, in whatever thread.
AT_IMPORT = """
import os, sys
prefix, number = os.environ["AT_IMPORT"], int(os.environ["NUMBER"])
def hook(event, arguments):
    global prefix
    if event == "import" and prefix and str(arguments[0]).startswith(prefix):
        prefix = ""
        os.kill(os.getpid(), number)
sys.addaudithook(hook)
"""


@pytest.mark.parametrize(
    "prefix, number, line",
    [
        ("keras.src", signal.SIGTERM, "stopped by SIGTERM"),
        ("tensorflow.python.framework", signal.SIGTERM, "stopped by SIGTERM"),
        ("tensorflow.python.keras", signal.SIGINT, "interrupted"),
        ("matplotlib", signal.SIGHUP, "stopped by SIGHUP"),
    ],
)
def test_a_signal_while_tensorflow_loads(data, write_config, tmp_path, prefix, number, line):
    config = write_config()
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-m", "train", "fit", config],
        env={**os.environ, "PYTHONPATH": path, "AT_IMPORT": prefix, "NUMBER": str(int(number))},
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.splitlines()[-1] == f"{line}; continue with: python -m train fit {config} --resume"
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 2  # "loading TensorFlow ..."
    assert not (tmp_path / "runs" / "small" / "lock").exists()
