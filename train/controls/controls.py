"""The controls, one function each, which returns its outcomes (accuracies or correlations)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Callable, Iterator, NamedTuple, Optional, Sequence

import numpy as np
from scipy import stats
from scipy.special import logsumexp

from common.shots import time_in_run
from train.controls import baselines
from train.controls.bench import Bench, scored
from train.controls.choice import Choice
from train.controls.outcome import Called, Outcome
from train.metrics import effective

MOST_FOLDS = 4
FEWEST_PIXELS = 0.01  # share of the picture that must be left for the control on beam-free pixels


class Fold(NamedTuple):
    """Rows of the pool to train on and to test on, and the runs that are only tested on."""

    train: np.ndarray
    test: np.ndarray
    unseen: list[int]


def network(bench: Bench) -> list[Outcome]:
    """The unchanged network; if no run can be left out, also its correlation with the pulse energy."""
    test = Choice(bench.pool, bench.test)
    logits = bench.trained.predict(test)
    rows = [scored(bench, "network", "the network", bench.test, test.labels, logits.argmax(axis=1))]
    return rows if folds(bench) else rows + _correlations(bench, bench.test, logits, "test shots")


def counterfactual(bench: Bench) -> list[Outcome]:
    """The same network on the same test shots with lasing switched, if they exist."""
    if bench.switched is None:
        return []
    split, rows = bench.switched
    predicted = bench.trained.predict(split).argmax(axis=1)
    what = "the network, the same test shots with lasing switched"
    return [scored(bench, "counterfactual", what, rows, split.labels, predicted)]


def permuted(bench: Bench) -> list[Outcome]:
    """The network trained on randomly permuted labels, permuted within each split."""
    rng = np.random.default_rng([bench.config.seed, 1])
    train, test = (
        Choice(bench.pool, rows, rng.permutation(bench.pool.labels[rows]))
        for rows in (bench.train, bench.test)
    )
    predicted = bench.fit_and_try(train, test).argmax(axis=1)
    return [scored(bench, "permuted", "the network, labels permuted", bench.test, test.labels, predicted)]


def beam_free_pixels(bench: Bench) -> list[Outcome]:
    """The network, and a regression on the mean intensities of 16 fields, on beam-free pixels only."""
    kept = int(bench.mask.sum())
    if kept < FEWEST_PIXELS * bench.mask.size:
        return []
    what = f"beam-free pixels alone ({kept} of {bench.mask.size})"
    train, test = (Choice(bench.pool, rows, mask=bench.mask) for rows in (bench.train, bench.test))
    predicted = bench.fit_and_try(train, test).argmax(axis=1)
    return [
        scored(bench, "beam_free", f"the network, {what}", bench.test, test.labels, predicted),
        *_regression(bench, "beam_free_intensity", "their mean intensity", bench.beam_free_intensity),
    ]


def other_runs(bench: Bench) -> list[Outcome]:
    """The network tested on runs that it was not trained on, leaving out one run of each class at a time."""
    return [row for fold in folds(bench) for row in unseen(bench, fold)]


def unseen(bench: Bench, fold: Fold) -> list[Outcome]:
    """The network trained without the fold's runs and tested on them."""
    test = Choice(bench.pool, fold.test)
    logits = bench.fit_and_try(Choice(bench.pool, fold.train), test)
    predicted, runs = logits.argmax(axis=1), ", ".join(map(str, fold.unseen))
    what = f"the network, run {runs} unseen"
    row = dataclasses.replace(
        scored(bench, f"unseen_{runs}", what, fold.test, test.labels, predicted),
        called=tuple(_called(bench, fold.test, predicted)),
    )
    return [row, *_correlations(bench, fold.test, logits, "unseen", fold.unseen)]


def simple(bench: Bench) -> list[Outcome]:
    """Regressions on slices, the energy projection, four moments, the EBeam record, and time."""
    features, pool, chosen = bench.features, bench.pool, bench.chosen
    rows = on_slices(bench) if "slices" in features else []
    rows += _regression(bench, "projection", "energy projection", features["projection"])
    rows += _regression(bench, "moments", "four moments of the image", features["moments"])
    record = baselines.ebeam(pool, chosen)
    if record is not None:
        rows += _regression(bench, "ebeam", "EBeam record alone", record)
    seconds = time_in_run(pool.ids)[chosen]
    rows += _regression(bench, "time", "time within the run alone", baselines.time(seconds))
    # Where runs differ in length, a late shot can only be of the long one: that is no drift.
    run = pool.ids["run"][chosen]
    common = min(seconds[run == of].max() for of in np.unique(run))
    if common < 0.9 * seconds.max():
        what = f"the same, in the {common:.0f} s that all runs have"
        rows += _regression(bench, "time_common", what, baselines.time(seconds), seconds <= common)
    return rows


