"""The example configs: beside the packages in the source, or installed with them."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from common.errors import UserError
from common.files import atomic

_INSTALLED = "share/xtcav-lasing/configs/"


def copy(folder: Path) -> tuple[int, int]:
    """Copy the examples into `folder`; returns how many were copied and how many files were there already."""
    copied = kept = 0
    for name, path in find().items():
        target = folder / name
        if target.exists():
            kept += 1
            continue
        atomic.write_bytes(target, path.read_bytes())
        copied += 1
    return copied, kept


def find() -> dict[str, Path]:
    """{name below `configs/`: path} of the examples; raises UserError if there are none."""
    beside = Path(__file__).parents[1] / "configs"
    if beside.is_dir():
        return {str(path.relative_to(beside)): path for path in sorted(beside.glob("*/*.*"))}
    try:
        files = importlib.metadata.files("xtcav-lasing") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = {str(file).partition(_INSTALLED)[2]: Path(str(file.locate())) for file in files}
    found = {name: path for name, path in sorted(found.items()) if name and path.is_file()}
    if not found:
        raise UserError("the example configs are not installed; they are in the folder configs of the source")
    return found
