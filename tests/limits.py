"""Limits for a test, and of one."""

from __future__ import annotations

import contextlib
import resource
from typing import Iterator

HANGS = 600  # s; who waits longer waits for what does not come. No test says how fast a machine is.


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """A limit on what can be written to one file, which to a program looks like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
