"""A command's first moments: signals, Python's own settings, modules of our names elsewhere."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Python runs it before us: the signal comes at the N-th thing that is loaded or opened after common/start.py.
AT_EVENT = """
import os, sys
left, number = int(os.environ["AT_EVENT"]), int(os.environ["NUMBER"])
begun = False
def hook(event, arguments):
    global left, begun
    begun = begun or event == "open" and "commands" in str(arguments[0])
    left -= begun and event in ("import", "open", "compile", "exec")
    if left == 0:
        left = -1
        os.kill(os.getpid(), number)
sys.addaudithook(hook)
"""


def run(*words: str, cwd: Path = ROOT, preexec_fn=None, **environ: str) -> subprocess.CompletedProcess:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, preexec_fn=preexec_fn
    )


def python_runs(folder: Path, code: str) -> str:
    """A PYTHONPATH on which Python runs `code` before the program."""
    (folder / "sitecustomize.py").write_text(code)
    return f"{folder}{os.pathsep}{ROOT}"


@pytest.mark.parametrize(
    "number, line", [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped by SIGTERM")]
)
@pytest.mark.parametrize("module", ["prepare", "train"])
def test_a_signal_from_the_first_line_on(tmp_path, module, number, line):
    """Wherever it comes, while modules load and words are read: its line and its code."""
    path = python_runs(tmp_path, AT_EVENT)
    for n in (1, 50, 200):
        done = run("-m", module, "--help", PYTHONPATH=path, AT_EVENT=str(n), NUMBER=str(int(number)))
        assert (done.returncode, done.stderr) == (128 + number, f"{line}\n"), n


def test_a_signal_while_words_are_read_and_after_the_end(tmp_path):
    for where in ("click.core.Context.__init__", "click.core.Context.exit", "atexit.register"):
        code = f"import click, atexit, os\nkept = {where}\n"
        code += f"{where} = lambda *a, **k: (os.kill(os.getpid(), {int(signal.SIGINT)}), kept(*a, **k))[1]\n"
        done = run("-c", f"{code}from common.start import start; start('prepare', 'x')", "--version")
        assert done.returncode == 130 and done.stderr == "interrupted\n", where


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list", "--help"]])
def test_words_for_a_full_disk_are_one_line(words):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "prepare", *words]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert re.fullmatch("error: [^\n]*: No space left on device; free some space [^\n]*\n", done.stderr)


def test_settings_of_python_change_nothing(tmp_path):
    """Neither by variables nor by options: the same help, word for word, and the same exit code."""
    plain = run("-m", "train", "--help")
    settings = dict.fromkeys(("PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONVERBOSE", "PYTHONDEVMODE"), "2")
    settings.update(PYTHONWARNINGS="error", PYTHONHASHSEED="7", LC_ALL="C")
    other = run("-m", "train", "--help", **settings)
    assert plain.returncode == other.returncode == 0
    assert other.stdout == plain.stdout and "Train a network" in plain.stdout
    strict = run("-W", "error", "-m", "train", "--help")
    assert (strict.returncode, strict.stdout, strict.stderr) == (0, plain.stdout, "")


def test_assertions_carry_nothing():
    """Without them (`python -O`) the software is the same."""
    for package in ("common", "prepare", "train"):
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(r"^\s*assert\b", path.read_text(), re.M), path


def test_the_scripts_run_our_modules_whatever_the_path_has(tmp_path):
    for name in ("common", "prepare", "train"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')")
    editable = (  # as an editable installation is found: after all of sys.path
        "import runpy, sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        return PathFinder.find_spec(name, [{str(ROOT)!r}]) if path is None else None\n"
        "sys.meta_path.append(Finder)\n"
    )
    for module in ("prepare", "train"):
        script = ROOT / module / "scripts" / f"xtcav-{module}"
        run_it = f"runpy.run_path({str(script)!r})"
        for path in (str(tmp_path), f"{tmp_path}{os.pathsep}{tmp_path / 'train'}"):
            done = run("-c", editable + run_it, "--help", cwd=tmp_path / "train", PYTHONPATH=path)
            assert done.returncode == 0 and f"xtcav-{module}" in done.stdout, done.stderr


@pytest.mark.parametrize("module", ["prepare", "train"])
def test_a_limit_of_memory_or_threads_is_one_line(module):
    """Whatever it is: libraries that are loaded or start threads end the process in words of their own."""
    for megabytes in (60, 100, 150, 250):
        limits = (resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
        done = run("-m", module, "--help", preexec_fn=lambda limits=limits: resource.setrlimit(*limits))
        assert done.returncode == 2, megabytes
        assert done.stderr.startswith("error: the limits of this session leave no 0.3 GiB of address space")
        assert done.stderr.count("\n") == 1
    code = (
        "import threading\n"
        "kept, left = threading.Thread.start, [3]\n"
        "def start(self):\n"
        "    left[0] -= 1\n"
        '    if left[0] < 0: raise RuntimeError("can\'t start new thread")\n'
        "    kept(self)\n"
        "threading.Thread.start = start\n"
        f"from common.start import start; start('{module}', 'x')"
    )
    done = run("-c", code, "--version")  # as `ulimit -u`, which does not bind root
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "allow 3 more threads" in done.stderr and "ulimit -u" in done.stderr
