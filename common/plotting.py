"""matplotlib with this project's settings, independent of the user's."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any


def load_matplotlib() -> Any:
    """matplotlib, loaded without a user's settings; raises ImportError if it is not installed.

    A bad MPLBACKEND or matplotlibrc is an error when it is loaded, and it looks for matplotlibrc in the
    working directory first, so it is loaded from another. Keras loads it, too: call this before.
    """
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    os.environ.update(MPLBACKEND="agg", MATPLOTLIBRC=os.devnull)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where a home is not writable
    here = os.open(".", os.O_RDONLY)
    os.chdir("/")
    try:
        import matplotlib
    finally:
        os.fchdir(here)
        os.close(here)
    return matplotlib
