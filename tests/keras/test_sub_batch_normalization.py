import re

import keras
import numpy as np
import pytest
from toy import BACKEND, SCHEDULE, compiled, fit, network, read, split_network

from pymultigrid import Cycles, Schedule, Shape, mini_batch
from pymultigrid.keras import MultigridCallback, SubBatchNormalization

WEIGHTS = ["gamma", "beta", "moving_mean", "moving_variance"]
FLOAT = {"rtol": 2e-4, "atol": 2e-5}


def numpy(x):
    return keras.ops.convert_to_numpy(getattr(x, "value", x))


def batch(*shape):
    return (np.random.default_rng(shape[0]).standard_normal(shape) * 3 + 1).astype("float32")


def filled(layer, shape):
    layer.build(shape)
    rng = np.random.default_rng(0)
    layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
    return layer


def by_hand(layer, x, groups):
    """Output and the mean and variance of the whole, each group of clips on its own, from the definition."""
    axis = layer.axis % x.ndim
    x = np.moveaxis(x.astype("float64"), axis, -1)
    out, means, variances = np.empty_like(x), [], []
    for clips in groups:
        part = x[clips]
        mean, var = part.mean(tuple(range(x.ndim - 1))), part.var(tuple(range(x.ndim - 1)))
        out[clips] = (part - mean) / np.sqrt(var + layer.epsilon)
        means.append(mean)
        variances.append(var)
    weights = {weight.name: numpy(weight) for weight in layer.weights}
    out = np.moveaxis(out * weights.get("gamma", 1) + weights.get("beta", 0), -1, axis)
    share = np.array([len(clips) / len(x) for clips in groups])[:, None]
    means, variances = np.stack(means), np.stack(variances)
    mean = (share * means).sum(0)
    return out, mean, (share * (variances + (means - mean) ** 2)).sum(0)


@pytest.mark.parametrize("options", [{}, {"center": False, "scale": False}, {"momentum": 0.3, "epsilon": 0.1}])
@pytest.mark.parametrize(
    ("shape", "axis"), [((16, 6), -1), ((16, 7, 6), -1), ((16, 3, 5, 4, 6), -1), ((16, 6, 3, 5, 4), 1)]
)
def test_statistics_are_those_of_each_sub_batch(shape, axis, options):
    layer = filled(SubBatchNormalization(axis=axis, **options), shape)
    x = batch(*shape)
    before = {weight.name: numpy(weight).copy() for weight in layer.weights}
    layer.splits = 4
    out, mean, var = by_hand(layer, x, [list(range(s, 16, 4)) for s in range(4)])
    np.testing.assert_allclose(numpy(layer(x, training=True)), out, **FLOAT)
    rate = 1 - layer.momentum
    for name, value in (("moving_mean", mean), ("moving_variance", var)):
        want = (1 - rate) * before[name] + rate * value
        np.testing.assert_allclose(numpy(getattr(layer, name)), want, **FLOAT)


@pytest.mark.parametrize(("b", "splits", "sizes"), [(10, 4, (3, 3, 2, 2)), (7, 2, (4, 3)), (3, 8, (1, 1, 1))])
def test_a_batch_that_splits_do_not_divide(b, splits, sizes):
    layer = filled(SubBatchNormalization(), (None, 3, 5, 4, 6))
    layer.splits, x = splits, batch(b, 3, 5, 4, 6)
    groups = [list(range(s, b, len(sizes))) for s in range(len(sizes))]
    assert tuple(map(len, groups)) == sizes
    np.testing.assert_allclose(numpy(layer(x, training=True)), by_hand(layer, x, groups)[0], **FLOAT)


def test_a_sub_batch_of_single_values_has_two_of_them():
    layer = filled(SubBatchNormalization(), (None, 6))
    layer.splits, x = 8, batch(8, 6)
    out = by_hand(layer, x, [[s, s + 4] for s in range(4)])[0]
    np.testing.assert_allclose(numpy(layer(x, training=True)), out, **FLOAT)