CONTROLS: dict[str, Callable[[Bench], list[Outcome]]] = {
    "simple": simple,
    "network": network,
    "counterfactual": counterfactual,
    "permuted": permuted,
    "beam_free": beam_free_pixels,
    "other_runs": other_runs,
}


class Part(NamedTuple):
    """The work of one process: controls that share a network, or one fold of `other_runs`."""

    controls: tuple[str, ...]
    fold: Optional[int] = None

    @property
    def trainings(self) -> int:
        """The number of networks it trains."""
        return int(self.controls != ("simple",))


def parts(bench: Bench, names: Sequence[str]) -> list[Part]:
    """The controls `names` divided into parts, in the order in which they start."""
    together = tuple(name for name in ("network", "counterfactual") if name in names)
    others = [Part((name,)) for name in names if name not in (*together, "other_runs")]
    unseen_runs = [Part(("other_runs",), k) for k in range(len(folds(bench)) if "other_runs" in names else 0)]
    return [*([Part(together)] if together else []), *unseen_runs, *others]


def outcomes(bench: Bench, part: Part) -> dict[str, list[Outcome]]:
    """Run the controls of a part: {name: outcomes}."""
    if part.fold is not None:
        return {"other_runs": unseen(bench, folds(bench)[part.fold])}
    return {name: CONTROLS[name](bench) for name in part.controls}


def folds(bench: Bench) -> list[Fold]:
    """Folds that leave out one run of each class; a class with a single run is split by blocks of time.

    If a class has more than 4 runs, several are left out at a time. Of a run that is split by blocks, shots
    in the guard gap at the start of a block are not used. Empty if each class has one run.
    """
    ids, labels = bench.pool.ids, bench.pool.labels
    runs = {label: np.unique(ids["run"][labels == label]) for label in np.unique(labels)}
    count = min(max(map(len, runs.values())), MOST_FOLDS)
    if count == 1:
        return []
    found = []
    number, guard = bench.data.blocks.number(ids), bench.data.blocks.in_guard(ids)
    for k in range(count):
        test, unused, unseen = np.zeros(len(ids), bool), np.zeros(len(ids), bool), []
        for label, of_class in runs.items():
            if len(of_class) == 1:
                mine = ids["run"] == of_class[0]
                test |= mine & (number % count == k)
                unused |= mine & guard
            else:
                left_out = of_class[k::count] if k < len(of_class) else of_class[k % len(of_class)][None]
                test |= np.isin(ids["run"], left_out) & (labels == label)
                unseen += left_out.tolist()
        found.append(Fold(np.flatnonzero(~test & ~unused), np.flatnonzero(test & ~unused), unseen))
    return [fold for fold in found if len(np.unique(labels[fold.train])) > 1 and len(fold.test)]


def _regression(
    bench: Bench, name: str, what: str, features: np.ndarray, only: Optional[np.ndarray] = None
) -> list[Outcome]:
    """A regression on `features` of the chosen shots, (n, features), or of those in `only`, (n,) bool."""
    chosen = bench.chosen
    labels, block = bench.pool.labels[chosen], bench.block[chosen]
    train, test = _splits(bench, np.ones(len(chosen), bool) if only is None else only)
    if len(np.unique(labels[train])) < 2 or not len(test):
        return []
    predicted = baselines.predict(features, labels, block, train, test)
    return [scored(bench, name, f"logistic regression, {what}", chosen[test], labels[test], predicted)]


