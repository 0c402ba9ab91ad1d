"""Limits of the process (`ulimit`), checked in advance: libraries abort the process when they reach one."""

from __future__ import annotations

import mmap
import threading

from common.errors import UserError


def check(threads: int, address_space: int, who: str = "TensorFlow") -> None:
    """Raise UserError unless `threads` more threads and `address_space` bytes can be had for `who`."""
    try:
        mmap.mmap(-1, address_space, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except OSError:
        raise UserError(
            f"the limits of this session leave no {address_space / 2**30:.1f} GiB of address space, which "
            f"{who} takes (most of it is never used); raise the limit: ulimit -v unlimited"
        ) from None
    stop = threading.Event()
    started = []
    try:
        for _ in range(threads):
            thread = threading.Thread(target=stop.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        raise UserError(
            f"the limits of this session allow {len(started)} more threads, and {who} takes {threads}; "
            "raise the limit (ulimit -u), or end other programs"
        ) from None
    finally:
        stop.set()
        for thread in started:
            thread.join()
