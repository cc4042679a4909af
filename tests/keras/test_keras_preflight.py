"""preflight of a Keras model: what it measures is there, what it says happens, and nothing is left of it."""

import math
import random
import re
import time

import keras
import numpy as np
import pytest
import toy
from keras.src.backend.common import global_state
from toy import BACKEND, SCHEDULE, Split, StopAfter, compiled, fit, number

from pymultigrid import Cycles, Schedule, Shape
from pymultigrid.keras import MultigridCallback, SubBatchNormalization, preflight

# NumPy's word on how TensorFlow makes arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
FULL = SCHEDULE.shape
LONG = Schedule(FULL, samples=toy.VIDEOS, epochs=9, plan=Cycles(cycles=1, short=None))


def fly(model, schedule=LONG, read=toy.read, **options):
    return preflight(model, schedule, read, **{"repeats": 1, "progress": False, **options})


def sequential(*layers, channels=3):
    return keras.Sequential([keras.Input((None, None, None, channels)), *layers])


def network(convolution=None):
    """A network that learns, and that is not too coarse for any shape."""
    keras.utils.set_random_seed(0)
    convolution = convolution or keras.layers.Conv3D(4, 3, strides=(1, 2, 2), padding="same")
    norm = keras.layers.BatchNormalization(momentum=0.5)
    return sequential(convolution, norm, keras.layers.ReLU(), Mean(), keras.layers.Dense(2))


class Mean(keras.layers.Layer):
    def call(self, x):
        return keras.ops.mean(x, (1, 2, 3))


def converted():
    return SubBatchNormalization.convert(compiled(network()))


def shapes_of(schedule):
    return {shape for stage in schedule.stages for shape in stage.shapes}


# -- what it measures --------------------------------------------------------------------------------------------------


