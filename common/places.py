"""Relative paths in what was made earlier: they were relative to the folder where the command was started."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence, Union


def start_of(path: Path, name: Union[str, Path]) -> Optional[Path]:
    """The folder from which the relative `name` leads to `path`; None if it does not, or is absolute.

    A run in /home/me/lasing/runs/demo that was made as runs/demo was made in /home/me/lasing, wherever
    that has been moved since.
    """
    parts, there = Path(name).parts, path.resolve()
    if Path(name).is_absolute() or ".." in parts or there.parts[len(there.parts) - len(parts) :] != parts:
        return None
    return there.parents[len(parts) - 1] if parts else there


def found(name: Union[str, Path], starts: Sequence[Optional[Path]]) -> Path:
    """`name`, where relative from the first of `starts` where it or `name`.h5 exists, else from the last."""
    known = [start / name for start in starts if start is not None]
    return next((path for path in known if path.exists() or Path(f"{path}.h5").exists()), known[-1])
