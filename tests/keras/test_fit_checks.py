"""What is compared with the schedule, and refused: data, counters, users' own train steps, batch norm."""

import re

import keras
import numpy as np
import pytest
import toy
from toy import BACKEND, SCHEDULE, Record, StopAfter, close, compiled, fit, level_model, network, number, plain_fit

from pymultigrid import Schedule, Shape
from pymultigrid.keras import MultigridCallback, SubBatchNormalization, batches

SHAPES = [tuple(step.shape) for step in SCHEDULE]
SCALES = np.array([step.lr_scale for step in SCHEDULE])
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function and tf.data are TensorFlow's")


def read_index(samples):
    """Clips that are filled with the number of their step."""
    _, t, h, w = samples[0].step.shape
    return np.full((len(samples), t, h, w, 3), samples[0].step.index, "float32"), np.zeros(len(samples))


# -- data --------------------------------------------------------------------------------------------------------------


def test_a_training_goes_on_with_new_objects():
    model, record = level_model(0.1), Record()
    fit(model, MultigridCallback(SCHEDULE), record, StopAfter(5))
    multigrid = MultigridCallback(SCHEDULE)
    fit(model, multigrid, record, data=batches(multigrid, read_index))
    assert record.shapes == SHAPES
    assert record.means[5:] == list(range(5, 12))


def test_data_of_the_schedule_are_for_a_loop_of_ones_own():
    data = batches(SCHEDULE, read_index)
    assert len(data) == len(SCHEDULE)
    for _ in range(2):
        for want, (step, (clips, labels)) in zip(SCHEDULE, data, strict=True):
            assert step == want
            assert clips.shape == (*tuple(step.shape), 3)
            assert clips[0, 0, 0, 0, 0] == step.index
            assert len(labels) == step.shape.b
    for callbacks in ([], [MultigridCallback(SCHEDULE)]):
        with pytest.raises(ValueError, match="for a loop of your own; fit takes those that are made of the Multigrid"):
            level_model(0.1).fit(data, callbacks=callbacks, verbose=0)


def test_data_of_another_callback():
    with pytest.raises(Exception, match=r"data that were not made of this callback|that no fit runs with"):
        fit(level_model(0.1), MultigridCallback(SCHEDULE), data=batches(MultigridCallback(SCHEDULE), toy.read))


def test_ordinary_data_under_the_callback():
    step = SCHEDULE[0]
    clips, labels = np.zeros((step.shape.b * 12, *tuple(step.shape)[1:], 3), "float32"), np.zeros(step.shape.b * 12)
    model = level_model(0.1)
    with pytest.raises(ValueError, match="step 0 was trained on data that were not made of this callback; pass fit"):
        model.fit(clips, labels, batch_size=step.shape.b, callbacks=[MultigridCallback(SCHEDULE)], verbose=0)
    assert number(model.optimizer.iterations) == 1


@on_tensorflow
def test_a_pipeline_that_changes_the_order():
    multigrid = MultigridCallback(SCHEDULE)
    b, t, h, w = SHAPES[0]
    told = (
        f"step 0 has a mini-batch of {b}x{t}x{h}x{w} and was trained on {'x'.join(map(str, SHAPES[1]))}; pass fit what"
    )
    with pytest.raises(ValueError, match=told):
        fit(level_model(0.1), multigrid, data=batches(multigrid, toy.read).skip(1))
    record = Record()
    fit(level_model(0.1), multigrid, record, data=batches(multigrid, toy.read).map(lambda x, y: (2 * x, y)).prefetch(2))
    assert record.shapes == SHAPES


def test_a_schedule_for_more_devices_than_there_are():
    two = Schedule(Shape(8, 4, 16, 16), samples=40, epochs=9, processes=2)
    with pytest.raises(ValueError, match="step 0 has a mini-batch of 64x1x11x11 and was trained on 128x1x11x11"):
        fit(level_model(0.1), MultigridCallback(two))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda clips, labels: (clips[1:], labels), r"read returned \d+ clips for the \d+ samples of step"),
        (lambda clips, labels: (clips, labels[1:]), r"read returned \d+ labels for the \d+ samples of step"),
        (
            lambda clips, labels: (clips[:, :, 1:], labels),
            r"\(T x H x W\) for step \d+, whose clips are \d+x\d+x\d+; read",
        ),
        (lambda clips, labels: (clips, labels.astype(str)), "labels are <U21 and Keras trains on numbers; number the"),
        (
            lambda clips, labels: (clips, labels.tolist()),
            "read returned labels with [01] in them, which is not an array",
        ),
        (lambda clips, labels: clips, r"read returned ndarray and must return a tuple: \(clips, labels\)"),
    ],
)
def test_a_mini_batch_that_is_not_its_steps(change, told):
    def read(samples):
        clips, labels = toy.read(samples)
        return change(clips, labels) if samples[0].step.index > 1 or len(samples) == 1 else (clips, labels)

    multigrid = MultigridCallback(SCHEDULE)
    with pytest.raises((TypeError, ValueError), match=told):
        fit(level_model(0.1), multigrid, data=batches(multigrid, read))
    with pytest.raises((TypeError, ValueError), match=told):
        list(batches(SCHEDULE, read))


