"""One look at every shape of a schedule before `fit`: does the model take it, and in what time."""

from __future__ import annotations

import math
import operator
import re
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from pymultigrid import Cycles, Report, Schedule, Shape, ShapeCost, Step, _arguments
from pymultigrid._preflight import iterations, planned_steps
from pymultigrid._progress import bar
from pymultigrid._sample import Batch, mini_batch
from pymultigrid.keras._batches import Read, checked, over_and_over
from pymultigrid.keras._feature_maps import FeatureMaps
from pymultigrid.keras._model import check_compiled, check_norms
from pymultigrid.keras._snapshot import Snapshot, copied
from pymultigrid.keras._train_function import TrainFunction, attach

_READ = 4  # clips that are read for each shape, and repeated to its mini-batch
_OUT_OF_MEMORY = re.compile("out of memory|RESOURCE_EXHAUSTED|OOM when|DefaultCPUAllocator|bad.?alloc", re.IGNORECASE)


def preflight(
    model: Any,
    schedule: Schedule,
    read: Read,
    *,
    base: int = 8,
    rank: int | None = None,
    repeats: int = 3,
    progress: bool = True,
) -> Report:
    """Train a few steps at every shape of a schedule, report their time and what is wrong, and take them back.

    Each shape is trained as `fit` with a `MultigridCallback` does: with the compiled optimizer, loss and metrics, the
    scaled learning rate and the sub-batches of batch norm. A few clips of it are read and repeated to a mini-batch.
    The model is left as it was, to the bit: weights, the state of its optimizer, metrics and seed generators, its train
    function, its layers' attributes (not what a list or an array of your own in them holds). The full shape comes
    first, then the largest.

    >>> import keras, numpy as np
    >>> from pymultigrid import Cycles, Schedule, Shape
    >>> from pymultigrid.keras import preflight
    >>> schedule = Schedule(Shape(2, 4, 8, 8), samples=10, epochs=4, plan=Cycles(short=None))
    >>> def read(samples):
    ...     b, t, h, w = samples[0].step.shape
    ...     return np.zeros((len(samples), t, h, w, 3), "float32"), np.zeros(len(samples))
    >>> model = keras.Sequential(
    ...     [keras.Input((None, None, None, 3)), keras.layers.GlobalAveragePooling3D(), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> report = preflight(model, schedule, read, repeats=1, progress=False)
    >>> row = report[schedule.shape]
    >>> row.fits, 0 < row.seconds < 10, int(model.optimizer.iterations)
    (2, True, 0)
    >>> schedule = Schedule(Shape(2, 4, 8, 8), samples=10, epochs=4, plan=Cycles(short=None), costs=report.costs)

    Parameters
    ----------
    model
        Compiled and built, as `fit` will get it.
    schedule
        All its shapes are trained, also of a slice.
    read
        What `batches` takes: from samples to (clips, labels). Of a `VideoDataset` it is ``dataset.read``. It is timed
        too, to say how many threads keep up.
    base, rank
        Those of `MultigridCallback` and of `batches`.
    repeats
        Timed steps of each shape after its first one; their median counts.
    progress
        Show a progress bar where tqdm is installed.

    Warns
    -----
    RuntimeWarning
        A shape does not fit the memory, or the model is too coarse for it; or what `fit` would refuse or warn of: a
        batch norm that was not converted, its momentum, a learning-rate schedule of another length.

    Raises
    ------
    TypeError
        `schedule` is no Schedule, or `read` no function.
    ValueError
        `repeats` is below 1, the model is not built, or compiled for what no schedule can be trained with.
    RuntimeError
        The model failed at a shape for another reason than memory.

    Notes
    -----
    Memory is not measured: the backends count it in ways of their own, or not at all. A mini-batch that the memory has
    no room for is halved until it fits, and reported. Where a shape is trained with several numbers of sub-batches, the
    slowest counts. The first step's time has tracing and compiling in it, where Keras does that.
    """
    steps = _checked_steps(model, schedule, read, repeats)
    if operator.index(base) < 1:
        raise ValueError(f"base ({base}) must be at least 1: the clips of a sub-batch")
    _arguments.flag("progress", progress)
    whole, notes = schedule.whole, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        training = TrainFunction(model, whole, base=base)
        try:
            check_norms(model, whole, base=base)
        except ValueError as error:
            notes.append(str(error))
    notes += [str(warning.message) for warning in caught]
    samples = {shape: _samples(whole, steps[shape][0], rank) for shape in steps}
    parts, read_seconds = _read(read, samples)
    seconds: dict[Shape, tuple[float, float, int]] = {}
    snapshot = Snapshot(model)
    try:
        trials = Trials(training, snapshot, list(parts.values()), repeats)
        order = sorted(steps, key=lambda shape: shape != whole.shape)
        for shape in bar(order, progress, desc="preflight: time", unit="shape"):
            unlike = {training.splits(step): step for step in steps[shape]}.values()
            seconds[shape] = trials.slowest(list(unlike), parts[shape], len(samples[shape]))
        maps = FeatureMaps(model, {shape: part[0] for shape, part in parts.items()})
    finally:
        snapshot.restore()
    rows = []
    for shape in steps:
        took, first, clips = seconds[shape]
        fits = clips * shape.b // len(samples[shape])
        many = iterations(whole, shape)
        rows.append(ShapeCost(shape, many, took, None, fits, maps.smallest(shape), read_seconds[shape], first))
    timed = f"training step of Keras on {keras.backend.backend()}"
    report = Report(whole, _device(model), None, tuple(rows), tuple(notes), maps.patch, timed)
    for text in report.warnings:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return report


