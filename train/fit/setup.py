"""What a training starts from: its model, optimizer and images; and a training that is no run, in memory."""

from __future__ import annotations

import contextlib
from typing import Callable

from common.errors import DataError
from common.ranks import Ranks
from train.config import TrainConfig
from train.data.dataset import Data
from train.data.minibatches import Samples
from train.data.order import Position
from train.data.prepared import Prepared
from train.fit.step import Stepper
from train.fit.watch import not_finite
from train.model import network, optimizers
from train.model.loss import Loss
from train.model.predictor import Predictor


def stepper_of(config: TrainConfig, data: Data, ranks: Ranks, resumed: bool = False) -> Stepper:
    """Model and optimizer of `config`, the same on all ranks; preprocessing is adapted to the train split.

    resumed: a checkpoint will say what training works on, so the train split is not read for that.
    """
    optimizer = optimizers.build(config.optimizer, config.learning_rate.start)
    train = data.splits["train"]
    # The numbers of the train split come from rank 0. Those of what precedes `augment` are in no checkpoint.
    adapted = ranks.first and (not resumed or bool(config.augment))
    model = network.of_config(config, len(data.classes), (lambda: train.batches(32)) if adapted else None)
    if ranks.size > 1:
        model.set_weights(ranks.from_first(model.get_weights()))
    return Stepper(
        model,
        optimizer,
        config.microbatch,
        config.optimizer.clip_norm,
        config.augment,
        config.seed,
        ranks,
        Loss(config.lasing_weight, config.energy_floor, config.energy_huber),
    )


def prepared(config: TrainConfig, stepper: Stepper, samples: Samples) -> Samples:
    """`samples` with the images that the stepper takes."""
    if not config.augment:
        return samples
    fixed = Predictor(stepper.whole.get_layer(network.FIXED))
    return Prepared(
        samples,
        fixed.images,
        fixed.model.output_shape[1:3],
        stream=config.cache == "stream",
        processes=stepper.ranks.place.size,
    )


def train_only(config: TrainConfig, data: Data, tick: Callable[[], None]) -> Predictor:
    """The network after all of the config's steps on `data`: no table, no files; `tick` after each step."""
    stepper = stepper_of(config, data, Ranks())
    train = prepared(config, stepper, data.splits["train"])
    with contextlib.closing(train.minibatches(config.minibatch, config.seed, Position(0, 0))) as batches:
        for step, batch in zip(range(1, config.steps + 1), batches):
            rate = config.learning_rate.at(step)
            result = stepper.step(batch.images, batch.labels, rate, step, batch.energy)
            if not result.is_finite:
                raise DataError(not_finite(step, result.loss, result.gradient_norm, rate))
            tick()
    return Predictor(stepper.whole)
