"""Baselines: logistic regressions on a few numbers computed from each shot."""

from __future__ import annotations

from typing import Iterator, Optional

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.dataset.view import View
from common.shots import EBEAM_UNITS
from train.controls.choice import Pool

_STRENGTHS = [1e-3, 1e-2, 1e-1, 1.0, 10.0]  # C: inverse of the L2 penalty
_PENALTIES = [1e-1, 1.0, 10.0, 100.0]
_FOLDS = 4
_NOISE = 0.05  # of an image's brightest pixel: under it, pixels do not count for its moments


def projection(images: np.ndarray, view: View) -> np.ndarray:
    """The energy spectrum: the mean over time. (n, h, w) -> (n, energies) float64."""
    return images.mean(axis=1 if view.transposed else 2, dtype=np.float64)


def moments(images: np.ndarray, view: View) -> np.ndarray:
    """Center and rms width of the light in time and in energy, pixels. (n, h, w) -> (n, 4) float64."""
    light = np.expm1(images) if view.log else images
    light = np.where(light > _NOISE * light.max(axis=(1, 2), keepdims=True), light, 0)
    found = []
    for axis in (1, 2):
        profile = light.sum(axis=3 - axis, dtype=np.float64)
        weight = profile / np.maximum(profile.sum(axis=1, keepdims=True), 1e-12)
        at = np.arange(profile.shape[1])
        center = weight @ at
        width = np.sqrt((weight * (at - center[:, None]) ** 2).sum(axis=1))
        found += [center, width]
    return np.stack(found, axis=1)


def ebeam(pool: Pool, rows: np.ndarray) -> Optional[np.ndarray]:
    """The fields of the EBeam record that vary, (n, fields) float64; None if there are none."""
    fields = np.stack([pool.record(f"ebeam/{name}")[rows] for name in EBEAM_UNITS], axis=1)
    known = np.isfinite(fields)
    fields = np.where(known, fields, np.nan)
    varies = [known[:, k].any() and np.ptp(fields[known[:, k], k]) > 0 for k in range(fields.shape[1])]
    return fields[:, varies] if any(varies) else None


def time(seconds: np.ndarray) -> np.ndarray:
    """Time within the run and its square, (n, 2)."""
    return np.stack([seconds, seconds**2], axis=1)


def predict(
    features: np.ndarray, labels: np.ndarray, block: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Predict the labels of the rows `test` by a logistic regression trained on the rows `train`.

    features: (n, features) float64; labels, block: (n,). Features are scaled by the train rows; the penalty
    is chosen by cross-validation within them, by blocks of time.
    """
    model = make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(max_iter=2000)
    )
    folds = _folds(labels[train], block[train])
    if folds:
        model = GridSearchCV(model, {"logisticregression__C": _STRENGTHS}, cv=folds)
    model.fit(features[train], labels[train])
    return model.predict(features[test])


def estimate(features: np.ndarray, target: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predict `target`, (n,), of the rows `test` by a ridge regression; features as in `predict`."""
    model = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), RidgeCV(_PENALTIES))
    return model.fit(features[train], target[train]).predict(features[test])


def _folds(labels: np.ndarray, block: np.ndarray) -> list:
    """Pairs of rows to fit and to validate on, by blocks of time; none if there are too few blocks."""
    if len(np.unique(block)) < _FOLDS:
        return []
    pairs: Iterator = GroupKFold(_FOLDS).split(labels, labels, block)
    return [(fit, held) for fit, held in pairs if len(np.unique(labels[fit])) > 1]
