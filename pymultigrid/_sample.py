"""Which clips make a mini-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from pymultigrid import _arguments, _core
from pymultigrid._core import Grid, Step
from pymultigrid._schedule import Schedule


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One clip of a mini-batch: which video to read, and on which grid.

    A data set is indexed by samples instead of numbers. A sample indexes a list (``labels[sample]``) and compares with
    numbers as its index does, but it is not a number, because the same video is read on another grid at another step.
    It therefore can't be a dictionary key, and ``int(sample)`` raises an error that says what to do.

    >>> from pymultigrid import Schedule, Shape, mini_batch
    >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10)
    >>> sample = mini_batch(schedule, schedule[0], seed=0)[0]
    >>> grid = sample.grid((120, 128, 171), stride=2)
    >>> (grid.t.size, grid.h.size, grid.w.size) == tuple(sample.step.shape)[1:]
    True
    >>> sample == sample.index, list(range(100))[sample] == sample.index
    (True, True)

    Parameters
    ----------
    index
        Which of the `samples` videos; -1 in a stream, where the video is already at hand.
    step
        The iteration that trains on it; ``step.shape`` is the shape of the whole mini-batch.
    position
        The clip's position in the stream of clips over all processes; it keys the random draw of the grid.
    seed
        The run's seed.
    samples
        Number of videos that the schedule was made for: the length of the data set.
    before
        For a data set that is part of a larger one (``ConcatDataset``): the number of videos before that part.
    """

    index: int
    step: Step
    position: int
    seed: int
    samples: int
    before: int = 0

    def grid(self, extent: Sequence[int], **options: Any) -> Grid:
        """Return this clip's grid over a video of `extent` (frames, height, width); `options` as `Step.grid` takes.

        A video that is too short for the schedule's full shape is refused at every step, not only at the full shape.
        """
        grid = self.step.grid(extent, seed=self.seed, sample=self.position, **options)
        check_length(extent[0], self.step.baseline.t, **options)
        return grid

    @property
    def own_seed(self) -> int:
        """A seed in [0, 2**32) for random numbers of your own: a function of this clip's `seed` and `position`.

        >>> import numpy
        >>> from pymultigrid import Schedule, Shape, mini_batch
        >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10)
        >>> first, second = mini_batch(schedule, schedule[0], seed=0)[:2]
        >>> first.own_seed, second.own_seed
        (2968811710, 3964924996)
        >>> rng = numpy.random.default_rng(first.own_seed)  # the same in every process, and after a resume
        """
        return int(np.random.SeedSequence((self.seed, self.position)).generate_state(1)[0])

    def __index__(self) -> int:
        return self.index

    def __int__(self) -> int:
        raise TypeError(f"a Sample can't be converted to a plain number: {_NO_NUMBER}")

    def __hash__(self) -> int:
        raise TypeError(
            "a Sample can't be a key: the same video is read again on another grid. Cache whole videos under "
            "sample.index, and read each clip on sample.grid(extent)"
        )

    # A data set made of several finds the part that an index is in and subtracts where that part begins.
    def __sub__(self, videos: int) -> Sample:
        before = self.before + videos
        return Sample(self.index - videos, self.step, self.position, self.seed, self.samples - videos, before)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sample):
            return self._fields() == other._fields()
        return self.index == other

    def __lt__(self, other: float) -> bool:
        return self.index < self._count(other)

    def __le__(self, other: float) -> bool:
        return self.index <= self._count(other)

    def __gt__(self, other: float) -> bool:
        return self.index > self._count(other)

    def __ge__(self, other: float) -> bool:
        return self.index >= self._count(other)

    def _fields(self) -> tuple[Any, ...]:
        return self.index, self.step, self.position, self.seed, self.samples, self.before

    def _count(self, other: float | Sample) -> float:
        """Return the number that the index is compared with, usually where a part of the data set ends."""
        if isinstance(other, Sample):
            raise TypeError(f"samples have no order among themselves: {_NO_NUMBER}")
        if isinstance(other, int) and self.index >= 0 and other > self.samples:
            raise ValueError(
                f"the schedule was made for samples={self.samples + self.before}, and the data set has at least "
                f"{other + self.before} videos: some would never be read; make it with samples=len(dataset), of the "
                "whole data set"
            )
        return other


