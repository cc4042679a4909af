"""Several devices: two logical CPUs, as toy.py and test_keras.py set them up."""

import keras
import numpy as np
import pytest
import toy
from pymultigrid.keras import MultigridCallback, SubBatchNormalization
from toy import BACKEND, Record, compiled, fit, level_model, network, number

from pymultigrid import Cycles, Schedule, Shape

SCHEDULE = Schedule(Shape(8, 4, 16, 16), samples=toy.VIDEOS, epochs=12, plan=Cycles(cycles=1), processes=2)
SCALES = [step.lr_scale for step in SCHEDULE]
CLOSE = {"rtol": 1e-3, "atol": 1e-5}


class Splits(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(self.model.layers[1].splits)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
@pytest.mark.parametrize("policy", [False, True])
def test_mirrored_strategy(policy):
    import tensorflow as tf

    lr = keras.optimizers.schedules.CosineDecay(0.1, 10_000) if policy else 0.1
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == SCHEDULE.processes
    with strategy.scope():
        model = level_model(lr)
    record, scales = Record(), np.array(SCALES)
    fit(model, MultigridCallback(SCHEDULE), record, epochs=2)
    # Each replica has the per-process shape.
    assert record.shapes == [tuple(step.shape) for step in SCHEDULE]
    np.testing.assert_allclose(record.lrs, 0.1 * scales, rtol=1e-4)
    assert number(model.optimizer.iterations) == len(SCHEDULE)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
def test_sub_batches_under_a_mirrored_strategy():
    import tensorflow as tf

    # On CPUs TensorFlow 2.21 refuses collectives of other shapes than those of an earlier model in the process.
    reduce = tf.distribute.ReductionToOneDevice()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=reduce).scope():
        model = SubBatchNormalization.convert(compiled(network()))
    splits = Splits()
    fit(model, MultigridCallback(SCHEDULE[:6]), splits, epochs=1, steps_per_epoch=6)
    assert splits.seen == [max(1, step.base.b // 8) for step in SCHEDULE[:6]]  # a replica sees its own clips
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is JAX's")
def test_data_parallel():
    steps = SCHEDULE[:6]
    plain = SubBatchNormalization.convert(compiled(network()))
    fit(plain, MultigridCallback(steps, base=4), epochs=1, steps_per_epoch=6)
    devices = keras.distribution.list_devices("cpu")
    assert len(devices) == SCHEDULE.processes
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        model, splits = SubBatchNormalization.convert(compiled(network())), Splits()
        fit(model, MultigridCallback(steps), splits, epochs=1, steps_per_epoch=6)
        # The layer sees the global batch: as many sub-batches as both devices together.
        assert splits.seen == [2 * max(1, step.base.b // 8) for step in steps]
        for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)
    finally:
        keras.distribution.set_distribution(None)
