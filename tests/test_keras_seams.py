"""Where a multigrid training meets the rest of a program: other callbacks, data, train steps, other trainings."""

import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import pytest
import toy
from toy import BACKEND, SCHEDULE, Record, close, compiled, fit, level_model, network, number

from pymultigrid import Schedule, Shape
from pymultigrid.keras import MultigridCallback, SubBatchNormalization, batches

SHAPES = [tuple(step.shape) for step in SCHEDULE]
SCALES = np.array([step.lr_scale for step in SCHEDULE])
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function and tf.data are TensorFlow's")


def read_index(samples):
    """Clips that are filled with the number of their step."""
    _, t, h, w = samples[0].step.shape
    return np.full((len(samples), t, h, w, 3), samples[0].step.index, "float32"), np.zeros(len(samples))


def plain_fit(model, *callbacks):
    return model.fit(np.zeros((8, 4, 16, 16, 3), "float32"), np.zeros(8), callbacks=list(callbacks), verbose=0)


class StopAfter(keras.callbacks.Callback):
    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            self.model.stop_training = True


# -- other callbacks ---------------------------------------------------------------------------------------------------


class WarmUp(keras.callbacks.Callback):
    """Set the learning rate as each step begins, and keep what it was as the step ended."""

    def __init__(self):
        super().__init__()
        self.own, self.after = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.own.append(0.01 * (len(self.own) + 1))
        self.model.optimizer.learning_rate = self.own[-1]

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(number(self.model.optimizer.learning_rate))


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_the_place_in_the_list_does_not_matter(place, tmp_path):
    path = tmp_path / "model.keras"
    multigrid, warm_up, record = MultigridCallback(SCHEDULE), WarmUp(), Record()
    callbacks = [warm_up, keras.callbacks.ModelCheckpoint(path, save_freq=3), record]
    callbacks.insert(place, multigrid)
    model = level_model(0.1)
    model.fit(batches(multigrid, toy.read), epochs=3, steps_per_epoch=4, callbacks=callbacks, shuffle=False, verbose=0)
    close(record.lrs, warm_up.own * SCALES)
    close(warm_up.after, warm_up.own)
    assert number(keras.models.load_model(path).optimizer.learning_rate) == pytest.approx(0.12)


def test_a_callback_that_is_listed_twice():
    multigrid = MultigridCallback(SCHEDULE)
    with pytest.raises(ValueError, match="callbacks has the same MultigridCallback twice; list it once"):
        fit(level_model(0.1), multigrid, multigrid)
    record = Record()
    fit(level_model(0.1), multigrid, record)
    close(record.lrs, 0.1 * SCALES)


def test_a_callback_that_is_not_listed():
    model, multigrid = level_model(0.1), MultigridCallback(SCHEDULE)
    data = batches(multigrid, toy.read)
    for _ in range(2):  # the second time with what the first has left
        record = Record()
        with pytest.raises(Exception, match=re.escape("were made of a MultigridCallback that no fit runs with; pass")):
            model.fit(data, steps_per_epoch=12, callbacks=[record], shuffle=False, verbose=0)
        assert len(record.lrs) <= (2 if BACKEND == "jax" else 1)
    model, record = level_model(0.1), Record()
    fit(model, multigrid, record, data=data)
    close(record.lrs, 0.1 * SCALES)


class Raise(keras.callbacks.Callback):
    """Raise once, in the callback of this name, in the third step or the second epoch."""

    def __init__(self, name, error):
        super().__init__()
        self.calls = 0
        limit = 2 if "epoch" in name or "test" in name else 3

        def call(*args, **options):
            self.calls += 1
            if self.calls == limit:
                raise error

        setattr(self, name, call)


@pytest.mark.parametrize("policy", [False, True])
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("on_train_batch_begin", RuntimeError),
        ("on_train_batch_end", KeyboardInterrupt),
        ("on_test_batch_end", KeyboardInterrupt),
        ("on_epoch_end", RuntimeError),
    ],
)
def test_nothing_is_left_after_an_exception_elsewhere(name, error, policy):
    lr = keras.optimizers.schedules.PiecewiseConstantDecay([1000], [0.1, 0.01]) if policy else 0.1
    model, multigrid = SubBatchNormalization.convert(level_and_norm()), MultigridCallback(SCHEDULE)
    model.compile(keras.optimizers.SGD(lr), toy.level)
    clips = np.zeros((8, 4, 16, 16, 3), "float32"), np.zeros(8)
    with pytest.raises(error):
        fit(model, multigrid, Raise(name, error), validation_data=clips)
    assert number(model.optimizer.learning_rate) == np.float32(0.1)
    assert model.layers[0].splits == 1
    before = number(model.layers[-1].level)
    with pytest.warns(UserWarning, match="has no MultigridCallback, and reads the") if policy else nullcontext():
        plain_fit(model)
    close(before - number(model.layers[-1].level), 0.1)
    # Multigrid goes on where it is.
    done, record = int(number(model.optimizer.iterations)), Record()
    fit(model, multigrid, record)
    close(record.lrs[1:], 0.1 * SCALES[done + 1 :])


def level_and_norm():
    norm = keras.layers.BatchNormalization(momentum=0.5, center=False, scale=False)
    return keras.Sequential([keras.Input((None, None, None, 3)), norm, toy.Level()])


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


# -- the end -----------------------------------------------------------------------------------------------------------

SCRIPT = """
import toy
from pymultigrid.keras import MultigridCallback, batches
multigrid = MultigridCallback(toy.SCHEDULE)
data = batches(multigrid, toy.read)
toy.level_model(0.1).fit(data, epochs=1, steps_per_epoch={steps}, shuffle=False, verbose=0, callbacks=[multigrid])
stream = iter(batches(toy.SCHEDULE, toy.read))
next(stream)
print("the last line", flush=True)
"""


def test_a_script_ends_in_silence():
    """With data, and a stream that was begun, in global variables."""
    script = SCRIPT.format(steps=len(SCHEDULE))
    environment = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the last line\n"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