_NO_NUMBER = (
    "it says which video (sample.index) and on which grid (sample.grid(extent)). A data set that is indexed by "
    "numbers only (Hugging Face's, a table, a Subset) loses the grid: wrap it in one of your own, whose "
    "__getitem__(sample) takes item sample.index of it and reads the clip on sample.grid(extent)"
)


def check_length(
    frames: int, most: int, *, stride: int = 1, segments: bool = False, beyond: str = "error", **_: Any
) -> None:
    """Refuse a video that is too short for a clip of `most` frames now, rather than hours later."""
    if beyond != "error" or frames >= most * (1 if segments else stride):
        return
    if segments:
        raise ValueError(
            f"the video has {frames} frames, fewer than the {most} segments of the full shape, which training "
            'reaches later; pass beyond="clamp" to repeat some'
        )
    raise ValueError(
        f"the video has {frames} frames, fewer than the clip's {most} frames x stride {stride} = {most * stride} of "
        'the full shape, which training reaches later; pass beyond="clamp" or beyond="loop", or a smaller stride'
    )


@dataclass(frozen=True, slots=True)
class Batch(Sequence[Sample]):
    """The samples of a mini-batch, each made on access, so that the batch is cheap to send to a worker.

    >>> from pymultigrid import Schedule, Shape, mini_batch
    >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10)
    >>> batch = mini_batch(schedule, schedule[0], seed=0)
    >>> len(batch) == batch.step.shape.b, batch[0].position, batch[-1].index == batch.indices[-1]
    (True, 0, True)

    Parameters
    ----------
    step
        The iteration that trains on it.
    positions
        Positions of its clips in the stream of clips over all processes.
    indices
        Indices of its videos.
    seed, samples
        As in `Sample`.
    """

    step: Step
    positions: range
    indices: tuple[int, ...]
    seed: int
    samples: int

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, number: int) -> Sample: ...
    @overload
    def __getitem__(self, number: slice) -> Batch: ...
    def __getitem__(self, number: int | slice) -> Sample | Batch:
        if isinstance(number, slice):
            return Batch(self.step, self.positions[number], self.indices[number], self.seed, self.samples)
        return Sample(self.indices[number], self.step, self.positions[number], self.seed, self.samples)


def mini_batch(schedule: Schedule, step: Step, *, seed: int, rank: int | None = None) -> Batch:
    """Return the samples of a step: those of one rank, or with None those of all processes in order of rank.

    >>> from pymultigrid import Schedule, Shape, mini_batch
    >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10, processes=2)
    >>> both = mini_batch(schedule, schedule[-1], seed=0)
    >>> len(both), both[4:] == mini_batch(schedule, schedule[-1], seed=0, rank=1)
    (8, True)

    Raises
    ------
    ValueError
        The seed is not in [0, 2**64), the rank is not one of the schedule's, or the schedule has no ``samples``.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule ({schedule!r}) must be a Schedule; write Schedule(shape, samples=...)")
    if not isinstance(step, Step):
        raise TypeError(f"step ({step!r}) must be a Step, one of the schedule's: schedule[0]")
    seed = _arguments.seed(seed)
    first, count = step.first, step.shape.b
    if rank is None:
        count *= schedule.processes
    else:
        first += _arguments.rank(rank, schedule.processes) * count
    schedule.sample(first, seed=seed)  # refuses a schedule that does not know its videos
    videos = _core.shuffle(first, count, schedule.samples, seed)
    return Batch(step, range(first, first + count), tuple(videos), seed, schedule.samples)
