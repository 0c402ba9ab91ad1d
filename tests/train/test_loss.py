"""What a minibatch's loss is, against the formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from train.model.loss import Loss
from train.model.network import ENERGY, ENERGY_UNIT, LOGITS

LABELS = np.array([0, 1, 2, 1, 0, 2])
ENERGIES = np.array([0.003, 0.004, 0.050, 0.020, np.nan, np.nan], np.float32)  # mJ


@pytest.fixture
def outputs() -> dict[str, np.ndarray]:
    told = ENERGIES / ENERGY_UNIT + np.array([0.1, -0.7, 2.0, -0.4, 0.0, 0.0])
    logits = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    return {LOGITS: logits, ENERGY: np.nan_to_num(told, nan=9.0).astype(np.float32)[:, None]}


def of(loss: Loss, outputs) -> list[float]:
    return [float(part) for part in loss.of(outputs, LABELS, ENERGIES)]


@pytest.mark.parametrize(
    "loss, counts",
    [
        (Loss(), [1, 1, 1, 1, 1, 1]),
        (Loss(lasing_weight=3), [1, 3, 3, 3, 1, 3]),
        (Loss(energy_floor=0.005), [1, 0, 1, 1, 1, 1]),  # a shot whose energy is unknown counts
        (Loss(lasing_weight=0.5, energy_floor=0.02), [1, 0, 0.5, 0.5, 1, 0.5]),
    ],
)
def test_shots_count_in_the_cross_entropy_as_the_config_says(outputs, loss, counts):
    each = -log_softmax(outputs[LOGITS], axis=1)[np.arange(6), LABELS]
    for given in (outputs, outputs[LOGITS]):
        assert of(loss, given)[0] == pytest.approx((each * counts).mean(), rel=1e-5)
    assert of(loss, outputs[LOGITS])[1] == 0


def test_errors_of_the_energy_beyond_a_limit_count_linearly(outputs):
    error = np.array([0.1, 0.7, 2.0, 0.4])
    assert of(Loss(), outputs)[1] == pytest.approx((error**2).sum() / 6, rel=1e-4)
    far = 0.5  # in units of 0.02 mJ
    expected = np.where(error < far, error**2, 2 * far * error - far**2).sum() / 6
    assert of(Loss(energy_huber=far * ENERGY_UNIT), outputs)[1] == pytest.approx(expected, rel=1e-4)
