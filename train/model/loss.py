"""What training makes smaller: how wrong the classes and the pulse energies of a minibatch are."""

from __future__ import annotations

from typing import NamedTuple, Optional, Union

import tensorflow as tf

from train.model.network import ENERGY, ENERGY_UNIT, LOGITS


class Loss(NamedTuple):
    """lasing_weight: how many times a shot counts that is of another class than the first.

    energy_floor: mJ; such shots with less do not count. energy_huber: mJ; errors of the energy beyond it
    count linearly (Huber 1964), None: as their square.
    """

    lasing_weight: float = 1.0
    energy_floor: Optional[float] = None
    energy_huber: Optional[float] = None

    def of(
        self, outputs: Union[tf.Tensor, dict[str, tf.Tensor]], labels: tf.Tensor, energy: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean weighted cross entropy, and mean squared error of the energies in ENERGY_UNIT^2: scalars.

        outputs: of the model, logits (n, classes) or a dict of them and of energies (n, 1); labels: (n,)
        int64; energy: (n,) float32, mJ, NaN where unknown, which is no error.
        """
        if not isinstance(outputs, dict):
            return self._of_classes(outputs, labels, energy), tf.zeros(())
        return self._of_classes(outputs[LOGITS], labels, energy), self._of_energy(outputs[ENERGY], energy)

    def _of_classes(self, logits: tf.Tensor, labels: tf.Tensor, energy: tf.Tensor) -> tf.Tensor:
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        if self.lasing_weight != 1.0:
            each = tf.where(labels > 0, self.lasing_weight * each, each)
        if self.energy_floor is not None:
            each = tf.where((labels > 0) & (energy < self.energy_floor), 0.0, each)
        return tf.reduce_mean(each)

    def _of_energy(self, told: tf.Tensor, energy: tf.Tensor) -> tf.Tensor:
        known = tf.math.is_finite(energy)
        error = tf.where(known, told[:, 0] - tf.where(known, energy, 0.0) / ENERGY_UNIT, 0.0)
        if self.energy_huber is None:
            return tf.reduce_mean(error**2)
        near = tf.minimum(tf.abs(error), self.energy_huber / ENERGY_UNIT)
        return tf.reduce_mean(near * (2 * tf.abs(error) - near))