def test_a_sub_batch_of_maps_of_one_cell_has_two_of_them():
    layer = filled(SubBatchNormalization(), (None, 1, 1, 1, 6))
    layer.splits, x = 8, batch(8, 1, 1, 1, 6)
    out = by_hand(layer, x, [[s, s + 4] for s in range(4)])[0]
    np.testing.assert_allclose(numpy(layer(x, training=True)), out, **FLOAT)


@pytest.mark.parametrize("splits", [1, 8])
def test_the_moving_statistics_are_those_of_keras_own_layer(splits):
    ours, theirs = (
        filled(cls(momentum=0.5), (None, 3, 4, 4, 6))
        for cls in (SubBatchNormalization, keras.layers.BatchNormalization)
    )
    assert [weight.name for weight in ours.weights] == [weight.name for weight in theirs.weights] == WEIGHTS
    ours.splits = splits
    for b in (64, 32):
        x = batch(b, 3, 4, 4, 6)
        got, want = numpy(ours(x, training=True)), numpy(theirs(x, training=True))
        assert np.allclose(got, want, **FLOAT) == (splits == 1)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **FLOAT)
    # In inference, and where it is frozen, it is Keras' layer.
    np.testing.assert_allclose(numpy(ours(x)), numpy(theirs(x)), **FLOAT)
    ours.trainable = theirs.trainable = False
    np.testing.assert_allclose(numpy(ours(x, training=True)), numpy(theirs(x, training=True)), **FLOAT)


def test_gradients():
    """One step of SGD on each sub-batch normalised by Keras' own layer, and on the whole by ours."""
    x, y = batch(8, 2, 3, 3, 4), batch(8, 2, 3, 3, 4)
    weights = []
    for cls, parts in (
        (SubBatchNormalization, [slice(None)]),
        (keras.layers.BatchNormalization, [slice(s, None, 4) for s in range(4)]),
    ):
        total = []
        for part in parts:
            layer = filled(cls(), (None, 2, 3, 3, 4))
            start = layer.get_weights()[:2]
            model = keras.Sequential([keras.Input((2, 3, 3, 4)), layer])
            model.compile(keras.optimizers.SGD(0.1), "mse")
            layer.splits = 4
            model.train_on_batch(x[part], y[part])
            total.append([after - before for after, before in zip(layer.get_weights()[:2], start, strict=True)])
        weights.append(np.mean(total, 0))
    np.testing.assert_allclose(weights[0], weights[1], **FLOAT)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    x = batch(8, 2, 3, 3, 4)
    full, half = (filled(SubBatchNormalization(dtype=kind), x.shape) for kind in ("float32", f"mixed_{dtype}"))
    full.splits = half.splits = 4
    got = half(keras.ops.cast(x, dtype), training=True)
    assert keras.backend.standardize_dtype(got.dtype) == dtype
    np.testing.assert_allclose(numpy(keras.ops.cast(got, "float32")), numpy(full(x, training=True)), atol=0.05)
    assert half.moving_mean.dtype == "float32"


# -- conversion --------------------------------------------------------------------------------------------------------


class Own(keras.layers.BatchNormalization):
    pass


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [network(), keras.layers.BatchNormalization()]

    def call(self, x, training=None):
        return self.blocks[1](self.blocks[0](x, training=training), training=training)


def functional():
    inputs = keras.Input((None, None, None, 3))
    x = keras.layers.BatchNormalization(name="first")(inputs)
    return keras.Model(inputs, network()(Own()(x)))


@pytest.mark.filterwarnings(r"ignore:own\w* \(Own\) keeps the statistics of the whole mini-batch")
@pytest.mark.parametrize(("make", "converted"), [(network, 1), (functional, 2), (Subclassed, 2)])
def test_convert_and_revert_change_nothing_but_the_kind(make, converted):
    model, x = make(), batch(4, 4, 8, 8, 3)
    before = numpy(model(x))
    layers, variables = list(model._flatten_layers()), list(model.variables)
    assert SubBatchNormalization.convert(model) is model
    assert sum(type(layer) is SubBatchNormalization for layer in layers) == converted
    assert not any(type(layer) is keras.layers.BatchNormalization for layer in layers)
    for _ in range(2):
        assert all(a is b for a, b in zip(layers, model._flatten_layers(), strict=True))
        assert all(a is b for a, b in zip(variables, model.variables, strict=True))
        np.testing.assert_array_equal(numpy(model(x)), before)
        assert SubBatchNormalization.revert(model) is model
    assert not any(isinstance(layer, SubBatchNormalization) for layer in layers)


