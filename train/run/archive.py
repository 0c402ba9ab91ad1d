"""Read untrusted zip files (checkpoints, model.keras) in no more memory than their own size."""

from __future__ import annotations

import zipfile
from pathlib import Path

# What zipfile raises for rubbish, besides OSError.
ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError, KeyError)


def members(path: Path) -> dict[str, bytes]:
    """{name: content} of a zip file whose members are stored as they are; raises ValueError for others.

    Ours are never compressed, so nothing in them can be larger than the file, whatever it says.
    """
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its parts are larger than the file")
        return {entry.filename: file.read(entry) for entry in entries}
