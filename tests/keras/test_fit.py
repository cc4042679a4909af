import re
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import toy
from toy import BACKEND, SCHEDULE, Record, close, compiled, fit, level_model, network, number

from pymultigrid import Schedule, Shape
from pymultigrid._clock import Clock
from pymultigrid.keras import MultigridCallback, ScaledLR, SubBatchNormalization, batches

SHAPES = [tuple(step.shape) for step in SCHEDULE]
SCALES = [step.lr_scale for step in SCHEDULE]


# -- the steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_every_step_is_trained_once_in_order(epochs):
    model, record = level_model(0.1), Record()
    history = fit(model, MultigridCallback(SCHEDULE), record, epochs=epochs)
    assert record.shapes == SHAPES
    close(record.lrs, 0.1 * np.array(SCALES))
    assert number(model.optimizer.iterations) == len(SCHEDULE)
    assert len(history.epoch) == epochs


def test_in_one_epoch_its_length_may_be_left_out():
    model, record = level_model(0.1), Record()
    multigrid = MultigridCallback(SCHEDULE)
    model.fit(batches(multigrid, toy.read), callbacks=[multigrid, record], shuffle=False, verbose=0)
    assert record.shapes == SHAPES


def test_a_policy_is_read_on_the_baselines_clock():
    drop = 20  # of the baseline's 45 iterations
    decay = SCHEDULE.baseline_iterations - 4
    policies = [
        keras.optimizers.schedules.CosineDecay(0.1, decay, alpha=0.1, warmup_steps=4, warmup_target=0.2),
        keras.optimizers.schedules.PiecewiseConstantDecay([drop - 1], [0.1, 0.01]),
    ]
    clock = Clock(SCHEDULE)
    for policy in policies:
        model, record = level_model(policy), Record()
        fit(model, MultigridCallback(SCHEDULE), record)
        close(record.lrs, [number(policy(clock(step))) * step.lr_scale for step in SCHEDULE])
        assert model.optimizer._learning_rate is policy


def test_what_reduces_a_plain_learning_rate_reads_and_reduces_the_users_own():
    model, record = level_model(0.1), Record()
    # The loss falls in every step: asked to rise, it makes no progress.
    plateau = keras.callbacks.ReduceLROnPlateau("loss", mode="max", factor=0.5, patience=1)
    history = fit(model, MultigridCallback(SCHEDULE), plateau, record, epochs=4)
    own = np.repeat([0.1, 0.1, 0.05, 0.025], 3)
    close(record.lrs, own * SCALES)
    close(record.between, own)
    close(history.history["learning_rate"], [0.1, 0.1, 0.05, 0.025])


def test_a_learning_rate_scheduler_counts_epochs_of_fit():
    model, record = level_model(0.1), Record()
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, lr: 0.1 / (1 + epoch))
    fit(model, MultigridCallback(SCHEDULE), scheduler, record, epochs=3)
    close(record.lrs, np.repeat([0.1, 0.05, 0.1 / 3], 4) * SCALES)


def test_a_second_training_needs_a_new_optimizer():
    model = level_model(0.1)
    fit(model, MultigridCallback(SCHEDULE))
    past = f"optimizer.iterations ({len(SCHEDULE)}) is past the schedule's last step ({len(SCHEDULE) - 1})"
    with pytest.raises(ValueError, match=re.escape(past)):
        fit(model, MultigridCallback(SCHEDULE))
    model.compile(keras.optimizers.SGD(0.1), toy.level)
    fit(model, MultigridCallback(SCHEDULE))


def test_a_slice_is_trained_from_where_the_optimizer_is():
    model, record = level_model(0.1), Record()
    fit(model, MultigridCallback(SCHEDULE[:6]), record, steps_per_epoch=2)
    fit(model, MultigridCallback(SCHEDULE[6:]), record)
    assert record.shapes == SHAPES
    with pytest.raises(ValueError, match=re.escape("optimizer.iterations (0) is before the schedule's first step (6)")):
        fit(level_model(0.1), MultigridCallback(SCHEDULE[6:]))


def test_mixed_precision():
    if BACKEND == "torch":
        pytest.skip("Keras on torch scales losses on CUDA only: mixed precision was NOT tested there")
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model, record = level_model(0.1), Record()
        fit(model, MultigridCallback(SCHEDULE), record)
        assert type(model.optimizer).__name__ == "LossScaleOptimizer"
        np.testing.assert_allclose(record.lrs, 0.1 * np.array(SCALES), rtol=1e-3)
        assert number(model.optimizer.learning_rate) == np.float32(0.1)
    finally:
        keras.mixed_precision.set_global_policy("float32")


# -- the user's optimizer ----------------------------------------------------------------------------------------------


