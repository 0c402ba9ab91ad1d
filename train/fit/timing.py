"""Where the time of a run goes."""

from __future__ import annotations

import contextlib
import time
from typing import Dict, Iterator

# What a run does, one after the other. Reading goes on beside it, in a thread.
PARTS = ("step", "waiting", "evaluation", "saving")


class Clock:
    """Seconds spent in each of PARTS since it was made; `waiting` is for input."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is done in this `with` as `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def times(self, reading: float) -> Dict[str, float]:
        """Seconds: total, each of PARTS, other (these add up to the total), and reading, beside them."""
        total = time.perf_counter() - self._start
        return {
            "total": total,
            **self.seconds,
            "other": total - sum(self.seconds.values()),
            "reading": reading,
        }


def short(times: Dict[str, float]) -> str:
    """`times` for a progress line: shares of the total."""
    shares = {name: 100 * times[name] / max(times["total"], 1e-9) for name in (*PARTS, "reading")}
    return ", ".join(f"{name} {share:.{0 if share >= 10 else 1}f}%" for name, share in shares.items())


def line(times: Dict[str, float]) -> str:
    """`times` as a line of text: seconds and shares of the total."""
    total = max(times["total"], 1e-9)
    names = {"waiting": "waiting for input"}
    parts = ", ".join(
        f"{names.get(name, name)} {times[name]:.1f} s ({100 * times[name] / total:.1f} %)"
        for name in (*PARTS, "other")
    )
    return f"time {total:.1f} s: {parts}; reading, meanwhile or before, {times['reading']:.1f} s"
