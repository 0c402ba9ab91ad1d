"""The rules of the house: what each stage may import, and that imports have no cycles."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path
from typing import Iterable

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "common": {"prepare", "train", "psana", "tensorflow", "keras"},
    "prepare": {"train", "psana", "tensorflow", "keras"},
    "train": {"prepare", "psana"},
}
PSANA_SOURCES = ROOT / "prepare" / "sources"  # only modules here may import psana, and only when used


def imported(path: Path) -> set:
    """Top-level names of everything a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_imports_what_its_stage_must_not_know(package):
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    for path in modules:
        allowed = {"psana"} if path.parent == PSANA_SOURCES and path.name.startswith("psana") else set()
        assert not imported(path) & (FORBIDDEN[package] - allowed), path


def modules() -> dict[str, Path]:
    """{dotted name: file} of all modules; a package is the module of its `__init__.py`."""
    paths = (path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py")))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


def imports_of(path: Path, known: Iterable[str]) -> set[str]:
    """The modules among `known` that a module names in an import, also within functions."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            wholes = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= wholes & set(known) or {node.module}
    return named & set(known)


def first_cycle(graph: dict[str, set[str]]) -> list:
    """A cycle of the graph as a list of its nodes; empty if it has none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_by_way_of_others():
    """Static, and imports within functions count: they would only hide a cycle until they run."""
    known = modules()
    assert len(known) > 100
    assert first_cycle({name: imports_of(path, known) - {name} for name, path in known.items()}) == []


def test_no_room_of_the_trainer_imports_itself_by_way_of_others():
    """The same for folders: `fit` knows nothing of `report`, which shows what `fit` did."""
    known, rooms = modules(), {}
    for name, path in known.items():
        if name.startswith("train."):
            room = name.split(".")[1]
            others = {other.split(".")[1] for other in imports_of(path, known) if other.startswith("train.")}
            rooms.setdefault(room, set()).update(others - {room})
    assert {"fit", "report", "controls", "data"} <= set(rooms)
    assert first_cycle(rooms) == []


def test_the_training_loop_does_not_load_the_report():
    code = (
        "import sys, train.fit.loop\n"
        "others = ('train.report', 'common.report', 'train.controls', 'train.predict', 'jinja2')\n"
        "loaded = [name for name in sys.modules if name.startswith(others)]\n"
        "assert not loaded, loaded\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_tensorflow_is_loaded_where_it_is_started_and_not_before():
    """`runtime.start` sees to threads and a user's settings first; data that do not fit come before it."""
    jobs = ["controls.job", "export.job", "predict.evaluate", "predict.job", "report", "sweep.sweep"]
    code = (
        "import sys, importlib\n"
        f"for name in {jobs}:\n"
        "    importlib.import_module(f'train.{name}')\n"
        "    assert not {'tensorflow', 'keras'} & set(sys.modules), name\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_help_loads_neither_psana_nor_tensorflow(command):
    """`--help` answers at once: the heavy packages are loaded only by what needs them."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{command}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('{command}', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        "loaded = {'psana', 'tensorflow', 'keras'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
