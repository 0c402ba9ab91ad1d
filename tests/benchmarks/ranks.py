"""What the ranks of a training exchange each step, and a model of the step on more of them.

    for n in 1 2 4; do mpirun -n $n python -m tests.benchmarks.ranks; done

Prints, for gradients of the 2016 network (13,234 variables) and of signal_noise_1000 (905,912), the
median time of a sum over the ranks; and what a step of given time on one rank comes to on N:

    step(N) = step(1) / N + latency * 2 (N - 1) + 2 * bytes * (N - 1) / N / bandwidth

since each rank sends its parts to the N - 1 others and receives theirs, twice. Latency and bandwidth are
those measured with these ranks on this machine; a cluster's are given with --latency and --bandwidth.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from common.ranks import Ranks, started

SIZES = {"2016 network": 13_234, "signal_noise_1000": 905_912}
STEPS = {"2016 network": 0.33, "signal_noise_1000": 3.2}  # s on one core, 80 and 16 images
TURNS = 201


def exchange(ranks: Ranks, n: int) -> float:
    """Median seconds of a sum of `n` float32 over the ranks."""
    values, times = np.ones(n, np.float32), []
    for _ in range(TURNS):
        ranks.greatest(0)  # all begin together
        start = time.perf_counter()
        ranks.sum(values)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure with the ranks that were started, and print on the first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--latency", type=float, help="s of one message")
    parser.add_argument("--bandwidth", type=float, help="bytes/s of one rank")
    given = parser.parse_args()
    with started() as ranks:
        small = exchange(ranks, ranks.size)
        found = {name: exchange(ranks, n) for name, n in SIZES.items()}
        if not ranks.first:
            return
        others = ranks.size - 1
        for name, seconds in found.items():
            share = seconds / (STEPS[name] / ranks.size + seconds)
            print(
                f"{ranks.size} ranks, {name}: {seconds * 1e3:.3f} ms an exchange, {share:.2%} of a step "
                f"of {STEPS[name] / ranks.size:.2f} s"
            )
        if not others:
            return
        latency = given.latency or small / (2 * others)
        large = 2 * 4 * SIZES["signal_noise_1000"] * others / ranks.size
        bandwidth = given.bandwidth or large / max(found["signal_noise_1000"] - small, 1e-9)
        print(f"latency {latency * 1e6:.1f} us, bandwidth {bandwidth / 1e9:.2f} GB/s")
        for name, n in SIZES.items():
            for size in (1, 2, 4, 8, 16, 32, 64):
                talk = latency * 2 * (size - 1) + 2 * 4 * n * (size - 1) / size / bandwidth
                step = STEPS[name] / size + talk
                print(
                    f"  {name}, {size:2d} ranks: {step * 1e3:8.2f} ms a step, "
                    f"{STEPS[name] / step:5.1f} times as fast, {talk / step:.1%} exchange"
                )


if __name__ == "__main__":
    main()