def _splits(bench: Bench, only: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the chosen shots belong to the splits train and test, among those in `only`, (n,) bool."""
    of_train = bench.pool.split[bench.chosen] == "train"
    return np.flatnonzero(only & of_train), np.flatnonzero(only & ~of_train)


def on_slices(bench: Bench) -> list[Outcome]:
    """Regressions of class and pulse energy on slices, the domain's own reading of the pictures."""
    features = bench.features["slices"]
    energy, block = bench.pool.energy[bench.chosen], bench.block[bench.chosen]
    _, test = _splits(bench, np.ones(len(features), bool))
    read = int(np.isfinite(features[test]).any(axis=1).sum())
    if not read:
        return []
    where = f"mean energy and spread of slices ({read} of {len(test)} read)"
    rows = _regression(bench, "slices", where, features)
    train, test = _splits(bench, np.isfinite(energy))
    if len(train) > 1 and len(test) > 1 and np.ptp(energy[test]) > 0:
        pair = energy[test], baselines.estimate(features, energy, train, test)
        what = "ridge regression on slices, pulse energy, R²"
        rows.append(_bootstrapped(bench, "slices_energy", what, "r2", _explained_share, pair, block[test]))
    return rows


def _bootstrapped(
    bench: Bench,
    control: str,
    what: str,
    kind: str,
    statistic: Callable[[np.ndarray, np.ndarray, np.ndarray], float],
    pair: tuple[np.ndarray, np.ndarray],
    block: np.ndarray,
    class_name: str = "",
) -> Outcome:
    """The outcome `statistic(*pair, rows)` of all rows, its interval by blocks of time. block: (n,)."""
    of, n, blocks = functools.partial(statistic, *pair), len(block), len(np.unique(block))
    interval = effective.bootstrap(of, block, bench.config.seed)
    return Outcome(control, what, kind, n, of(np.arange(n)), blocks, interval, class_name=class_name)


def _explained_share(truth: np.ndarray, estimate: np.ndarray, rows: np.ndarray) -> float:
    """R² of `rows`: 1 - squared errors / squared distances from the mean; 0 if all are equal."""
    around = ((truth[rows] - truth[rows].mean()) ** 2).sum()
    return float(1 - ((truth[rows] - estimate[rows]) ** 2).sum() / around) if around else 0.0


def _called(bench: Bench, rows: np.ndarray, predicted: np.ndarray) -> Iterator[Called]:
    """How many shots of each run among the pool's `rows` are called each class but the first."""
    runs = bench.pool.ids["run"][rows]
    for label, name in list(enumerate(bench.data.classes))[1:]:
        for run in np.unique(runs):
            of_run = runs == run
            share = effective.share(predicted == label, bench.block[rows], rows=of_run)
            yield Called(int(run), name, share.n, share.k, share.interval)


def _correlations(
    bench: Bench, rows: np.ndarray, logits: np.ndarray, of: str, runs: Optional[list[int]] = None
) -> list[Outcome]:
    """Spearman's correlation of p(class) with pulse energy, for each run of each class but the first.

    Intervals are by blocks of time. Ranks are those of the log odds, which do not saturate as the
    probability does.
    """
    energy, block = bench.pool.energy[rows], bench.block[rows]
    found = []
    for label, name in list(enumerate(bench.data.classes))[1:]:
        odds = logits[:, label] - logsumexp(np.delete(logits, label, axis=1), axis=1)
        for run, of_run in _runs_of(label, bench.pool.ids[rows], bench.pool.labels[rows], energy):
            if runs is not None and run not in runs:
                continue
            pair = odds[of_run], energy[of_run]
            control = f"energy_{run}" if len(bench.data.classes) == 2 else f"energy_{name}_{run}"
            what = f"p({name}) against pulse energy, run {run}, {of}"
            found.append(_bootstrapped(bench, control, what, "correlation", _rank, pair, block[of_run], name))
    return found


def _rank(a: np.ndarray, b: np.ndarray, rows: np.ndarray) -> float:
    """Spearman's rank correlation of `rows`; 0 if one of the two is constant."""
    if not np.ptp(a[rows]) or not np.ptp(b[rows]):
        return 0.0
    return float(np.corrcoef(stats.rankdata(a[rows]), stats.rankdata(b[rows]))[0, 1])


def _runs_of(
    label: int, ids: np.ndarray, labels: np.ndarray, energy: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Each run of a class, and its rows with a known pulse energy, if there are at least 10."""
    for run in np.unique(ids["run"][labels == label]):
        rows = np.flatnonzero((ids["run"] == run) & (labels == label) & np.isfinite(energy))
        if len(rows) >= 10 and np.ptp(energy[rows]) > 0:
            yield int(run), rows
