"""Time `resample` inside a `tf.data` map beside a chain of tf.image, and what a new shape costs a Keras model.

    python benchmarks/keras_data.py [--rounds 5]

The work of a clip: 16 of 32 frames of 256 x 320, a box of about 0.8 of the area, a flip, to 224 x 224 or 4 frames of
112 x 112, normalised, float32 T x H x W x C. Times are the process's own, medians over interleaved rounds. For the
shapes: a train step of a small 3-D CNN in a shape it has not seen, less a step in the same shape again.
"""

import argparse
import importlib
import importlib.util
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from pymultigrid import Axis, Grid, resample

MEAN, STD = np.array([0.45, 0.44, 0.40], "f4"), np.array([0.225, 0.22, 0.23], "f4")
VIDEOS, Y, X, H, W = 8, 12, 16, 230, 286
SIZES = ((16, 224, 224), (4, 112, 112))


def ours(tf: Any, videos: Any, size: tuple[int, int, int]) -> Any:
    grid = Grid(Axis(0, 32, size[0]), Axis(Y, H, size[1]), Axis(X + W, -W, size[2]))

    def read(video: np.ndarray) -> Any:
        return resample(video, grid, mean=MEAN.tolist(), std=STD.tolist(), layout="THWC", threads=1)

    def load(video: Any) -> Any:
        return tf.numpy_function(read, [video], tf.float32)

    return videos.map(load, num_parallel_calls=1)


def tf_image(tf: Any, videos: Any, size: tuple[int, int, int]) -> Any:
    def read(video: Any) -> Any:
        box = video[:: 32 // size[0], Y : Y + H, X : X + W]
        clip = tf.reverse(tf.image.resize(box, size[1:], antialias=True), [2])
        return (clip / 255 - MEAN) / STD

    return videos.map(read, num_parallel_calls=1)


def median(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return median seconds of the process's own time by name, interleaved."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            times[name].append(time.process_time() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def pipelines(tf: Any, rounds: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (VIDEOS, 32, 256, 320, 3), dtype=np.uint8)
    videos = tf.data.Dataset.from_tensor_slices(pixels)
    for size in SIZES:
        mine, theirs = ours(tf, videos, size), tf_image(tf, videos, size)
        for a, b in zip(mine, theirs, strict=True):
            off = np.abs(a - b).max() * 255 * STD.max()
            if off > 0.1:
                raise SystemExit(f"tf.image does other work than ours on {size}: {off:.3f} levels apart")
        pipes = {"source": videos, "ours": mine, "tf.image": theirs}
        works: dict[str, Callable[[], object]] = {name: partial(list, pipe) for name, pipe in pipes.items()}
        seconds = {name: 1e3 * s / VIDEOS for name, s in median(rounds, works).items()}
        ratio = seconds["tf.image"] / seconds["ours"]
        print(
            f"{'x'.join(map(str, size)):>10}: a clip in {seconds['ours']:.1f} ms, by tf.image in "
            f"{seconds['tf.image']:.1f} ms, {ratio:.1f}x (reading the source takes {seconds['source']:.1f} ms of both)"
        )


def shapes(keras: Any) -> None:
    """Print what a shape that is new to a model costs."""
    layers = keras.layers
    norm = importlib.import_module("pymultigrid.keras").SubBatchNormalization
    for jit in (False, True):
        for splits in (1, 8):
            stack = [keras.Input((None, None, None, 3))]
            for width in (16, 32, 64):
                stack += [layers.Conv3D(width, 3, strides=2, padding="same"), norm(), layers.ReLU()]
            model = keras.Sequential([*stack, layers.GlobalAveragePooling3D(), layers.Dense(10)])
            model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=jit)
            for layer in model.layers:
                layer.splits = splits
            costs = []
            for b, t, h in ((16, 4, 28), (32, 4, 20), (8, 8, 40), (16, 8, 28)):
                clips, labels = np.zeros((b, t, h, h, 3), "f4"), np.zeros(b)
                seconds = []
                for _ in range(2):
                    start = time.process_time()
                    model.train_on_batch(clips, labels)
                    seconds.append(time.process_time() - start)
                costs.append(f"{seconds[0] - seconds[1]:.2f}")
            kind = f"{keras.backend.backend()}{', jit_compile' if jit else ''}, {splits} sub-batches"
            print(f"{kind}: first shape {costs[0]} s, further shapes {', '.join(costs[1:])} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if importlib.util.find_spec("tensorflow"):
        tf = importlib.import_module("tensorflow")
        tf.config.threading.set_intra_op_parallelism_threads(1)
        pipelines(tf, args.rounds)
    shapes(importlib.import_module("keras"))


if __name__ == "__main__":
    main()
