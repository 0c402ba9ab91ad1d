"""Which psana is installed, and the source that reads through it. Nothing else imports psana."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from common.errors import DataError
from prepare.config import PrepareConfig
from prepare.sources.base import Source

LISTINGS = ".shots"  # the folder in output_dir
_ENVIRONMENTS = {
    "psana": "the LCLS-I or the LCLS-II environment",
    "psana1": "the LCLS-I environment",
    "psana2": "the LCLS-II environment",
}


def open_psana(config: PrepareConfig, keep_listings: bool = True) -> Source:
    """The source of `config` for the psana that is installed; raises DataError if it is not the right one."""
    listings = Path(config.output_dir) / LISTINGS if keep_listings else None
    psana = import_psana(config.source.kind)
    if generation(psana) == 1:
        from prepare.sources.psana1 import Psana1Source

        return Psana1Source(psana, config.experiment, config.source.dir, config.camera.address, listings)
    from prepare.sources.psana2 import Psana2Source

    return Psana2Source(psana, config.experiment, config.source.dir, config.camera.address, listings)


def import_psana(kind: str, module: str = "psana") -> ModuleType:
    """The `module` of the psana that `kind` (psana, psana1, psana2) asks for; raises DataError.

    psana 2 by itself spreads the events of every DataSource over the MPI ranks, and on several
    ranks replaces sys.excepthook by one that aborts them all; PS_PARALLEL=none, before the import,
    makes it a serial reader. This software splits the shots over ranks by itself. It reads 16 MB
    at a time, which a core's cache does not hold until they are used: 4 MB make a build 8 % faster.
    """
    os.environ["PS_PARALLEL"] = "none"
    os.environ.setdefault("PS_BD_CHUNKSIZE", str(4 << 20))
    try:
        psana = importlib.import_module("psana")
        wanted = importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"source.kind '{kind}': psana cannot be loaded by {sys.executable} ({error}); run in "
            f"{_ENVIRONMENTS[kind]}, install psana, or read LCLS-I files without it: `kind: xtc`"
        ) from None
    here = f"psana{generation(psana)}"
    if kind not in ("psana", here):
        raise DataError(
            f"source.kind '{kind}': the psana here is {here}; run in {_ENVIRONMENTS[kind]}, "
            "or write `kind: psana` for whichever is there"
        )
    return wanted


def generation(psana: ModuleType) -> int:
    """1 for LCLS-I's psana, which has MPIDataSource, 2 for LCLS-II's, which has not."""
    return 1 if hasattr(psana, "MPIDataSource") else 2
