"""Which psana is installed, and the source that reads through it. Nothing else imports psana."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Optional

from common.errors import DataError
from common.progress import say
from prepare.children.early import starter
from prepare.formats.files import parse_name
from prepare.sources.base import Source
from prepare.sources.child import ChildSource

if TYPE_CHECKING:  # psana's process needs it not, and would load it for a tenth of a second
    from prepare.config import PrepareConfig

LISTINGS = ".shots"  # the folder in output_dir
_ENVIRONMENTS = {
    "psana": "the LCLS-I or the LCLS-II environment",
    "psana1": "the LCLS-I environment",
    "psana2": "the LCLS-II environment",
}


def load(kind: str) -> None:
    """Load the psana that `kind` asks for, and what reads through it; raises DataError."""
    importlib.import_module(f"prepare.sources.psana{generation(import_psana(kind))}")


def open_psana(config: PrepareConfig, keep_listings: bool = True) -> Source:
    """The source of `config` for the psana that is installed, in a process of its own.

    Raises DataError if it is not the right psana, or ends while it starts.
    """
    directory = find_directory(config.experiment, config.source.dir)
    listings = Path(config.output_dir) / LISTINGS if keep_listings else None
    arguments = (config.source.kind, config.experiment, directory, config.camera.address, listings)
    lcls1 = any(parse_name(name) for name in os.listdir(directory)) if os.path.isdir(directory) else False
    advice = "`kind: xtc` reads these files without psana" if lcls1 else "is a file damaged? copy it again"
    return ChildSource(starter(config.source.kind), open_here, arguments, "psana", directory, advice)


def open_here(kind: str, experiment: str, directory: str, camera: str, listings: Optional[Path]) -> Source:
    """The source for the psana that is installed, in this process."""
    psana = import_psana(kind)
    if generation(psana) == 1:
        from prepare.sources.psana1 import Psana1Source

        return Psana1Source(psana, experiment, directory, camera, listings)
    from prepare.sources.psana2 import Psana2Source

    return Psana2Source(psana, experiment, directory, camera, listings)


def import_psana(kind: str, module: str = "psana") -> ModuleType:
    """The `module` of the psana that `kind` (psana, psana1, psana2) asks for; raises DataError.

    psana 2 by itself spreads the events of every DataSource over the MPI ranks, and on several
    ranks replaces sys.excepthook by one that aborts them all; PS_PARALLEL=none, before the import,
    makes it a serial reader. This software splits the shots over ranks by itself. It reads 16 MB
    at a time, which a core's cache does not hold until they are used: 4 MB make a build 8 % faster.
    The user's settings for either psana in the environment are ignored, except SIT_DATA, where psana 1
    has its list of experiments.
    """
    for name in [name for name in os.environ if name.startswith(("PS_", "MSGLOG"))]:
        del os.environ[name]
    os.environ.update(PS_PARALLEL="none", PS_BD_CHUNKSIZE=str(4 << 20))
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


def find_directory(experiment: str, directory: Optional[str]) -> str:
    """`directory`, or the facility's folder of the experiment, as an absolute path.

    Both psanas look in $SIT_PSDM_DATA/INSTRUMENT/EXPERIMENT/xtc, psana 1 with the instrument as its
    list of experiments spells it (AMO). Raises DataError if there is no such folder.
    """
    if directory is not None:
        return os.path.abspath(directory)
    root = Path(os.environ.get("SIT_PSDM_DATA", "/reg/d/psdm"))
    instrument = experiment[:3]
    # Folders that are mounted when they are used are not listed by `glob` before.
    likely = [root / spelled / experiment / "xtc" for spelled in (instrument, instrument.upper())]
    for folder in (*likely, *sorted(root.glob(f"*/{experiment}/xtc"))):
        if folder.is_dir():
            say(f"source.dir is not given: reading {folder}")
            return str(folder)
    raise DataError(
        f"source.dir is not given, and there is no folder {root}/INSTRUMENT/{experiment}/xtc: name the "
        "folder of the files as source.dir, or set SIT_PSDM_DATA to where the facility's data are"
    )
