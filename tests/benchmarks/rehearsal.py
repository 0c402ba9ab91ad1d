"""A beam time rehearsed at full size: simulate, select, build, verify, train, predict, report.

    python -m tests.benchmarks.rehearsal                    # 6 periods of 13,000 shots: a night
    python -m tests.benchmarks.rehearsal --periods 2 --shots 1000 --folder runs/small   # minutes

A period is a dark run, a run without lasing and one with, full frames at 120 Hz, of a machine of its
own. Its XTC files (825 kB a shot) are removed when its data set is built and verified, so that the disk
holds one period of them at a time. All periods but the last are trained on as one data set; the last is
the run that nobody has seen. Ends with a table, and FOLDER/rehearsal.json: for each stage the time, CPU
time, greatest memory of a process, and bytes read and written, and what that comes to for 10^7 shots.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

from common.text_table import lines

ROOT = Path(__file__).resolve().parents[2]
DARK = 400  # shots of a dark run
RATE = 120.0  # Hz
STAGES = ("simulate", "select", "build", "verify", "fit", "predict", "report")


def measured(stage: str, words: list[str], folder: Path, used: dict[str, dict[str, float]]) -> None:
    """Run `python -m words` in `folder`, and add what it used to `used[stage]`; exit if it fails."""
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "rehearsal.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=folder, env=environment, stdout=log, stderr=log
        )
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # /proc has it until it is reaped
        counted = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: {' '.join(words)}: exit code {process.returncode}; see {folder / 'rehearsal.log'}")
    row = used.setdefault(stage, dict.fromkeys(("seconds", "cpu", "memory", "read", "written"), 0.0))
    row["seconds"] += time.monotonic() - start
    row["cpu"] += usage.ru_utime + usage.ru_stime
    row["memory"] = max(row["memory"], usage.ru_maxrss * 1024)
    row["read"] += int(counted["rchar"])
    row["written"] += int(counted["wchar"])


def prepare_config(period: int, shots: int) -> dict:
    """The prepare config of one period."""
    runs = [10 * period + n for n in range(3)]
    selected = {"train": int(shots * 0.5) // 2 * 2, "test": int(shots * 0.1) // 2 * 2}
    seconds = shots / 2 / RATE / 16  # of a block: each run is 16 of them, 12 for training
    return {
        "base": str(ROOT / "configs/prepare/demo.yaml"),
        "name": f"period{period}",
        "source": {"dir": f"xtc/{period}"},
        "runs": {"dark": runs[:1], "classes": {"nolasing": runs[1:2], "lasing": runs[2:]}},
        "select": {**selected, "by": "block", "blocks": {"length": seconds, "guard": seconds / 5}},
        "simulate": {
            "seed": 1000 + period,
            "rate": RATE,
            "shots": {"dark": DARK, "nolasing": shots // 2, "lasing": shots // 2},
        },
    }


def rehearse(folder: Path, periods: int, shots: int, train: str, steps: int) -> dict[str, dict[str, float]]:
    """All stages; returns what each used."""
    used: dict[str, dict[str, float]] = {}
    names = []
    for period in range(1, periods + 1):
        config = f"period{period}.yaml"
        (folder / config).write_text(yaml.safe_dump(prepare_config(period, shots)))
        measured("simulate", ["prepare", "simulate", config], folder, used)
        measured("select", ["prepare", "select", config], folder, used)
        measured("build", ["prepare", "build", config], folder, used)
        data = next(p for p in (f"data/period{period}", f"data/period{period}.h5") if (folder / p).exists())
        measured("verify", ["prepare", "verify", data], folder, used)
        shutil.rmtree(folder / f"xtc/{period}")
        names.append(data)
        print(f"period {period} of {periods}: {data}", flush=True)
    run = {"base": str(ROOT / train), "name": "rehearsal", "data": names[:-1], "steps": steps}
    (folder / "train.yaml").write_text(yaml.safe_dump({**run, "report": False}))
    measured("fit", ["train", "fit", "train.yaml"], folder, used)
    measured("predict", ["train", "predict", "runs/rehearsal", names[-1]], folder, used)
    measured("report", ["train", "report", "runs/rehearsal"], folder, used)
    return used


def table(used: dict[str, dict[str, float]], shots: int) -> list[str]:
    """The stages as lines of text; `shots` is the number of shots that were simulated."""
    rows = []
    for stage in STAGES:
        row = used[stage]
        rows.append(
            {
                "stage": stage,
                "seconds": f"{row['seconds']:.1f}",
                "CPU s": f"{row['cpu']:.1f}",
                "memory MB": f"{row['memory'] / 1e6:.0f}",
                "read GB": f"{row['read'] / 1e9:.2f}",
                "written GB": f"{row['written'] / 1e9:.2f}",
                "CPU ms a shot": f"{row['cpu'] / shots * 1e3:.3f}",
                "CPU h for 10^7": "" if stage == "fit" else f"{row['cpu'] / shots * 1e7 / 3600:.1f}",
            }
        )
    return lines(rows)


def main() -> None:
    """Parse, rehearse, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--periods", type=int, default=6, help="at least 2: the last is the unseen one")
    parser.add_argument("--shots", type=int, default=13_000, help="of a period, half of them lasing")
    parser.add_argument("--train", default="configs/train/demo.yaml", help="the network's config")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path("runs/rehearsal"))
    given = parser.parse_args()
    if given.periods < 2 or given.shots < 600:
        sys.exit("error: 2 periods of 600 shots are the least")
    if given.folder.exists():
        sys.exit(f"error: {given.folder}: exists already; remove it or give another --folder")
    given.folder.mkdir(parents=True)
    used = rehearse(given.folder, given.periods, given.shots, given.train, given.steps)
    shots = given.periods * (given.shots + DARK)
    (given.folder / "rehearsal.json").write_text(
        json.dumps({"shots": shots, "stages": used}, indent=1) + "\n"
    )
    print(f"{shots} shots of full frames")
    print("\n".join(table(used, shots)))


if __name__ == "__main__":
    main()
