"""What the ranks of a training exchange each step, and a model of the step on more of them.

    for n in 1 2 4; do mpirun -n $n python -m tests.benchmarks.ranks; done

Prints, for gradients of the 2016 network (13,234 variables) and of signal_noise_1000 (905,912), the
median time of a sum over the ranks; and what a step of given time on one rank comes to on N:

    step(N) = step(1) / N + exchange(N) + evaluation(1) / N / steps to the next row of the table
    exchange(N) = latency * 2 (N - 1) + 2 * bytes * (N - 1) / N / bandwidth

since each rank sends its parts to the N - 1 others and receives theirs, twice, and predicts its share of
the shots that a row judges. Latency and bandwidth are those measured with these ranks on this machine, by a
sum of N numbers and by one of 905,912; the sum of 13,234, measured by itself, says how well the model holds.
A cluster's are given with --latency and --bandwidth.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from common.ranks import Ranks, started

SIZES = {"2016 network": 13_234, "signal_noise_1000": 905_912}
STEPS = {"2016 network": 0.33, "signal_noise_1000": 3.2}  # s on one core, 80 and 16 images
EVALUATION = {"2016 network": 2000 / 644, "signal_noise_1000": 2000 * 0.82 / 16}  # s a row, on one core
TABLE_EVERY = 5  # steps, as a config says that says nothing
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
        for name, seconds in found.items():
            share = seconds / (STEPS[name] / ranks.size + seconds)
            print(
                f"{ranks.size} ranks, {name}: {seconds * 1e3:.3f} ms an exchange, {share:.2%} of a step "
                f"of {STEPS[name] / ranks.size:.2f} s"
            )
        others = ranks.size - 1
        if not others:
            return
        latency = given.latency or small / (2 * others)
        large = 2 * 4 * SIZES["signal_noise_1000"] * others / ranks.size
        bandwidth = given.bandwidth or large / max(found["signal_noise_1000"] - small, 1e-9)

        def exchange_of(n: int, size: int) -> float:
            return latency * 2 * (size - 1) + 2 * 4 * n * (size - 1) / size / bandwidth

        between = exchange_of(SIZES["2016 network"], ranks.size)
        print(
            f"latency {latency * 1e6:.1f} us, bandwidth {bandwidth / 1e9:.2f} GB/s; by them an exchange of "
            f"13,234 takes {between * 1e3:.3f} ms"
        )
        for name, n in SIZES.items():
            once = STEPS[name] + EVALUATION[name] / TABLE_EVERY
            for size in (1, 2, 4, 8, 16, 32, 64):
                step = once / size + exchange_of(n, size)
                print(
                    f"  {name}, {size:2d} ranks: {step * 1e3:8.2f} ms a step and its share of a row, "
                    f"{once / step:5.1f} times as fast, {exchange_of(n, size) / step:.1%} exchange"
                )


if __name__ == "__main__":
    main()
