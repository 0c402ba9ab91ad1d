"""Where every command begins: signals, standard streams and Python's settings come before all else.

Only light modules are loaded here; the commands, and whatever they need, come after.
"""

from __future__ import annotations

import codecs
import importlib
import os
import signal
import sys
import warnings

from common import interrupt, limits
from common.errors import UserError

# Variables that change Python itself: warnings become errors, docstrings (the help) and assertions are left
# out, a prompt opens at the end, or Python writes messages of its own to standard error.
NOT_OURS = (
    "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONDEBUG", "PYTHONINSPECT", "PYTHONVERBOSE", "PYTHONDEVMODE",
    "PYTHONPROFILEIMPORTTIME", "PYTHONTRACEMALLOC", "PYTHONMALLOC", "PYTHONMALLOCSTATS",
    "PYTHONASYNCIODEBUG", "PYTHONINTMAXSTRDIGITS", "PYTHONDUMPREFS", "PYTHONCASEOK",
)  # fmt: skip

# What is refused at once, because libraries end in a stack of their own where they cannot have it: `build` of
# a small run went through under `ulimit -v` of 200 MB on 2 cores, of 150 MB it did not.
_ADDRESS_SPACE, _OF_A_CORE = 1 << 28, 1 << 25  # bytes; OpenBLAS takes 32 MB for each core
_THREADS, _OPENBLAS = 6, 64  # ours; the most that numpy's OpenBLAS starts


def start(module: str, script: str) -> None:
    """Run the commands of `module` as all of this process, begun as `python -m MODULE` or as `script`."""
    interrupt.end_process()
    standard_streams()
    as_module = getattr(sys.modules["__main__"], "__spec__", None) is not None
    _begin_again([*(("-m", module) if as_module else sys.argv[:1]), *sys.argv[1:]])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, interrupt.SIGNALS)
    warnings.resetwarnings()  # `python -W error`
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)  # as Python does
    _check_limits()
    commands = importlib.import_module(f"{module}.commands")
    if not as_module:
        importlib.import_module("common.progress").voice.as_scripts = True
    commands.main(prog_name=f"python -m {module}" if as_module else script)


def _check_limits() -> None:
    """End in one line where the session's limits are too low to load numpy, which commands do."""
    cores = min(os.cpu_count() or 1, _OPENBLAS)
    try:
        limits.check(_THREADS + cores, _ADDRESS_SPACE + cores * _OF_A_CORE, "this software")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def standard_streams() -> None:
    """Open the standard streams that this process was started without; let none fail on a character.

    The number of a closed stream would go to the next file that is opened, and messages of libraries would
    be written into that file. Where only standard output is open, errors go there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            if number < 2 or sys.stdout is None:
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            else:
                os.dup2(1, 2)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")


def _begin_again(words: list[str]) -> None:
    """Replace this process by `python WORDS`, in UTF-8 mode and without NOT_OURS, unless it is like that.

    In the C locale Python cannot name a file `données`, even where the file system can. A signal that
    comes in between waits for the new process.
    """
    another = codecs.lookup(sys.getfilesystemencoding()).name != "utf-8"
    found = [name for name in NOT_OURS if os.environ.pop(name, None)]
    if another or found:
        signal.pthread_sigmask(signal.SIG_BLOCK, interrupt.SIGNALS)
        os.execv(sys.executable, [sys.executable, *(["-X", "utf8"] if another else []), *words])