class Interrupted(keras.layers.Layer):
    """Press Ctrl-C the second time that it is trained, or traced."""

    calls = 0

    def call(self, x, training=None):
        self.calls += bool(training)
        if self.calls == 2:
            raise KeyboardInterrupt
        return x


@pytest.mark.parametrize("policy", [False, True])
def test_a_training_that_is_interrupted_leaves_the_optimizer_as_it_was(policy):
    lr = keras.optimizers.schedules.CosineDecay(0.1, 45) if policy else 0.1
    model = network()
    model = keras.Sequential([model.inputs[0], Interrupted(), *model.layers])
    model = SubBatchNormalization.convert(compiled(model, lr))
    before = model.optimizer._learning_rate
    with pytest.raises(KeyboardInterrupt):
        fit(model, MultigridCallback(SCHEDULE), epochs=1)
    assert model.layers[0].calls == 2
    assert model.optimizer._learning_rate is before
    if not policy:
        assert number(model.optimizer.learning_rate) == np.float32(0.1)
    assert all(layer.splits == 1 for layer in model.layers if isinstance(layer, SubBatchNormalization))


def test_a_plain_training_afterwards_is_plain():
    model, record = level_model(keras.optimizers.schedules.PiecewiseConstantDecay([1000], [0.1, 0.01])), Record()
    fit(model, MultigridCallback(SCHEDULE))
    clips = np.zeros((16, 4, 16, 16, 3), "float32")
    level = number(model.layers[-1].level)
    told = re.escape("reads the optimizer's learning-rate schedule at optimizer.iterations (12), the multigrid steps")
    with pytest.warns(UserWarning, match=told):
        model.fit(clips, np.zeros(16), batch_size=8, callbacks=[record], verbose=0)
    close(record.lrs, [0.1 - level, 0.1])


# -- traces ------------------------------------------------------------------------------------------------------------


