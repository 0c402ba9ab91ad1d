"""Where shots come from: of a real machine, simulated, or both; told on every page and in every result."""

from __future__ import annotations

SIMULATED, REAL, MIXED = "simulated", "real", "mixed"


def told(simulated: int, shots: int) -> str:
    """The provenance of `shots` shots of which so many are simulated: a word, and for both how many."""
    if not simulated:
        return REAL
    return SIMULATED if simulated == shots else f"{MIXED}: {simulated} of {shots} shots simulated"


def word(provenance: str) -> str:
    """SIMULATED, REAL or MIXED, for a column of a table."""
    return provenance.partition(":")[0]


def banner(provenance: str) -> str:
    """The sentence for the top of a page, or a command's output; '' for real shots."""
    kind, _, counts = provenance.partition(": ")
    if kind == SIMULATED:
        return "Simulated data: no shot here is of a real machine."
    return f"Mixed data: {counts}, the others of a real machine." if kind == MIXED else ""
