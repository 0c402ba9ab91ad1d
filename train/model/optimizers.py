"""Optimizers by the config's names."""

from __future__ import annotations

import keras

from train.config import Optimizer


@keras.saving.register_keras_serializable("xtcav_lasing")
class Momentum(keras.optimizers.Optimizer):
    """m = momentum * m + g; w = w - rate * m, or with nesterov w = w - rate * (g + momentum * m).

    This is tf.train.MomentumOptimizer, which the 2016 study used. Keras' own SGD puts the rate inside,
    m = momentum * m - rate * g, which is another trajectory as soon as the rate changes.
    """

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.4, nesterov: bool = False, **kwargs):
        super().__init__(learning_rate=learning_rate, **{"name": "momentum", **kwargs})
        self.momentum, self.nesterov = momentum, nesterov

    def build(self, variables) -> None:
        if self.built:
            return
        super().build(variables)
        self.accumulators = self.add_optimizer_variables(variables, "accumulator")

    def update_step(self, gradient, variable, learning_rate) -> None:
        m = self.accumulators[self._get_variable_index(variable)]
        rate = keras.ops.cast(learning_rate, variable.dtype)
        self.assign(m, self.momentum * m + gradient)
        self.assign_sub(variable, rate * (gradient + self.momentum * m if self.nesterov else m))

    def get_config(self) -> dict:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


def build(settings: Optimizer, rate: float) -> keras.optimizers.Optimizer:
    """The optimizer that the config describes, at learning rate `rate`."""
    if settings.kind == "adam":
        return keras.optimizers.Adam(rate, settings.beta_1, settings.beta_2, settings.epsilon)
    if settings.kind == "adamw":
        return keras.optimizers.AdamW(
            rate, settings.weight_decay, settings.beta_1, settings.beta_2, settings.epsilon
        )
    if settings.kind == "sgd":
        return keras.optimizers.SGD(rate)
    return Momentum(rate, settings.momentum, settings.nesterov)
