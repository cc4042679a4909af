"""A train step of one's own with several optimizers, or with another than the one of compile."""

import re

import keras
import numpy as np
import pytest
import toy
from toy import BACKEND, SCHEDULE, close, fit, level, level_model, number

from pymultigrid.keras import MultigridCallback, ScaledLR, batches, preflight

SCALES = np.array([step.lr_scale for step in SCHEDULE])


class Also(keras.Sequential):
    """Updates a weight of its own by a second optimizer."""

    def train_step(self, *args):
        done = super().train_step(*args)
        variables = self.other._trainable_variables
        gradients = [keras.ops.ones(())]
        if BACKEND == "jax":
            values = [variable.value for variable in self.other.variables]
            self.other.stateless_apply(values, gradients, [variable.value for variable in variables])
        else:
            self.other.apply(gradients, variables)
        return done


def also():
    model = Also([keras.Input((None, None, None, 3)), toy.Level()])
    model.compile(keras.optimizers.SGD(0.1, name="main"), level)
    model.other = keras.optimizers.Adam(0.1, name="for_the_discriminator")
    model.other.build([keras.Variable(1.0)])
    return model


TOLD = re.escape(
    "the model's train_step updates for_the_discriminator (Adam) besides, or inside of, the optimizer of compile, main "
    "(SGD), whose learning rate alone is scaled; train several optimizers in a loop of your own over"
)


def test_a_second_optimizer_is_refused_before_it_trains():
    model = also()
    apply = keras.optimizers.Optimizer.apply
    with pytest.raises(ValueError, match=TOLD):
        fit(model, MultigridCallback(SCHEDULE))
    assert number(model.other._trainable_variables[0]) == 1
    assert keras.optimizers.Optimizer.apply is apply
    with pytest.raises(RuntimeError, match=TOLD):
        preflight(model, SCHEDULE, toy.read, progress=False)
    plain = also()
    toy.plain_fit(plain)  # as ever without multigrid
    assert BACKEND == "jax" or number(plain.other._trainable_variables[0]) < 1


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer yet")
def test_kerass_own_optimizer_of_several_is_refused():
    model = level_model(0.1)
    inner = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1, name="inner"))
    model.compile(keras.optimizers.MultiOptimizer(inner), level)
    with pytest.raises(
        ValueError, match=r"train_step updates inner .SGD. besides, or inside of, the optimizer of comp"
    ):
        fit(model, MultigridCallback(SCHEDULE))


class Idle(keras.Sequential):
    """Returns a loss, and trains nothing."""

    def train_step(self, *args):
        return ({"loss": 0.0}, args[0]) if BACKEND == "jax" else {"loss": 0.0}


def test_an_optimizer_that_is_never_used_is_told():
    model = Idle([keras.Input((None, None, None, 3)), toy.Level()])
    model.compile(keras.optimizers.SGD(0.1, name="main"), level)
    with pytest.raises(ValueError, match=r"train_step has not updated the optimizer of compile, main \(SGD\)"):
        fit(model, MultigridCallback(SCHEDULE))


def test_several_optimizers_in_a_loop_of_ones_own():
    optimizers = [keras.optimizers.SGD(ScaledLR(rate, SCHEDULE)) for rate in (0.1, 0.5)]
    weights = [keras.Variable(0.0), keras.Variable(0.0)]
    for optimizer, weight in zip(optimizers, weights, strict=True):
        optimizer.build([weight])
    for _, (clips, _) in batches(SCHEDULE, toy.read):
        assert len(clips)
        for optimizer, weight in zip(optimizers, weights, strict=True):
            optimizer.apply([keras.ops.ones(())], [weight])
    close([number(weight) for weight in weights], [-0.1 * SCALES.sum(), -0.5 * SCALES.sum()])
