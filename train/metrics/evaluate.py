"""The closing numbers of a run, for `fit` and `evaluate`."""

from __future__ import annotations

import os
import resource
from typing import Any, Dict, List

import numpy as np

from train.data.dataset import Data, Split
from train.fit.runtime import Runtime
from train.fit.step import Predictor
from train.metrics import measure


def scores(predictor: Predictor, data: Data) -> Dict[str, Any]:
    """Per split: n, accuracy, its interval, chance, Z, p-value, confusion, and by pulse energy."""
    return {
        name: _of_split(predictor.predict(split), split, data.classes) for name, split in data.splits.items()
    }


def usage(runtime: Runtime) -> Dict[str, Any]:
    """CPU seconds, peak memory (MB, 10^6 bytes) and threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_mb": used.ru_maxrss * 1024 / 1e6,
        "threads": _threads(),
        "intra_op_threads": runtime.intra,
        "inter_op_threads": runtime.inter,
    }


def score_lines(of_splits: Dict[str, Any], classes: List[str]) -> List[str]:
    """`scores` as lines of text."""
    lines = []
    for name, s in of_splits.items():
        score = measure.Score(s["n"], s["correct"], s["chance"])
        lines.append(f"{name:<10} {score}; Z {score.z:.2f}, p {score.p_value:.2g}")
    for name, s in of_splits.items():
        if name == "train":
            continue
        for label, counts in zip(classes, s["confusion"]):
            what = ", ".join(f"{n} called {other}" for n, other in zip(counts, classes))
            lines.append(f"{name:<10} {sum(counts)} {label}: {what}")
        for band in s["by_pulse_energy"]:
            low, high = measure.wilson(band["found"], band["n"])
            share = band["found"] / band["n"]
            lines.append(
                f"{name:<10} {band['n']} {band['name']} {classes[1]} ({band['low']:.4f} to "
                f"{band['high']:.4f} mJ): {share:.2f} [{low:.2f}, {high:.2f}] called {classes[1]}"
            )
        if s["by_pulse_energy"] and s["without_pulse_energy"]:
            lines.append(
                f"{name:<10} {s['without_pulse_energy']} {classes[1]} shots have no gas-detector record"
            )
    return lines


def usage_line(used: Dict[str, Any]) -> str:
    """`usage` as a line of text."""
    return (
        f"CPU time {used['cpu_seconds']:.1f} s, peak memory {used['peak_memory_mb']:.0f} MB, "
        f"{used['threads']} threads ({used['intra_op_threads']} within an operation, "
        f"{used['inter_op_threads']} between operations)"
    )


def _of_split(logits: np.ndarray, split: Split, classes: List[str]) -> Dict[str, Any]:
    predicted = logits.argmax(axis=1)
    score = measure.score(split.labels, predicted)
    bands, unknown = [], 0
    if len(classes) == 2:
        bands, unknown = measure.energy_bands(split.energy, split.labels, predicted, lasing=1)
    return {
        "n": score.n,
        "correct": score.correct,
        "accuracy": score.accuracy,
        "interval": score.interval,
        "chance": score.chance,
        "z": score.z,
        "p_value": score.p_value,
        "confusion": measure.confusion(split.labels, predicted, len(classes)).tolist(),
        "by_pulse_energy": [band._asdict() for band in bands],
        "without_pulse_energy": unknown,
    }


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0
