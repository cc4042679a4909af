"""Where a multigrid training meets the rest of a program: other callbacks, exceptions, other trainings, the end."""

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
from toy import BACKEND, SCHEDULE, Record, close, fit, level_model, number, plain_fit

from pymultigrid.keras import MultigridCallback, SubBatchNormalization, batches

SHAPES = [tuple(step.shape) for step in SCHEDULE]
SCALES = np.array([step.lr_scale for step in SCHEDULE])


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
