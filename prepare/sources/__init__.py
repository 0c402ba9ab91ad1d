"""Open the source of shots that a config names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prepare.sources.base import FrameResult, Source

if TYPE_CHECKING:  # psana's process imports this
    from prepare.config import PrepareConfig

__all__ = ["FrameResult", "Source", "open_source"]


def open_source(config: PrepareConfig) -> Source:
    """The source that `config.source` names; raises DataError if it is not to be had here."""
    if config.source.kind == "xtc":
        from prepare.sources.native import XtcSource

        source: Source = XtcSource(config.source.dir, config.camera.address)
    elif config.source.kind == "simulated":
        from prepare.sources.simulated import SimulatedSource

        source = SimulatedSource(config)
    else:
        from prepare.sources.psana import open_psana

        source = open_psana(config)
    source.shape = config.camera.shape
    return source
