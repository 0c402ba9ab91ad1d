"""Run a command and kill it (-9) just before its N-th change to a file in its folder.

    python tests/faults/at_event.py N MODULE ARGS...      e.g. 7 train fit train.yaml

Random instants seldom fall between two writes; this falls nowhere else.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def main() -> None:
    left, folder = int(sys.argv[1]), os.getcwd()
    module, sys.argv = sys.argv[2], sys.argv[2:]

    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        if event == "open":
            path, mode, flags = arguments
            changes = bool(mode and set(str(mode)) & set("wax+")) or bool(
                flags and flags & (os.O_WRONLY | os.O_RDWR)
            )
        else:
            path, changes = arguments[0] if arguments else None, event in CHANGES
        if not changes or not isinstance(path, (str, bytes, os.PathLike)):
            return
        if os.path.abspath(os.fsdecode(path)).startswith(folder):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.path[0] = os.environ["PYTHONPATH"]
    sys.addaudithook(hook)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


main()
