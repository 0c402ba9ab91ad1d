"""How many cores there are for this process."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Cores this process may use: as Slurm says, else by the affinity; never the number of the whole node."""
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm):
        return int(slurm)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
