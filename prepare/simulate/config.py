"""The `simulate:` section of a prepare config."""

from __future__ import annotations

from common.config import Model


class SimulateConfig(Model):
    """What the simulated runs are like."""

    seed: int = 1
