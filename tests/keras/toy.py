"""A toy training for the tests of the Keras adapter: bright against dark videos in memory, and what was trained."""

import os

if os.environ["KERAS_BACKEND"] == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import numpy as np

from pymultigrid import Cycles, Schedule, Shape, resample
from pymultigrid.keras import batches

BACKEND = keras.backend.backend()
VIDEOS = 40
# 12 steps of 8 shapes, two of these with two numbers of sub-batches.
SCHEDULE = Schedule(Shape(8, 4, 16, 16), samples=VIDEOS, epochs=9, plan=Cycles(cycles=1))
EXTENT = (8, 20, 24)

rng = np.random.default_rng(0)
LABELS = rng.integers(0, 2, VIDEOS)
PIXELS = rng.integers(0, 100, (VIDEOS, *EXTENT, 3)).astype("uint8")
PIXELS[LABELS == 1] += 60


def read(samples):
    grids = [sample.grid(EXTENT, stride=2, flip=0.5) for sample in samples]
    return resample([PIXELS[s] for s in samples], grids, layout="THWC", threads=1), LABELS[[s.index for s in samples]]


def number(x):
    return float(keras.ops.stop_gradient(keras.ops.copy(x)))


@keras.saving.register_keras_serializable("tests")
class Level(keras.layers.Layer):
    """One weight whose gradient is 1 under the loss `level`: its change in a step is the learning rate.

    It keeps the shape of the last mini-batch that was trained, as the layer saw it, and the mean of the clips.
    """

    def build(self, shape):
        self.level = self.add_weight(name="level", shape=(), initializer="zeros")
        self.seen = self.add_weight(name="seen", shape=(6,), initializer="zeros", trainable=False)
        self.traces = 0

    def call(self, x, training=None):
        if training:
            self.traces += 1
            seen = [*keras.ops.shape(x), keras.ops.mean(x)]
            self.seen.assign(keras.ops.stack([keras.ops.cast(value, "float32") for value in seen]))
        return keras.ops.zeros_like(x[:, 0, 0, 0, :1]) + self.level


@keras.saving.register_keras_serializable("tests")
def level(_, predicted):
    return keras.ops.mean(predicted, -1)


def level_model(lr, **options):
    model = keras.Sequential([keras.Input((None, None, None, 3)), Level()])
    model.compile(keras.optimizers.SGD(lr), level, **options)
    return model


def network():
    """A network that learns: one convolution and batch norm."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None, None, None, 3)),
            keras.layers.Conv3D(4, 3, strides=2, padding="same"),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling3D(),
            keras.layers.Dense(2),
        ]
    )


class Split(keras.layers.Layer):
    """Keep how `norm`, which comes next, is split each time that the two are trained; or traced, where they are."""

    def __init__(self, norm):
        super().__init__()
        object.__setattr__(self, "norm", norm)  # a layer of the model's, not of this one
        object.__setattr__(self, "seen", [])

    def call(self, x, training=None):
        if training:
            self.seen.append(self.norm.splits)
        return x


def split_network():
    """`network` with a `Split` for its layer 1, its batch norm after that."""
    convolution, norm, *rest = network().layers
    return keras.Sequential([keras.Input((None, None, None, 3)), convolution, Split(norm), norm, *rest])


def compiled(model, lr=0.05, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(lr, momentum=0.9), loss, metrics=["accuracy"], **options)
    return model


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=2e-5)


class Record(keras.callbacks.Callback):
    """The learning rate, shape and mean clip of each step of a `level_model`, measured, and the rate between steps."""

    def __init__(self):
        super().__init__()
        self.lrs, self.shapes, self.means, self.between = [], [], [], []

    def on_train_begin(self, logs=None):
        self.before = None

    def on_train_batch_end(self, batch, logs=None):
        layer = self.model.layers[-1]
        now = number(layer.level)
        self.lrs.append((0.0 if self.before is None else self.before) - now)
        self.before = now
        seen = keras.ops.convert_to_numpy(layer.seen.value)
        self.shapes.append(tuple(seen.astype(int).tolist())[:4])
        self.means.append(float(seen[5]))
        self.between.append(number(self.model.optimizer.learning_rate))


def fit(model, multigrid, *more, epochs=3, data=None, steps_per_epoch=None, **options):
    return model.fit(
        batches(multigrid, read) if data is None else data,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch or -(-len(multigrid.schedule.whole) // epochs),
        callbacks=[multigrid, *more],
        shuffle=False,
        verbose=0,
        **options,
    )


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
