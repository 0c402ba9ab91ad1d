"""The rule of the house: what each stage may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

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
