"""Contestants in processes of their own, run in turn, and the table of what came out."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Sequence

# A turn of less than SHORT seconds is as long as a disturbance: the ratio of a step of 5 ms was seen at 1.08
# with 7 turns, with 61 of them at 0.94 and 0.97.
SHORT, MORE = 0.03, 9
# A contestant: a function of a module that sets up and gives what is to be timed, and its arguments.
Contestant = tuple[Callable[..., Callable[[], Any]], Sequence[Any]]


class Row(NamedTuple):
    """One line of the table: a figure, what it is to be (at most or at least), and what it is made of."""

    what: str
    figure: float
    aim: Optional[float]
    at_most: bool
    samples: dict[str, list[float]]
    note: str = ""

    @property
    def met(self) -> Optional[bool]:
        """Whether the aim is reached; None without one."""
        if self.aim is None:
            return None
        return self.figure <= self.aim if self.at_most else self.figure >= self.aim


def installed(package: str) -> bool:
    """Whether a peer can be raced against: the `bench` extra brings those that nothing else needs."""
    return importlib.util.find_spec(package) is not None


def race(
    contestants: dict[str, Contestant],
    repeat: int,
    warm_up: int = 2,
    busy: Optional[dict[str, list[float]]] = None,
) -> dict[str, list[Any]]:
    """What each contestant gave, `repeat` times in turn: its own number, else the seconds it took.

    If the first one took less than SHORT seconds, MORE times as often. busy: is given the seconds of
    processor time of each turn, which others' work on the machine changes less. Each lives in a process of
    its own, which sleeps while another runs, so that no library's threads stand in another's way. Raises
    RuntimeError for one that fails.
    """
    context = multiprocessing.get_context("spawn")
    ends, processes = {}, []
    try:
        for name, (factory, args) in contestants.items():
            ends[name], theirs = context.Pipe()
            processes.append(context.Process(target=_contestant, args=(theirs, factory, args), daemon=True))
            processes[-1].start()
            theirs.close()
        for name, end in ends.items():
            _told(end, name)
        busy = {} if busy is None else busy
        results = _turns(ends, warm_up, repeat, busy)
        first = next(iter(results.values()))
        if all(isinstance(value, float) and value < SHORT for value in first):
            results = _turns(ends, 0, MORE * repeat, busy)
        return results
    finally:
        for end in ends.values():
            end.close()
        for process in processes:
            process.join(5)
            process.kill()


def _turns(
    ends: dict[str, Any], warm_up: int, repeat: int, busy: dict[str, list[float]]
) -> dict[str, list[Any]]:
    results: dict[str, list[Any]] = {name: [] for name in ends}
    busy.update({name: [] for name in ends})
    for n in range(warm_up + repeat):
        for name, end in ends.items():
            end.send(True)
            value, processor = _told(end, name)
            if n >= warm_up:
                results[name].append(value)
                busy[name].append(processor)
    return results


def ratio(results: dict[str, list[float]], of: str, to: str) -> float:
    """The median of the ratios of neighboring runs."""
    return statistics.median(a / b for a, b in zip(results[of], results[to]))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo")), 0)
    packages = ("tensorflow-cpu", "tensorflow", "keras", "torch", "datasets", "h5py", "numpy")
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu,
        "features": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e6, 1),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }


def as_text(about: dict[str, Any], rows: Sequence[Row]) -> str:
    """The table as text: figure, aim, whether it is met."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    head = (
        f"{about['cpu']} ({', '.join(about['features'])}), {about['cores']} cores, {about['memory_gb']} GB, "
        f"load {about['load']:.1f} at the start; {about['date']}; Python {about['python']}, {versions}"
    )
    return "\n".join([head, "", *map(line, rows)]) + "\n"


def line(row: Row) -> str:
    """A row as a line of text."""
    aim = "" if row.aim is None else f"{'<=' if row.at_most else '>='} {row.aim:g}"
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    figure = f"{row.figure:.3f}" if abs(row.figure) < 10 else f"{row.figure:,.0f}"
    return f"{row.what:<85}{figure:>8}  {aim:<8}{verdict:<8}{row.note}".rstrip()


def write(folder: Path, about: dict[str, Any], rows: Sequence[Row]) -> None:
    """The table as `folder`/training.txt and, with every sample, training.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "training.txt").write_text(as_text(about, rows))
    listed = [{**row._asdict(), "met": row.met} for row in rows]
    (folder / "training.json").write_text(json.dumps({"machine": about, "rows": listed}, indent=1) + "\n")


def _contestant(end: Any, factory: Callable[..., Callable[[], Any]], args: Sequence[Any]) -> None:
    try:
        run = factory(*args)
        end.send(("ready", None))
        while True:
            end.recv()
            start, processor = time.perf_counter(), time.process_time()
            value = run()
            took, processor = time.perf_counter() - start, time.process_time() - processor
            given = value if isinstance(value, (int, float, dict)) else took
            end.send(("ready", (given, processor)))
    except EOFError:
        pass  # the race is over
    except BaseException as error:
        end.send((f"{type(error).__name__}: {error}", None))
        raise


def _told(end: Any, name: str) -> Any:
    word, value = end.recv()
    if word != "ready":
        raise RuntimeError(f"{name}: {word}")
    return value


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
