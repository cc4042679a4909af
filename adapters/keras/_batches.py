"""Mini-batches for `model.fit` and for your own loops, read in threads, each compared with its step."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, repeat
from typing import Any, final

import keras
import numpy as np

from pymultigrid import Schedule, Step
from pymultigrid._resample import default_threads
from pymultigrid._sample import Batch, Sample, mini_batch
from pymultigrid.keras._callback import MultigridCallback

Read = Callable[[Sequence[Sample]], Any]
# Mini-batches that Keras may read to build the model before it calls any callback; JAX reads one ahead.
_BEFORE = 2 if keras.backend.backend() == "jax" else 1


def batches(
    steps: MultigridCallback | Schedule,
    read: Read,
    *,
    seed: int = 0,
    rank: int | None = None,
    workers: int | None = None,
) -> Any:
    """Return mini-batches that your own `read` reads; `VideoDataset.training` uses this.

    >>> import numpy as np
    >>> from pymultigrid import Schedule, Shape, resample
    >>> from pymultigrid.keras import batches
    >>> schedule = Schedule(Shape(2, 8, 32, 32), samples=10, epochs=4)
    >>> videos, labels = np.zeros((10, 20, 48, 48, 3), "uint8"), np.arange(10)
    >>> def read(samples):
    ...     clips = [videos[s] for s in samples]
    ...     grids = [s.grid((20, 48, 48)) for s in samples]
    ...     return resample(clips, grids, layout="THWC"), labels[[s.index for s in samples]]
    >>> for step, (clips, labels_of_clips) in batches(schedule, read):
    ...     assert clips.shape == (*tuple(step.shape), 3)

    With a `MultigridCallback`, they are for the `fit` that has it in ``callbacks``, and for no other: each time `fit`
    iterates over them they begin where training is, also in a model that was loaded or that BackupAndRestore restores.
    On TensorFlow they are a `tf.data.Dataset` with open axes (`fit` would assume that the first two mini-batches' sizes
    are fixed); on JAX and PyTorch a `keras.utils.PyDataset`, in the schedule's order whatever ``fit(shuffle=)`` says.

    With a schedule, they are for your own loop: an iterable of (step, mini-batch) with NumPy arrays, from the
    schedule's first step on.

    Parameters
    ----------
    steps
        The callback that `fit` gets, or a schedule.
    read
        Maps a sequence of samples to (clips, labels) or (clips, labels, weights), NumPy arrays or structures of them;
        called in threads. Clips have five axes, in Keras' image data format, and the T, H, W of the samples' step; of
        several arrays with five axes only one has to, so that other pathways may get fewer frames.
    seed
        The run's seed, in [0, 2**64): it decides the order of the videos and every grid.
    rank
        Which of the schedule's ``processes`` this is. None reads for all of them: one process that feeds all devices,
        as under ``tf.distribute.MirroredStrategy`` or ``keras.distribution.DataParallel``.
    workers
        Threads that read, each a mini-batch. None: as many as there are cores.

    Raises
    ------
    ValueError
        The seed or rank is out of its range, or the schedule has no ``samples``; while reading, a mini-batch is not its
        step's, or `fit` runs without the callback.
    """
    multigrid = steps if isinstance(steps, MultigridCallback) else None
    schedule = steps.schedule if isinstance(steps, MultigridCallback) else steps
    if not isinstance(schedule, Schedule):
        raise TypeError(f"steps ({steps!r}) must be a MultigridCallback, or a Schedule for a loop of your own")
    if not len(schedule):
        raise ValueError("schedule has no steps; there is nothing left to train")
    workers = default_threads() if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers ({workers}) must be at least 1: the threads that read")
    mini_batch(schedule, schedule[0], seed=seed, rank=rank)  # refuses a wrong seed or rank now

    def ahead(rest: Schedule) -> ReadAhead:
        return ReadAhead(read, (mini_batch(schedule, step, seed=seed, rank=rank) for step in rest), workers)

    if multigrid is None:
        return Batches(schedule, ahead)

    def stream() -> Iterator[Any]:
        return _stream(multigrid, ahead)

    if keras.backend.backend() != "tensorflow":
        return FitBatches(stream)
    import tensorflow as tf  # the backend of Keras here; no other part of the adapter needs it

    parts = [mini_batch(schedule, step, seed=seed, rank=rank)[:1] for step in _unlike(schedule)]
    return tf.data.Dataset.from_generator(stream, output_signature=_signature([checked(read, x) for x in parts]))


def over_and_over(batch: Any, unlike: list[Any]) -> Any:
    """Return one mini-batch again and again, as `fit` takes those of `batches`: with the axes open that are `unlike`.

    On TensorFlow it is in the graph's memory: where the clips are counted, their copy is not.
    """
    if keras.backend.backend() != "tensorflow":
        return FitBatches(lambda: repeat(batch))
    import tensorflow as tf

    def opened(*parts: Any) -> Any:
        same = tf.compat.v1.placeholder_with_default  # the one operation that forgets a size and copies nothing
        return keras.tree.map_structure(lambda x, spec: same(x, spec.shape), parts, _signature(unlike))

    return tf.data.Dataset.from_tensors(batch).map(opened).repeat()


def _signature(unlike: list[Any]) -> Any:
    """Return TensorFlow's shapes and kinds of mini-batches that differ."""
    import tensorflow as tf

    return keras.tree.map_structure(lambda *arrays: tf.TensorSpec(*_open(arrays)), *unlike)


