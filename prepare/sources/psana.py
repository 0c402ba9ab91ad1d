"""Which psana is installed. Nothing else imports it."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from common.errors import DataError

_ENVIRONMENTS = {
    "psana": "the LCLS-I or the LCLS-II environment",
    "psana1": "the LCLS-I environment",
    "psana2": "the LCLS-II environment",
}


def import_psana(kind: str, module: str = "psana") -> ModuleType:
    """The `module` of the psana that `kind` (psana, psana1, psana2) asks for; raises DataError.

    psana 2 starts MPI when it is imported, spreads the events of every DataSource over the ranks
    and aborts all of them for an exception in one; PS_PARALLEL=none, before the import, makes it
    a serial reader. This software splits the shots over ranks by itself.
    """
    os.environ["PS_PARALLEL"] = "none"
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
