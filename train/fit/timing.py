"""Time and memory used by a run."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from typing import Any, Iterator, Optional

from train.fit.runtime import Runtime

# What a run does, one after the other. Reading goes on beside it, in a thread.
PARTS = ("step", "waiting", "evaluation", "saving")


class Stopwatch:
    """Seconds spent in each of PARTS; `waiting` is for input. before: the times of a run that is resumed."""

    def __init__(self, before: Optional[dict[str, float]] = None) -> None:
        self._start = time.perf_counter()
        self._before = before or {}
        self.seconds = {name: self._before.get(name, 0.0) for name in PARTS}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is done in this `with` as `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def times(self, reading: float) -> dict[str, float]:
        """Seconds: total, each of PARTS, other (these add up to the total), and reading, beside them."""
        total = time.perf_counter() - self._start + self._before.get("total", 0.0)
        return {
            "total": total,
            **self.seconds,
            "other": total - sum(self.seconds.values()),
            "reading": reading + self._before.get("reading", 0.0),
        }


def short(times: dict[str, float]) -> str:
    """`times` for a progress line: shares of the total."""
    shares = {name: 100 * times[name] / max(times["total"], 1e-9) for name in (*PARTS, "reading")}
    return ", ".join(f"{name} {share:.{0 if share >= 10 else 1}f}%" for name, share in shares.items())


def line(times: dict[str, float]) -> str:
    """`times` as a line of text: seconds and shares of the total."""
    total = max(times["total"], 1e-9)
    names = {"waiting": "waiting for input"}
    parts = ", ".join(
        f"{names.get(name, name)} {times[name]:.1f} s ({100 * times[name] / total:.1f} %)"
        for name in (*PARTS, "other")
    )
    return f"time {total:.1f} s: {parts}; reading, meanwhile or before, {times['reading']:.1f} s"


def usage(runtime: Runtime) -> dict[str, Any]:
    """CPU seconds, peak memory (MB, 10^6 bytes) and threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_mb": used.ru_maxrss * 1024 / 1e6,
        "threads": _threads(),
        "intra_op_threads": runtime.intra,
        "inter_op_threads": runtime.inter,
    }


def usage_line(used: dict[str, Any]) -> str:
    """`usage` as a line of text."""
    return (
        f"CPU time {used['cpu_seconds']:.1f} s, peak memory {used['peak_memory_mb']:.0f} MB, "
        f"{used['threads']} threads ({used['intra_op_threads']} within an operation, "
        f"{used['inter_op_threads']} between operations)"
    )


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0