def test_two_pathways_and_labels_of_each_frame_and_pixel():
    """Of a SlowFast's two clips one has every second frame; labels change their axes with the clips."""

    def read(samples):
        clips, labels = toy.read(samples)
        b, t, h, w, _ = clips.shape
        pixels = np.broadcast_to(labels[:, None, None, None], (b, t, h, w)).astype("float32")
        return (clips[:, ::2], clips), (pixels.mean((2, 3)), pixels, pixels.mean((1, 2, 3)))

    slow, fast = keras.Input((None, None, None, 3)), keras.Input((None, None, None, 3))
    pixels = keras.layers.Conv3D(1, 1)(fast)[..., 0]
    frames = keras.ops.mean(pixels, (2, 3))
    clip = keras.ops.mean(keras.layers.Conv3D(1, 1)(slow), (1, 2, 3))[..., 0]
    model = keras.Model((slow, fast), (frames, pixels, clip))
    model.compile(keras.optimizers.SGD(0.001), ["mse", "mse", "mse"])
    multigrid = MultigridCallback(SCHEDULE)
    fit(model, multigrid, data=batches(multigrid, read))
    assert number(model.optimizer.iterations) == len(SCHEDULE)


# -- counters ----------------------------------------------------------------------------------------------------------


def test_accumulation_is_refused():
    model = level_model(0.1)
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), toy.level)
    with pytest.raises(
        ValueError, match=re.escape("gradient_accumulation_steps (2) must be None: it would add up the")
    ):
        fit(model, MultigridCallback(SCHEDULE))
    model.compile(None, toy.level)
    with pytest.raises(ValueError, match="the model has no optimizer, whose learning rate is scaled; pass one to comp"):
        fit(model, MultigridCallback(SCHEDULE))


@keras.saving.register_keras_serializable("tests")
class Twice(keras.optimizers.SGD):
    """An optimizer that counts two updates."""

    def apply(self, grads, trainable_variables=None):
        super().apply(grads, trainable_variables)
        super().apply(grads, trainable_variables)


def test_two_updates_in_a_step():
    model = level_model(0.1)
    model.compile(Twice(0.1), toy.level)
    with pytest.raises(ValueError, match="has counted 2 updates of the optimizer in step 0, and"):
        fit(model, MultigridCallback(SCHEDULE))


def test_a_callback_that_moves_the_counter():
    class Roll(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.iterations.assign(2)

    told = re.escape("optimizer.iterations (2) must be 4, the schedule's next step: a callback has trained, or loaded")
    with pytest.raises(ValueError, match=told):
        fit(level_model(0.1), MultigridCallback(SCHEDULE), Roll())


def test_gradients_that_overflow_are_skipped_and_counted():
    def steep(_, predicted):
        return 4 * keras.ops.mean(predicted, -1)

    model, record = level_model(0.1), Record()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=3e38)
    model.compile(optimizer, steep)
    fit(model, MultigridCallback(SCHEDULE), record)
    assert record.shapes == SHAPES
    assert number(model.optimizer.iterations) == len(SCHEDULE)
    skipped = record.lrs.count(0.0)
    assert skipped == 2
    close(record.lrs[skipped:], 0.4 * SCALES[skipped:])


# -- users' own train steps --------------------------------------------------------------------------------------------


def test_a_train_step_of_the_instance_runs_and_stays():
    model, calls, record = level_model(0.1, run_eagerly=True), [], Record()
    usual = model.train_step

    def counted(*args):
        calls.append(len(calls))
        return usual(*args)

    model.train_step = counted
    fit(model, MultigridCallback(SCHEDULE), record)
    assert len(calls) == len(SCHEDULE)
    assert model.train_step is counted
    close(record.lrs, 0.1 * SCALES)


@on_tensorflow
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("where", ["train_step", "call"])
def test_a_tf_function_of_the_users(where, before):
    import tensorflow as tf

    class Own(keras.Model):
        def train_step(self, data):
            return super().train_step(data)

        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=training, mask=mask)

    setattr(Own, where, tf.function(getattr(Own, where)))
    usual = network()
    model = SubBatchNormalization.convert(compiled(Own(usual.inputs, usual.outputs)))
    if before:
        plain_fit(model)
        model.optimizer.iterations.assign(0)
    with pytest.raises(ValueError, match="keeps the sub-batches that it was traced with; take @"):
        fit(model, MultigridCallback(SCHEDULE))


# -- batch norm --------------------------------------------------------------------------------------------------------


def test_a_model_that_was_not_converted():
    model = compiled(network())
    with pytest.raises(ValueError, match=r"batch_normalization\w* would take the statistics of mini-batches that are"):
        fit(model, MultigridCallback(SCHEDULE))
    fit(model, MultigridCallback(SCHEDULE[:1], base=64), epochs=1, steps_per_epoch=1)
    model = compiled(network())
    model.layers[1].trainable = False
    fit(model, MultigridCallback(SCHEDULE[:1]), epochs=1, steps_per_epoch=1)


class OwnNorm(keras.layers.BatchNormalization):
    pass


def test_a_norm_that_convert_leaves_out():
    model = keras.Sequential(
        [keras.Input((None, None, None, 3)), OwnNorm(momentum=0.5, center=False, scale=False), toy.Level()]
    )
    model.compile("sgd", toy.level)
    with pytest.warns(
        UserWarning, match=r"own_norm\w* \(OwnNorm\) would take the statistics of mini-batches that are larger"
    ):
        fit(model, MultigridCallback(SCHEDULE[:2]), epochs=1, steps_per_epoch=2)


def test_a_momentum_for_more_steps_than_there_are():
    model = SubBatchNormalization.convert(compiled(network()))
    model.layers[1].momentum = 0.9
    told = (
        ": after the schedule's 12 steps 28% of its moving statistics is still what they began with "
        "(after the baseline's 45 iterations 1%), and evaluation uses them; momentum=0.67 moves them as far as"
    )
    with pytest.warns(UserWarning, match=r"momentum=0\.9 of batch_normalization\w*" + re.escape(told)):
        fit(model, MultigridCallback(SCHEDULE[:1]), epochs=1, steps_per_epoch=1)
    assert model.layers[1].momentum == 0.9
