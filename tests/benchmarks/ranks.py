"""A training step on several ranks, measured on this machine and by a model that is drawn to 64 ranks.

    python -m tests.benchmarks.ranks                    # one thread a rank, of 1, 2 and 4 ranks

    step(N) = fixed + image * M / N + exchange(N) + row / N / steps between rows
    exchange(N) = sum over what is summed: 2 (N - 1) * latency + 2 * bytes * (N - 1) / N / bandwidth

for a minibatch of M images, as each rank computes its share, sends its parts of the gradient to the N - 1
others and receives theirs, twice (`Ranks.sum`), and predicts its share of what a row judges. For one rank
`fixed` and `image` are fitted to its steps with M, M / 2 and M / 4 images; for more, to those of 2 ranks with
M / 2 and M / 4, as several ranks compute moments in more operations than one. The latency is
that of a sum of few numbers on N ranks, and the bandwidth that of the difference between sums of half and of
twice as many numbers as the gradient has, so that it is of messages of its size (53 kB stay in a cache, 3.6
MB do not); what a step itself exchanges, moments of batch normalization included, is not in the fit. What
ranks compute is measured, and modeled, in processor time, so that each counts as if it had a core: 4 ranks
on 2 cores, or beside other work, take turns. What they exchange is measured by the clock, the least of many
turns. With `--latency` and `--bandwidth` a cluster is drawn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import numpy as np

from common.ranks import Ranks, started
from common.text_table import lines

NETWORKS = {"first_scale_up": 80, "recommended": 40, "signal_noise_1000": 16}  # config: minibatch
PREDICTED = 40  # images in which the time of a row is measured
SECONDS = 2.0  # of the turns of which the least counts
JUDGED, EVERY = 160, 20  # shots of a row and steps between rows, as `train.fit.judged` says of large data
MPIRUN = Path(sys.executable).with_name("mpirun")
MEASURED, DRAWN = (1, 2, 4), (1, 2, 4, 8, 16, 32, 64)


def least_time(
    what: Callable[[], Any], ranks: Ranks, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The least seconds, by `clock`, of what all ranks do together, of as many turns as SECONDS have."""
    times: list[float] = []
    turns = 2
    while len(times) < turns:
        ranks.greatest(0)  # all begin together
        begun, start = time.perf_counter(), clock()
        what()
        times.append(clock() - start)
        if len(times) == 2:  # the first one traces the graph
            took = time.perf_counter() - begun
            turns = 2 + max(3, ranks.greatest(min(500, int(SECONDS / took))))
    return min(times[1:])