class Trials(keras.callbacks.Callback):
    """Times training steps inside of `fit`, in the place of its train function."""

    def __init__(self, training: TrainFunction, snapshot: Snapshot, unlike: list[Any], repeats: int) -> None:
        super().__init__()
        self._training = training
        self._snapshot = snapshot
        self._unlike = unlike
        self._repeats = repeats
        self._seconds: list[float] = []
        self._step: Step | None = None
        self._whole = True

    def slowest(self, steps: list[Step], part: Any, clips: int) -> tuple[float, float, int]:
        """Return the seconds of the slowest of these steps, of its first time, and how many of its clips fitted."""
        found = []
        for step in steps:
            fitted = clips
            while fitted and not self._attempt(step, part, fitted, clips):
                fitted //= 2
            scale = clips / fitted if fitted else math.nan
            first, *more = self._seconds if fitted else [math.nan, math.nan]
            found.append((statistics.median(more) * scale, first * scale, fitted))
        return max(found, key=lambda each: (-each[2], each[0]))

    def _attempt(self, step: Step, part: Any, fitted: int, clips: int) -> bool:
        """Train a step of this many clips a few times; return whether the memory has room for it."""
        self._snapshot.restore()
        self._step, self._seconds, self._whole = step, [], fitted == clips
        batch = keras.tree.map_structure(lambda x: np.take(x, np.arange(fitted) % len(x), axis=0), part)
        data = over_and_over(batch, self._unlike)
        try:
            self._training.model.fit(
                data, steps_per_epoch=1 + self._repeats, callbacks=[self], shuffle=False, verbose=0
            )
        except Exception as error:
            if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
                return False
            raise RuntimeError(_told(step.shape, self._training.schedule.shape, error)) from error
        return True

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Stand where `fit` looks for its train function."""
        self._training.model.train_function = self._timed

    def _timed(self, *args: Any) -> Any:
        assert self._step is not None
        start = time.perf_counter()
        try:
            logs, state, shapes = self._training.run(self._step, *args)
        except BaseException:
            attach(self._training.model, args[0] if keras.backend.backend() == "jax" else None)
            raise
        _wait(self._training.model, state)
        self._seconds.append(time.perf_counter() - start)
        if self._whole:
            self._training.check_shapes(self._step, shapes)
        return logs if state is None else (logs, state)


def _checked_steps(model: Any, schedule: Any, read: Any, repeats: Any) -> dict[Shape, list[Step]]:
    """Refuse wrong arguments; return every shape with the steps that are trained at it."""
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule; write Schedule(shape, ...)")
    if not callable(read):
        raise TypeError(f"read ({read!r}) must be a function from samples to (clips, labels); a VideoDataset has .read")
    if _arguments.whole("repeats", repeats) < 1:
        raise ValueError(f"repeats ({repeats}) must be at least 1: the steps that are timed")
    if not getattr(model, "compiled", False):
        raise ValueError(f"model ({type(model).__name__}) is not compiled; call model.compile as for fit")
    check_compiled(model)
    unbuilt = [layer.name for layer in model._flatten_layers() if not layer.built]
    if unbuilt:
        raise ValueError(
            f"model ({model.name}) is not built, nor is its layer {unbuilt[-1]}, so it has no weights to be put back; "
            "begin it with keras.Input, or call it once on a mini-batch"
        )
    if not model.optimizer.built:
        strategy = getattr(model, "distribute_strategy", None)
        build: Callable[[Any], None] = model.optimizer.build
        if strategy is None:
            build(model.trainable_variables)
        else:
            with strategy.scope():
                build(model.trainable_variables)
    return planned_steps(schedule.whole)


def _samples(schedule: Schedule, step: Step, rank: int | None) -> Batch:
    """Return the samples of a step; of one that no schedule has, those of a schedule for it alone."""
    if step.index >= len(schedule) or schedule[step.index] != step:
        plan = Cycles(long=None, short=None)
        schedule = Schedule(step.shape, samples=schedule.samples, epochs=1, processes=schedule.processes, plan=plan)
        step = schedule[0]
    return mini_batch(schedule, step, seed=0, rank=rank)


def _read(read: Read, samples: dict[Shape, Batch]) -> tuple[dict[Shape, Any], dict[Shape, float]]:
    """Return a few clips of each shape, with all that belongs to them, and how long one thread reads a mini-batch."""
    parts, seconds = {}, {}
    for shape, batch in samples.items():
        few = batch[:_READ]
        checked(read, few)  # the system has seen the files then
        start = time.perf_counter()
        parts[shape] = checked(read, few)
        seconds[shape] = (time.perf_counter() - start) * len(batch) / len(few)
    return parts, seconds


def _wait(model: Any, state: Any) -> None:
    """Wait until the step is done: backends go on with the program meanwhile."""
    if state is not None:
        for value in keras.tree.flatten(state):
            value.block_until_ready()
    elif model.trainable_variables:
        copied(min(model.trainable_variables, key=lambda variable: math.prod(variable.shape)).value)


def _told(shape: Shape, full: Shape, error: Exception) -> str:
    if shape == full:
        return f"the mini-batch {shape}, which is the baseline's, failed: {error}"
    return (
        f"the mini-batch {shape} failed, and {full} did not: {error}; begin the model with keras.Input((None, None, "
        "None, channels)) and pool globally, keep sizes that its strides divide with multiple_of= and "
        "frames_multiple_of= of the schedule, or take milder factors (plan=Cycles(long=, short=))"
    )


def _device(model: Any) -> str:
    """Return where the weights are, in words."""
    device = next((getattr(variable.value, "device", "cpu") for variable in model.variables), "cpu")
    return "the CPU" if "cpu" in str(device).lower() else "the GPU"