def test_what_has_statistics_of_its_own_is_left_alone():
    kinds = [keras.layers.BatchNormalization(renorm=True), Own()]
    if BACKEND == "tensorflow":
        kinds.append(keras.layers.BatchNormalization(synchronized=True))
    with pytest.warns(UserWarning, match="keeps the statistics of the whole mini-batch") as told:
        model = SubBatchNormalization.convert(keras.Sequential(kinds))
    assert [str(one.message).split(" keeps")[0] for one in told] == [
        f"{layer.name} ({type(layer).__name__})" for layer in kinds
    ]
    assert not any(isinstance(layer, SubBatchNormalization) for layer in model.layers)
    with pytest.raises(ValueError, match=re.escape("takes neither synchronized=True nor renorm=True, which have")):
        SubBatchNormalization(renorm=True)


def test_a_saved_model(tmp_path):
    model = SubBatchNormalization.convert(compiled(network()))
    fit(model, MultigridCallback(SCHEDULE[:3]), epochs=1, steps_per_epoch=3)
    x = batch(4, 4, 8, 8, 3)
    want = numpy(model(x))
    model.save(tmp_path / "sub.keras")
    again = keras.models.load_model(tmp_path / "sub.keras")
    np.testing.assert_array_equal(numpy(again(x)), want)
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]
    SubBatchNormalization.revert(again).save(tmp_path / "plain.keras")
    plain = keras.models.load_model(tmp_path / "plain.keras", safe_mode=True)
    np.testing.assert_array_equal(numpy(plain(x)), want)
    assert not any(isinstance(layer, SubBatchNormalization) for layer in plain.layers)
    # Weights go to a plain network and back.
    other = network()
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(numpy(other(x)), want)


def test_a_mask_is_refused():
    layer = filled(SubBatchNormalization(), (None, 5, 6))
    layer.splits = 2
    with pytest.raises(ValueError, match="is called with a mask, which sub-batches do not take; leave the masking"):
        layer(batch(4, 5, 6), training=True, mask=np.ones((4, 5), bool))


# -- splits in fit -----------------------------------------------------------------------------------------------------


def test_splits_follow_the_base_and_are_undone():
    between = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            between.append(self.model.layers[1].norm.splits)

        def on_train_batch_end(self, batch, logs=None):
            between.append(self.model.layers[1].norm.splits)

    model = SubBatchNormalization.convert(compiled(split_network(), run_eagerly=True))
    fit(model, MultigridCallback(SCHEDULE, base=16), Watch())
    assert model.layers[1].seen == [max(1, step.base.b // 16) for step in SCHEDULE]
    assert set(between) == {1}
    assert len(between) == 2 * len(SCHEDULE)


def test_a_step_is_normalised_by_the_splits_of_the_step():
    """The same network trained step by step by hand, without traces."""
    steps = SCHEDULE[3:8]
    assert steps[0].shape == steps[3].shape  # in two stages: what is traced for the one must not train the other
    assert steps[0].base.b != steps[3].base.b
    weights = []
    for base in (8, 64):
        model = SubBatchNormalization.convert(compiled(network()))
        model.optimizer.iterations.assign(3)
        fit(model, MultigridCallback(steps, base=base), epochs=1, steps_per_epoch=5)
        weights.append(model.get_weights())
    other = SubBatchNormalization.convert(compiled(network(), run_eagerly=True))
    for step in steps:
        other.layers[1].splits = max(1, step.base.b // 8)
        other.optimizer.learning_rate = 0.05 * step.lr_scale
        other.train_on_batch(*read(mini_batch(SCHEDULE, step, seed=0)))
    for a, b in zip(weights[0], other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert not np.allclose(weights[0][0], weights[1][0], rtol=1e-3)


def test_a_model_without_sub_batches_is_trained_too():
    schedule = Schedule(Shape(8, 4, 16, 16), samples=40, epochs=4, plan=Cycles(long=None, short=None))
    fit(compiled(network()), MultigridCallback(schedule), epochs=2)