def measure(name: str, minibatch: int, ranks: Ranks) -> dict[str, Any]:
    """Seconds of steps, exchanges and a row on these ranks."""
    from tests.benchmarks.steps import Held, batch, stepper

    runner = stepper(name, ranks=ranks)
    shape, n = runner.model.input_shape[1:3], int(runner.gradient.shape[0])
    images, _ = batch(shape, max(minibatch, PREDICTED))
    add, sums, apart = ranks.sum, [], [0.0]  # how many numbers each sum of a step has; seconds in sums

    def noted(values: np.ndarray) -> np.ndarray:
        sums.append(len(values))
        start = time.process_time()
        summed = add(values)
        apart[0] += time.process_time() - start
        return summed

    def step(m: int) -> float:
        labels, mine = np.arange(m) % 2, images[: len(range(m)[ranks.minibatch_part(m)])]
        ranks.sum = noted
        seconds = least_time(
            lambda: runner.step(mine, labels, 1e-6), ranks, lambda: time.process_time() - apart[0]
        )
        sums.clear()
        runner.step(mine, labels, 1e-6)
        ranks.sum = add
        return seconds

    def exchange(sizes: Sequence[int]) -> float:
        arrays = [np.ones(k, np.float32) for k in sizes]
        return least_time(lambda: [ranks.sum(values) for values in arrays], ranks)

    held = Held(images[: PREDICTED // ranks.size])
    sizes = (minibatch, minibatch // 2, minibatch // 4) if ranks.size < 4 else (minibatch,)
    steps = {m: step(m) for m in sizes}
    return {
        "variables": n,
        "sums": sums,
        "steps": steps,
        "row": least_time(lambda: runner.outputs(held), ranks, time.process_time)
        * (JUDGED * ranks.size / PREDICTED),
        "exchange": exchange(sums),
        "exchanges": {k: exchange([k]) for k in (ranks.size, n // 2, 2 * n)},
    }


def fitted(found: dict[str, Any], size: int) -> tuple[float, float]:
    """Seconds of a step that do not grow with a rank's images, and of each image, of `size` ranks' steps.

    Of several ranks the step with the whole minibatch is not in the fit.
    """
    steps = list(found["steps"].items())[size > 1 :]
    images, seconds = zip(*((int(m) / size, s) for m, s in steps))
    image, fixed = np.polyfit(images, seconds, 1)
    return max(float(fixed), 0.0), float(image)


def line_of(found: dict[str, Any], size: int) -> tuple[float, float]:
    """Latency, s, and bandwidth, bytes/s, of `size` ranks from other exchanges than those of a step."""
    n, seconds = found["variables"], {int(k): s for k, s in found["exchanges"].items()}
    moved = 2 * 4 * (2 * n - n // 2) * (size - 1) / size
    return seconds[size] / (2 * (size - 1)), moved / max(seconds[2 * n] - seconds[n // 2], 1e-9)


def exchange_of(n: int, size: int, latency: float, bandwidth: float) -> float:
    """The model's seconds of an exchange of `n` float32 among `size` ranks."""
    return 2 * (size - 1) * latency + 2 * 4 * n * (size - 1) / size / bandwidth


def model(
    found: dict[int, dict[str, Any]], minibatch: int, size: int, way: tuple[float, float]
) -> tuple[float, float]:
    """The model's seconds of a step and its share of a row, and of what it exchanges.

    found: what is measured on 1 and on 2 ranks; way: latency and bandwidth.
    """
    several = found[min(size, 2)]
    fixed, image = fitted(several, min(size, 2))
    exchanged = sum(exchange_of(n, size, *way) for n in several["sums"]) if size > 1 else 0.0
    row = found[1]["row"] / size / EVERY
    return fixed + image * minibatch / size + exchanged + row, exchanged


def children(name: str) -> dict[int, dict[str, Any]]:
    """What `measure` finds on each number of MEASURED ranks."""
    found = {}
    for size in MEASURED:
        command = [str(MPIRUN), "-n", str(size), sys.executable, "-m", __spec__.name, "--child", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[size] = json.loads(done.stdout.splitlines()[-1])
    return found


def tell(name: str, minibatch: int, way: Optional[tuple[float, float]]) -> None:
    """Measure a network on this machine, and print what is measured, what the model says, and to 64 ranks."""
    found = children(name)
    one = found[1]
    fixed, image = fitted(one, 1)
    print(
        f"\n{name}: {one['variables']} variables, {minibatch} images; a step {fixed * 1e3:.1f} ms and "
        f"{image * 1e3:.2f} ms an image, a row of {JUDGED} shots {one['row'] * 1e3:.0f} ms"
    )
    ways = {size: line_of(of, size) for size, of in found.items() if size > 1}
    rows = []
    for size, of in found.items():
        said, exchanged = model(found, minibatch, size, ways.get(size, (0.0, 1.0)))
        step = of["steps"][str(minibatch)] + of["exchange"] + of["row"] / size / EVERY
        row = {"ranks": size, "measured ms": f"{step * 1e3:.1f}", "model ms": f"{said * 1e3:.1f}"}
        row["model / measured"] = f"{said / step:.2f}"
        if size > 1:
            real, (latency, bandwidth) = of["exchange"], ways[size]
            row.update({"exchange ms": f"{real * 1e3:.3f}", "by the model": f"{exchanged * 1e3:.3f}"})
            row.update({"latency us": f"{latency * 1e6:.1f}", "GB/s": f"{bandwidth / 1e9:.2f}"})
            row["exchange, of a step"] = f"{real / step:.2%}"
        rows.append(row)
    names = list(rows[-1])
    print("\n".join(lines([{key: row.get(key, "") for key in names} for row in rows])))
    drawn = []
    for size in DRAWN:
        step, exchanged = model(found, minibatch, size, way or ways[2])
        fast = model(found, minibatch, 1, (0.0, 1.0))[0] / step
        drawn.append(
            {
                "ranks": size,
                "ms a step": f"{step * 1e3:.2f}",
                "times as fast": f"{fast:.1f}",
                "exchange": f"{exchanged / step:.1%}",
            }
        )
    print("\n".join(lines(drawn)), flush=True)


def main() -> None:
    """Measure each network on 1, 2 and 4 ranks; `--child` is one of those ranks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--child", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--latency", type=float, help="s of one message")
    parser.add_argument("--bandwidth", type=float, help="bytes/s of one rank")
    given = parser.parse_args()
    if given.child is None:
        way = (given.latency, given.bandwidth) if given.latency and given.bandwidth else None
        for name in given.networks:
            tell(name, NETWORKS[name], way)
        return
    with started() as ranks:
        found = measure(given.child, NETWORKS[given.child], ranks)
        if ranks.first:
            print(json.dumps(found))


if __name__ == "__main__":
    main()