def test_traces_are_as_many_as_shapes_and_no_more():
    pairs = {(step.shape, max(1, step.base.b // 8)) for step in SCHEDULE}
    distinct = {step.shape for step in SCHEDULE}
    assert len(distinct) < len(SCHEDULE)
    model = level_model(0.1)
    fit(model, MultigridCallback(SCHEDULE))
    # TensorFlow traces once for open axes, and once more where variables are created.
    most = {"tensorflow": 2, "jax": len(distinct), "torch": len(SCHEDULE)}[BACKEND]
    assert model.layers[-1].traces <= most
    if BACKEND == "jax":
        assert model.layers[-1].traces == most
    # Sub-batches are constants of a trace: once for each number of them.
    model = keras.Sequential(
        [
            keras.Input((None, None, None, 3)),
            SubBatchNormalization(momentum=0.5, center=False, scale=False),
            toy.Level(),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), toy.level)
    fit(model, MultigridCallback(SCHEDULE))
    most = {"tensorflow": 1 + len({n for _, n in pairs}), "jax": len(pairs), "torch": len(SCHEDULE)}[BACKEND]
    assert model.layers[-1].traces <= most
    if BACKEND == "jax":
        assert model.layers[-1].traces == most


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA by jit_compile is tested on TensorFlow")
def test_jit_compile():
    model, record = level_model(0.1, jit_compile=True), Record()
    fit(model, MultigridCallback(SCHEDULE[:4]), record, epochs=1, steps_per_epoch=4)
    assert record.shapes == SHAPES[:4]
    model = SubBatchNormalization.convert(compiled(network(), jit_compile=True))
    fit(model, MultigridCallback(SCHEDULE[:2]), epochs=1, steps_per_epoch=2)


# -- logs --------------------------------------------------------------------------------------------------------------


def test_logs(tmp_path, capsys):
    multigrid = MultigridCallback(SCHEDULE)
    table = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    history = level_model(0.1).fit(
        batches(multigrid, toy.read), epochs=3, steps_per_epoch=4, callbacks=[multigrid, table], shuffle=False
    )
    ends = [SCHEDULE[i] for i in (3, 7, 11)]
    for axis in "bthw":
        assert history.history[axis] == [getattr(step.shape, axis) for step in ends]
    assert history.history["lr_scale"] == [step.lr_scale for step in ends]
    close(history.history["lr"], [0.1 * step.lr_scale for step in ends])
    b, t, h, w = SHAPES[0]
    assert f"b: {b}.0000 - t: {t}.0000 - h: {h}.0000 - w: {w}.0000 - lr_scale: 8.0000" in capsys.readouterr().out
    assert (tmp_path / "log.csv").read_text().startswith("epoch,b,h,loss,lr,lr_scale,t,w")


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_refusals():
    model, multigrid = level_model(0.1, steps_per_execution=1), MultigridCallback(SCHEDULE)
    with pytest.raises(ValueError, match=re.escape("fit would end after 3 epochs x 3 steps, before the 12 steps")):
        fit(model, multigrid, steps_per_epoch=3)
    with pytest.raises(ValueError, match=re.escape("pass steps_per_epoch=math.ceil(12 / epochs) = 4")):
        fit(model, multigrid, steps_per_epoch=3)
    with pytest.raises(ValueError, match=re.escape("steps_per_epoch is missing: the first of 2 epochs would take all")):
        model.fit(batches(multigrid, toy.read), epochs=2, callbacks=[multigrid], shuffle=False, verbose=0)
    cosine = keras.optimizers.schedules.CosineDecay(0.1, 45)
    refused = level_model(cosine)
    with pytest.raises(ValueError, match="fit would end after"):
        fit(refused, multigrid, steps_per_epoch=3)
    assert refused.optimizer._learning_rate is cosine
    other = Schedule(Shape(8, 4, 16, 16), samples=40, epochs=8)
    with pytest.raises(ValueError, match=re.escape("the optimizer's learning rate is scaled for another schedule")):
        fit(level_model(ScaledLR(0.1, other)), multigrid)
    with pytest.raises(TypeError, match=re.escape("must be a pymultigrid.Schedule; write Schedule(shape, ...)")):
        MultigridCallback(list(SCHEDULE))
    with pytest.raises(ValueError, match=re.escape("base (0) must be at least 1: the clips of a sub-batch")):
        MultigridCallback(SCHEDULE, base=0)
    with pytest.raises(ValueError, match=re.escape("schedule has no steps; there is nothing left to train")):
        MultigridCallback(SCHEDULE[12:])


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on torch has no steps_per_execution itself")
def test_steps_per_execution_is_refused():
    with pytest.raises(ValueError, match=re.escape("steps_per_execution (2) must be 1: Keras calls no callback")):
        fit(level_model(0.1, steps_per_execution=2), MultigridCallback(SCHEDULE))


# -- the learning rate on its own --------------------------------------------------------------------------------------


def test_a_scaled_lr_in_a_loop_of_ones_own():
    optimizer = keras.optimizers.SGD(ScaledLR(0.1, SCHEDULE))
    weight = keras.Variable(0.0)
    optimizer.build([weight])
    got = []
    for _ in range(len(SCHEDULE) + 2):
        before = number(weight)
        optimizer.apply([keras.ops.ones(())], [weight])
        got.append(before - number(weight))
    close(got, 0.1 * np.array([*SCALES, 1, 1]))  # after the last step it stays


def test_a_scaled_lr_is_saved_with_its_policy():
    cosine = keras.optimizers.schedules.CosineDecay(0.1, 45)
    for policy in (cosine, 0.1):
        scaled = ScaledLR(policy, SCHEDULE[3:])
        again = keras.optimizers.deserialize(keras.optimizers.serialize(keras.optimizers.Adam(scaled)))._learning_rate
        assert again.schedule == SCHEDULE
        assert [number(again(i)) for i in range(12)] == [number(scaled(i)) for i in range(12)]


def test_a_scaled_lr_refuses():
    with pytest.raises(ValueError, match=re.escape("policy is a ScaledLR already; pass the learning-rate schedule")):
        ScaledLR(ScaledLR(0.1, SCHEDULE), SCHEDULE)
    with pytest.raises(
        TypeError, match=re.escape("policy ('cosine') must be a Keras LearningRateSchedule or a number")
    ):
        ScaledLR("cosine", SCHEDULE)
    with pytest.raises(TypeError, match=re.escape("must be a pymultigrid.Schedule")):
        ScaledLR(0.1, list(SCHEDULE))


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (
            lambda s: s.CosineDecay(0.1, 12),
            "CosineDecay decays over 12 iterations, and a policy is read on the clock of",
        ),
        (
            lambda s: s.CosineDecay(0.1, 45, warmup_target=1.0, warmup_steps=5),
            "CosineDecay decays over 50 iterations, and",
        ),
        (
            lambda s: s.PolynomialDecay(0.1, 12),
            "PolynomialDecay decays over 12 iterations, and a policy is read on the",
        ),
        (
            lambda s: s.PiecewiseConstantDecay([4, 8], [0.1, 0.01, 0.001]),
            "has its last boundary at iteration 8, and a policy is read on the clock of the baseline, which has 45",
        ),
        (lambda s: s.CosineDecayRestarts(0.1, 12), None),
        (lambda s: s.ExponentialDecay(0.1, 12, 0.9), None),
        (lambda s: s.PolynomialDecay(0.1, 12, cycle=True), None),
        (lambda s: s.PiecewiseConstantDecay([20, 30], [0.1, 0.01, 0.001]), None),
    ],
)
def test_a_policy_for_another_number_of_iterations(policy, told):
    with nullcontext() if told is None else pytest.warns(UserWarning, match=told):
        ScaledLR(policy(keras.optimizers.schedules), SCHEDULE)
