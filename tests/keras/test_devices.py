"""Several devices: two logical CPUs, as toy.py and test_keras.py set them up."""

import keras
import numpy as np
import pytest
import toy
from toy import BACKEND, Record, compiled, fit, level_model, network, number, split_network

from pymultigrid import Cycles, Schedule, Shape, mini_batch
from pymultigrid.keras import MultigridCallback, SubBatchNormalization

SCHEDULE = Schedule(Shape(8, 4, 16, 16), samples=toy.VIDEOS, epochs=12, plan=Cycles(cycles=1), processes=2)
SCALES = [step.lr_scale for step in SCHEDULE]
CLOSE = {"rtol": 1e-3, "atol": 1e-5}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
@pytest.mark.parametrize("policy", [False, True])
def test_mirrored_strategy(policy):
    import tensorflow as tf

    lr = keras.optimizers.schedules.PiecewiseConstantDecay([1000], [0.1, 0.01]) if policy else 0.1
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
        model = SubBatchNormalization.convert(compiled(split_network()))
    fit(model, MultigridCallback(SCHEDULE[:6]), epochs=1, steps_per_epoch=6)
    # A replica sees its own clips; each number of sub-batches is traced when it first comes.
    wanted = [max(1, step.base.b // 8) for step in SCHEDULE[:6]]
    assert list(dict.fromkeys(model.layers[1].seen)) == list(dict.fromkeys(wanted))
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
def test_a_schedule_for_fewer_devices_than_there_are():
    import tensorflow as tf

    one = Schedule(Shape(8, 4, 16, 16), samples=toy.VIDEOS, epochs=12)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = level_model(0.1)
    with pytest.raises(ValueError, match="step 0 has a mini-batch of 64x1x11x11 and was trained on 32x1x11x11"):
        fit(model, MultigridCallback(one))


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is JAX's")
def test_data_parallel():
    steps = SCHEDULE[:6]
    plain = SubBatchNormalization.convert(compiled(network(), run_eagerly=True))
    for step in steps:  # by hand
        plain.layers[1].splits = 2 * max(1, step.base.b // 8)
        plain.optimizer.learning_rate = 0.05 * step.lr_scale
        plain.train_on_batch(*toy.read(mini_batch(SCHEDULE, step, seed=0)))
    devices = keras.distribution.list_devices("cpu")
    assert len(devices) == SCHEDULE.processes
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        model = SubBatchNormalization.convert(compiled(split_network()))
        fit(model, MultigridCallback(steps), epochs=1, steps_per_epoch=6)
        # The layer sees the global batch: as many sub-batches as both devices together.
        wanted = [2 * max(1, step.base.b // 8) for step in steps]
        assert list(dict.fromkeys(model.layers[1].seen)) == list(dict.fromkeys(wanted))
        for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)
    finally:
        keras.distribution.set_distribution(None)