def test_every_shape_is_measured_the_largest_first():
    report = fly(converted(), SCHEDULE[5:], repeats=2)
    assert report.schedule == SCHEDULE
    assert {row.shape for row in report.rows} == shapes_of(SCHEDULE)
    cells = [math.prod(row.shape) for row in report.rows]
    assert cells == sorted(cells, reverse=True)
    for row in report.rows:
        assert 0 < row.seconds < 60
        assert 0 < row.read_seconds < 60
        assert row.first_seconds > 0
        assert row.fits == row.shape.b
        assert row.bytes is None
        assert row.iterations == sum(step.shape == row.shape for step in SCHEDULE)
        _, t, h, w = row.shape
        assert row.feature_map == (t, -(-h // 2), -(-w // 2))
    table = str(report)
    assert table.startswith(f"one training step of Keras on {BACKEND} on the CPU; memory was not measured\n")
    assert re.search(r"shape +iterations +nominal +time +time x +last map +first one +read by one\n", table)
    assert all(str(row.shape) in table for row in report.rows)
    assert set(report.costs) == {tuple(shape)[1:] for shape in shapes_of(SCHEDULE)}
    assert Schedule(FULL, samples=toy.VIDEOS, epochs=9, costs=report.costs)[-1].shape == FULL

    def call(self, x):
        return x + 0 * keras.ops.sum(keras.ops.matmul(keras.ops.ones((x.shape[0] or 64, 2000, 300)), 1e-6), None)


class Slow(keras.layers.Layer):
    """Takes its time for each clip, whatever its size."""

    def call(self, x):
        time.sleep(0.01 * len(x))
        return x

    def compute_output_shape(self, shape):
        return shape


def test_times_follow_what_is_dear():
    model = sequential(Slow(), Mean(), keras.layers.Dense(2))
    report = fly(compiled(model, run_eagerly=True), repeats=3)
    assert report[Shape(64, 1, 11, 11)].seconds > 0.64
    assert report[Shape(64, 1, 11, 11)].seconds > 2 * report[FULL].seconds
    assert "note: costing more than their share: " in str(report)
    assert report.costs[1, 11, 11] > 2 * FULL.b / 64


def test_each_number_of_sub_batches_is_trained_and_traced_as_in_training():
    convolution, norm, *rest = network().layers
    model = SubBatchNormalization.convert(compiled(sequential(convolution, Split(norm), norm, *rest)))
    seen = model.layers[1].seen
    fly(model, SCHEDULE)
    wanted = {max(1, step.base.b // 8) for step in SCHEDULE}
    assert set(seen) == wanted
    of_preflight = len(seen)
    fit(model, MultigridCallback(SCHEDULE))
    if BACKEND != "torch":  # the same traces; PyTorch has none
        assert len(seen) - of_preflight <= of_preflight


def test_a_progress_bar(capsys):
    pytest.importorskip("tqdm", reason="tqdm is missing: the progress bar was NOT tested")
    fly(converted(), progress=True)
    assert f"preflight: time: 100%|██████████| {len(shapes_of(LONG))}/{len(shapes_of(LONG))}" in capsys.readouterr().err


# -- it changes nothing ------------------------------------------------------------------------------------------------


class Fragile(keras.layers.Layer):
    """Raise where clips have 11 rows, or an open axis, once it has an error; it counts its calls."""

    error, calls = None, 0

    def call(self, x, training=None):
        self.calls += 1
        if training and self.error is not None and x.shape[2] in (None, 11):
            raise self.error
        return x


def rich_model(ema=True):
    """A model with every kind of state, in the middle of a training."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((None, None, None, 3)),
            keras.layers.Conv3D(4, 3, padding="same"),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dropout(0.5),
            Fragile(),
            keras.layers.GlobalAveragePooling3D(),
            keras.layers.Dense(2),
        ]
    )
    SubBatchNormalization.convert(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01, use_ema=ema), loss, metrics=["accuracy"])
    fit(model, MultigridCallback(SCHEDULE), StopAfter(6))
    return model


def state_of(model):
    """What a training may change, as bytes and objects."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    values = [v.value.detach().numpy() if BACKEND == "torch" else np.asarray(v.value) for v in variables]
    attributes = [
        {name: value for name, value in vars(layer).items() if not isinstance(value, (list, dict, set))}
        for layer in (model, *model._flatten_layers())
    ]
    gradients = [p.grad for p in model.parameters()] if BACKEND == "torch" else []
    seeds = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    return (
        [value.tobytes() for value in values],
        [[(name, id(value)) for name, value in each.items()] for each in attributes],
        gradients,
        seeds,
    )


@pytest.mark.parametrize("error", [None, ValueError("too many rows"), KeyboardInterrupt("Ctrl-C")])
def test_nothing_is_changed(error):
    model = rich_model()
    keras.random.uniform((1,))  # Keras' own generator is there
    object.__setattr__(model.layers[3], "error", error)
    before, rate = state_of(model), model.optimizer._learning_rate
    if error is None:
        fly(model, SCHEDULE)
    else:
        with pytest.raises((RuntimeError, KeyboardInterrupt), match=str(error)):
            fly(model, SCHEDULE)
    values, attributes, gradients, seeds = state_of(model)
    assert values == before[0]
    assert attributes == before[1]
    assert all(a is b for a, b in zip(gradients, before[2], strict=True))
    assert seeds == before[3]
    assert model.optimizer._learning_rate is rate
    assert [layer.splits for layer in model.layers if isinstance(layer, SubBatchNormalization)] == [1]


@pytest.mark.parametrize("built", [False, True])
def test_a_training_afterwards_is_the_same_to_the_bit(built):
    ends = []
    for flown in (True, False):
        # Two trainings with averaged weights fail on JAX, without preflight too.
        model = rich_model(ema=BACKEND != "jax") if built else converted()
        if flown:
            fly(model, SCHEDULE)
        keras.utils.set_random_seed(1)
        history = fit(model, MultigridCallback(SCHEDULE))
        ends.append(([weight.tobytes() for weight in model.get_weights()], history.history))
    assert ends[0] == ends[1]


class Noise(keras.layers.Layer):
    """Draws from Keras' own generator, which no layer has."""

    def call(self, x):
        return x + keras.random.uniform((1,))


@pytest.mark.skipif(BACKEND == "jax", reason="there Keras refuses its own generator in a train step")
def test_the_random_numbers_of_keras_go_on_where_they_were():
    model = compiled(sequential(Noise(), Mean(), keras.layers.Dense(2)))
    keras.random.uniform((1,))  # it is there now
    own = global_state.get_global_attribute("global_seed_generator")
    before = number(own.state[1])
    fly(model)
    assert global_state.get_global_attribute("global_seed_generator") is own
    assert number(own.state[1]) == before


# -- what it says ------------------------------------------------------------------------------------------------------


def test_what_fit_would_refuse_or_warn_of_is_said():
    model = compiled(network(), keras.optimizers.schedules.CosineDecay(0.1, 12))
    model.layers[1].momentum = 0.9
    with pytest.warns(RuntimeWarning) as caught:
        report = fly(model)
    told = "\n".join(report.warnings)
    assert [str(w.message) for w in caught if w.category is RuntimeWarning] == list(report.warnings)
    assert "would take the statistics of mini-batches that are larger in coarse stages; call SubBatchNorm" in told
    assert "CosineDecay decays over 12 iterations" in told
    SubBatchNormalization.convert(model)
    compiled(model)
    with pytest.warns(RuntimeWarning, match=r"momentum=0\.9 of batch_normalization\w*: after"):
        fly(model)


def test_a_shape_that_the_model_does_not_take():
    layers = [keras.layers.Conv3D(2, 3, strides=2, padding="same"), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = compiled(keras.Sequential([keras.Input((4, 16, 16, 3)), *layers]))
    with pytest.raises(RuntimeError, match=r"the mini-batch \d+x\d+x\d+x\d+ failed") as raised:
        fly(model)
    assert f"failed, and {FULL} did not" in str(raised.value)
    assert "begin the model with keras.Input((None, None, None, channels)) and pool globally" in str(raised.value)


def test_what_fails_at_the_full_shape_is_not_put_down_to_sizes():
    model = compiled(sequential(Mean(), keras.layers.Dense(2), channels=5))
    with pytest.raises(RuntimeError, match=f"the mini-batch {FULL}, which is the baseline's, failed: ") as raised:
        fly(model)
    assert "multiple_of" not in str(raised.value)


class Hungry(keras.layers.Layer):
    """Asks for more memory than there is, where there are more than 16 clips."""

    def call(self, x):
        clips = keras.ops.shape(x)[0]
        if BACKEND == "tensorflow":  # a tensor: the axis is open
            return x + keras.ops.mean(keras.ops.ones((keras.ops.where(clips > 16, 10**7, 1), 10**6)))
        return x + keras.ops.mean(keras.ops.ones((10**7 if clips > 16 else 1, 10**6)))


@pytest.mark.skipif(BACKEND == "jax", reason="on CPUs JAX does not compile what asks for so much, or makes none of it")
def test_a_shape_that_the_memory_has_no_room_for():
    model = sequential(Hungry(), Mean(), keras.layers.Dense(2))
    with pytest.warns(RuntimeWarning, match="does not fit the memory of the CPU: 16 of its "):
        report = fly(compiled(model))
    assert [row.fits for row in report.rows] == [min(row.shape.b, 16) for row in report.rows]
    assert "64x1x11x11 (fits 16)" in str(report)
    assert len(report.warnings) == 2


def test_maps_too_coarse_and_a_transformers_patches():
    strided = network(keras.layers.Conv3D(2, 3, strides=(1, 4, 4), padding="same"))
    told = "the network is too coarse for 64x1x11x11, 32x2x11x11: its last feature map is 3x3 at"
    with pytest.warns(RuntimeWarning, match=told):
        fly(SubBatchNormalization.convert(compiled(strided)))
    patches = network(keras.layers.Conv3D(2, (1, 4, 4), strides=(1, 4, 4)))
    with pytest.warns(RuntimeWarning, match="not whole patches of 1x4x4: .*plan with multiple_of=4"):
        report = fly(SubBatchNormalization.convert(compiled(patches)))
    assert report.patch == (1, 4, 4)
    assert len(report.warnings) == 1


class Asks(keras.layers.Layer):
    """Is for training alone, as Keras' TensorFlow side allows it."""

    def call(self, x, training=None):
        if training is False:
            raise TypeError("this layer is for training")
        return x


@pytest.mark.skipif(BACKEND != "tensorflow", reason="on others fit itself asks for the shapes of an evaluation")
def test_a_model_whose_call_keras_cannot_follow_has_no_maps():
    class Asking(keras.Model):
        def __init__(self):
            super().__init__()
            self.convolution, self.asks = keras.layers.Conv3D(2, 3, padding="same"), Asks()

        def call(self, x, training=None):
            return keras.ops.mean(self.asks(self.convolution(x), training=training), (1, 2, 3))

    model = Asking()
    model(np.zeros((1, 4, 16, 16, 3), "float32"))
    assert {row.feature_map for row in fly(compiled(model)).rows} == {None}


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"schedule": list(LONG)}, TypeError, "must be a pymultigrid.Schedule; write Schedule(shape, ...)"),
        ({"read": toy.PIXELS}, TypeError, "must be a function from samples to (clips, labels); a VideoDataset has"),
        ({"repeats": 0}, ValueError, "repeats (0) must be at least 1: the steps that are timed"),
        ({"base": 0}, ValueError, "base (0) must be at least 1: the clips of a sub-batch"),
        ({"progress": "no"}, TypeError, "progress ('no') must be"),
        ({"rank": 3}, ValueError, "rank (3)"),
    ],
)
def test_wrong_arguments(options, error, told):
    with pytest.raises(error, match=re.escape(told)):
        fly(converted(), **options)


def test_models_that_cannot_be_trained():
    with pytest.raises(
        ValueError, match=re.escape("model (Sequential) is not compiled; call model.compile as for fit")
    ):
        fly(network())
    unbuilt = compiled(keras.Sequential([keras.layers.Conv3D(2, 3), keras.layers.Flatten()]))
    with pytest.raises(
        ValueError, match=r"is not built, nor is its layer .*begin it with keras.Input, or call it once"
    ):
        fly(unbuilt)
    model = network()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
    with pytest.raises(ValueError, match=re.escape("gradient_accumulation_steps (2) must be None")):
        fly(model)
    with pytest.raises(ValueError, match="read returned"):
        fly(converted(), read=lambda samples: toy.read(samples[1:]))


# -- several devices ---------------------------------------------------------------------------------------------------

TWO = Schedule(FULL, samples=toy.VIDEOS, epochs=12, plan=Cycles(cycles=1, short=None), processes=2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
def test_a_mirrored_strategy():
    import tensorflow as tf

    reduce = tf.distribute.ReductionToOneDevice()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=reduce).scope():
        model = converted()
    before = [weight.tobytes() for weight in model.get_weights()]
    assert all(row.fits == row.shape.b for row in fly(model, TWO).rows)
    assert [weight.tobytes() for weight in model.get_weights()] == before
    with pytest.raises(RuntimeError, match=r"step \d+ has a mini-batch of 8x4x16x16 and was trained on 4x4x16x16"):
        fly(model, LONG)


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is JAX's")
def test_data_parallel():
    devices = keras.distribution.list_devices("cpu")
    assert len(devices) == TWO.processes
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        model = converted()
        before = [weight.tobytes() for weight in model.get_weights()]
        assert all(row.fits == row.shape.b for row in fly(model, TWO).rows)
        assert [weight.tobytes() for weight in model.get_weights()] == before
    finally:
        keras.distribution.set_distribution(None)
