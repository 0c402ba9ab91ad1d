"""What the installed scripts run: `prepare` and `train` of this very software.

A folder of PYTHONPATH may have modules of such names; where Python looks for all others stays as it is.
"""

import importlib
import sys
from pathlib import Path


def prepare() -> None:
    """Run `xtcav-prepare`."""
    _start("prepare")


def train() -> None:
    """Run `xtcav-train`."""
    _start("train")


def _start(module: str) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    start = importlib.import_module("common.start")
    importlib.import_module(module)
    del sys.path[0]
    start.start(module, f"xtcav-{module}")