def _stream(multigrid: MultigridCallback, ahead: Callable[[Schedule], ReadAhead]) -> Iterator[Any]:
    """Yield the mini-batches that `fit` trains next, and report each to its callback."""
    training = multigrid._running
    try:
        for number, (step, batch) in enumerate(ahead(multigrid.schedule if training is None else training.rest)):
            if training is not None:
                training.read = step.index
            elif number == _BEFORE:
                raise ValueError(
                    "the data were made of a MultigridCallback that no fit runs with; pass fit callbacks=[multigrid], "
                    "this very one, and for a loop of your own make the data of the schedule"
                )
            yield batch
    except Exception as error:
        if training is not None:
            training.error = error
        raise


def _unlike(schedule: Schedule) -> list[Step]:
    """Return a step of each T x H x W in the schedule."""
    steps: dict[tuple[int, ...], Step] = {}
    for step in schedule:
        steps.setdefault(tuple(step.shape)[1:], step)
    return list(steps.values())


def _open(arrays: Sequence[Any]) -> tuple[tuple[int | None, ...], Any]:
    """Return the shape of arrays of unlike steps, with None for the batch and all axes that differ, and their dtype."""
    sizes = zip(*(np.shape(array)[1:] for array in arrays), strict=True)
    return (None, *(each[0] if len(set(each)) == 1 else None for each in sizes)), np.asarray(arrays[0]).dtype


# -- reading ------------------------------------------------------------------------------------------------------


def checked(read: Read, samples: Batch) -> Any:
    """Read a mini-batch, and refuse one that is not its step's."""
    batch = read(samples)
    if not isinstance(batch, tuple) or len(batch) not in (2, 3):
        raise TypeError(f"read returned {type(batch).__name__} and must return a tuple: (clips, labels)")
    for name, part in zip(("clips", "labels", "weights"), batch, strict=False):
        for array in keras.tree.flatten(part):
            _check_array(name, array, samples)
    axes = slice(1, 4) if keras.config.image_data_format() == "channels_last" else slice(2, 5)
    found = [tuple(x.shape[axes]) for x in keras.tree.flatten(batch[0]) if len(x.shape) == 5]
    wanted = tuple(samples.step.shape)[1:]
    if found and wanted not in found:
        raise ValueError(
            f"read returned clips of {' and '.join('x'.join(map(str, shape)) for shape in found)} (T x H x W) for step "
            f"{samples.step.index}, whose clips are {'x'.join(map(str, wanted))}; read each on the grid of its sample, "
            "sample.grid(extent)"
        )
    return batch


def _check_array(name: str, array: Any, samples: Batch) -> None:
    shape = getattr(array, "shape", None)
    if shape is None or not len(shape):
        raise TypeError(
            f"read returned {name} with {array!r} in them, which is not an array; return NumPy arrays with one entry "
            "for each sample (np.asarray makes one from a list)"
        )
    if shape[0] != len(samples):
        raise ValueError(
            f"read returned {shape[0]} {name} for the {len(samples)} samples of step {samples.step.index}; return one "
            "for each"
        )
    if getattr(array.dtype, "kind", "f") in "OSU":
        raise TypeError(f"{name} are {array.dtype} and Keras trains on numbers; number the classes from 0 on")


@final
class ReadAhead:
    """(step, what `read` returns) of mini-batches, in order, with one more under way than there are threads.

    No generator: one that the interpreter closes at its exit could not stop its threads any more.
    """

    def __init__(self, read: Read, items: Iterator[Batch], workers: int) -> None:
        self._read = read
        self._items = items
        self._pool = ThreadPoolExecutor(workers, "pymultigrid")
        # When it is dropped, or before the interpreter ends: the threads end with what they are reading.
        self._stop = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._waiting = deque((item.step, self._submit(item)) for item in islice(items, workers + 1))

    def _submit(self, item: Batch) -> Any:
        return self._pool.submit(checked, self._read, item)

    def __iter__(self) -> ReadAhead:
        return self

    def __next__(self) -> tuple[Step, Any]:
        if not self._waiting:
            raise StopIteration
        step, future = self._waiting.popleft()
        try:
            batch = future.result()
        except BaseException:
            self._stop()
            raise
        item = next(self._items, None)
        if item is not None:
            self._waiting.append((item.step, self._submit(item)))
        elif not self._waiting:
            self._stop()
        return step, batch


@final
class Batches:
    """(step, mini-batch) for a loop of one's own; each iteration begins with the schedule's first step."""

    def __init__(self, schedule: Schedule, ahead: Callable[[Schedule], ReadAhead]) -> None:
        self._schedule = schedule
        self._ahead = ahead

    def __len__(self) -> int:
        return len(self._schedule)

    def __iter__(self) -> Iterator[tuple[Step, Any]]:
        return self._ahead(self._schedule)

    def __repr__(self) -> str:
        # Keras' fit prints it, where it is given one.
        return (
            f"<{len(self)} (step, mini-batch) for a loop of your own; fit takes those that are made of the "
            "MultigridCallback in its callbacks>"
        )


class FitBatches(keras.utils.PyDataset):
    """Mini-batches as JAX and PyTorch take them: a stream that item 0 starts anew, and that keeps its order.

    `fit` shuffles a PyDataset that has a length, so this has none: the callback ends training.
    """

    num_batches = None

    def __init__(self, stream: Callable[[], Iterator[Any]]) -> None:
        super().__init__()
        self._new_stream = stream
        self._stream: Iterator[Any] | None = None
        self._last: Any = None
        self._over = 0

    def __getitem__(self, index: int) -> Any:
        if index == 0 or self._stream is None:
            self._stream, self._over = self._new_stream(), 0
        batch = next(self._stream, None)
        if batch is not None:
            self._last = batch
            return batch
        # JAX asks for a mini-batch more than it trains.
        self._over += 1
        if self._last is None or self._over > 2:
            raise RuntimeError("the schedule is over and fit asks for more mini-batches")
        return self._last

    def __iter__(self) -> Iterator[Any]:
        return self._new_stream()
