"""How many cores there are for this process."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Cores this process may use: Slurm's word, else the affinity; never the whole node's number."""
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm):
        return int(slurm)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
