"""Train a small 3-D CNN on the demo's video files with Keras 3: python examples/keras_demo.py [--baseline].

The files, the network's layout, the schedule and the learning rates are those of examples/demo, which trains with
PyTorch. KERAS_BACKEND=tensorflow, jax or torch chooses the backend.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from time import perf_counter

import keras
from keras import layers

from pymultigrid import Cycles, Schedule, Shape
from pymultigrid.keras import MultigridCallback, SubBatchNormalization, VideoDataset

sys.path.insert(0, str(Path(__file__).parent / "demo"))

from videos import DIGITS, MOTIONS, Split, write_split

FULL = Shape(8, 8, 40, 40)
BASE_LR = {"baseline": 0.1, "long+short": 0.05}  # the PyTorch demo's, tuned there
WARM_UP = 0.1  # of the training
WIDTHS = (16, 24, 48, 64)
STRIDES = ((1, 2), (2, 1), (1, 1))  # (in time, in space) of the blocks


def network() -> keras.Model:
    """Return the network: clips of any T, H and W to the logits of digit and motion."""
    clips = keras.Input((None, None, None, 3))
    x = layers.ReLU()(normalised(convolution(WIDTHS[0], (1, 5, 5), (1, 2, 2))(clips)))
    for width, (time, space) in zip(WIDTHS[1:], STRIDES, strict=True):
        body = layers.ReLU()(normalised(convolution(width, (1, 3, 3), (1, space, space))(x)))
        body = normalised(convolution(width, (3, 1, 1), (time, 1, 1))(body))
        shortcut = normalised(convolution(width, 1, (time, space, space))(x))
        x = layers.ReLU()(layers.Add()([body, shortcut]))
    in_time = keras.ops.mean(x, 1)
    cells = layers.Concatenate()([layers.GlobalAveragePooling2D()(in_time), layers.GlobalMaxPooling2D()(in_time)])
    features = layers.LayerNormalization(epsilon=1e-5)(cells)
    return keras.Model(
        clips, (layers.Dense(DIGITS, name="digit")(features), layers.Dense(MOTIONS, name="motion")(features))
    )


def convolution(width: int, kernel: int | tuple[int, int, int], strides: tuple[int, int, int]) -> layers.Layer:
    return layers.Conv3D(width, kernel, strides, padding="same", use_bias=False, kernel_initializer="he_uniform")


def normalised(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def compiled(model: keras.Model, schedule: Schedule, base_lr: float) -> keras.Model:
    """Compile as for the baseline: its iterations, its learning rate; nothing here knows of multigrid."""
    warm_up = round(WARM_UP * schedule.baseline_iterations)
    cosine = keras.optimizers.schedules.CosineDecay(
        0.0, schedule.baseline_iterations - warm_up, warmup_target=base_lr, warmup_steps=warm_up
    )
    model.compile(
        keras.optimizers.SGD(cosine, momentum=0.9, nesterov=True, weight_decay=1e-4, global_clipnorm=1.0),
        [keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in range(2)],
        metrics=["accuracy", "accuracy"],
    )
    return model


def read(split: Split) -> VideoDataset:
    return VideoDataset(split.paths, split.labels, mean=0.45, std=0.2, stride=3, flip=0.0)


def train(kind: str, training: VideoDataset, test: VideoDataset, epochs: float, seed: int) -> float:
    """Train from the first weights of `seed`; return the share of test videos whose digit and motion are right."""
    plan = Cycles() if kind == "long+short" else Cycles(long=None, short=None)
    schedule = Schedule(FULL, samples=len(training), epochs=epochs, plan=plan, multiple_of=4)
    keras.utils.set_random_seed(seed)
    model = compiled(SubBatchNormalization.convert(network()), schedule, BASE_LR[kind])
    multigrid = MultigridCallback(schedule)
    rounds = max(1, round(epochs))
    start = perf_counter()
    model.fit(
        training.training(multigrid, seed=seed),
        epochs=rounds,
        steps_per_epoch=math.ceil(len(schedule) / rounds),
        callbacks=[multigrid],
        shuffle=False,
        verbose=2,
    )
    seconds = perf_counter() - start
    views = test.evaluation(schedule.shape)
    digit, motion = (logits.argmax(1) for logits in model.predict(views, verbose=0))
    labels = zip(digit, motion, strict=True)
    right = [answer == label for answer, label in zip(labels, test.labels, strict=True)]
    accuracy = sum(right) / len(right)
    print(f"{kind} on {keras.backend.backend()}: {len(schedule)} iterations, {seconds:.0f} s;", end=" ")
    print(f"digit and motion right in {100 * accuracy:.1f} % of {len(test)} test videos")
    return accuracy


def main() -> None:
    """Write the videos, train, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder to write to (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the first weights and the clips")
    parser.add_argument("--videos", type=int, default=1200, help="training videos; a third as many for the test")
    parser.add_argument("--epochs", type=float, default=8.0, help="length of the baseline")
    parser.add_argument("--baseline", action="store_true", help="train the baseline, without multigrid")
    options = parser.parse_args()
    data = options.output / "data"
    training = read(write_split(data, "train", options.videos, options.seed))
    test = read(write_split(data, "test", max(1, options.videos // 3), options.seed))
    train("baseline" if options.baseline else "long+short", training, test, options.epochs, options.seed)


if __name__ == "__main__":
    main()
