"""Which clips make a mini-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from pymultigrid import _arguments, _core
from pymultigrid._core import Grid, Step
from pymultigrid._schedule import Schedule


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip of a mini-batch, on its way to where videos are read: which video, and on which grid.

    It stands in for the index that a list or data set expects (``__index__``), so one that only looks up a list works
    as it is; one that reads videos asks for the grid.

    >>> from pymultigrid import Schedule, Shape, mini_batch
    >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10)
    >>> sample = mini_batch(schedule, schedule[0], seed=0)[0]
    >>> grid = sample.grid((120, 128, 171), stride=2)
    >>> (grid.t.size, grid.h.size, grid.w.size) == tuple(sample.step.shape)[1:]
    True
    >>> list(range(100))[sample] == sample.index
    True

    Parameters
    ----------
    index
        Which of the `samples` videos. In a stream, where the video is at hand, -1.
    step
        The iteration that trains on it; ``step.shape`` is the shape of the whole mini-batch.
    position
        The clip's position in the stream of clips over all processes; it keys the random draw of the grid.
    seed
        The run's.
    samples
        How many videos the schedule was made for: the length of the data set.
    """

    index: int
    step: Step
    position: int
    seed: int
    samples: int

    def grid(self, extent: Sequence[int], **options: Any) -> Grid:
        """Return this clip's grid over a video of `extent` (frames, height, width); `options` as `Step.grid` takes."""
        return self.step.grid(extent, seed=self.seed, sample=self.position, **options)

    def __index__(self) -> int:
        return self.index

    # What a data set made of several does with an index: find its part, and count from the part's beginning.
    def __lt__(self, other: int) -> bool:
        return self.index < other

    def __sub__(self, videos: int) -> Sample:
        return Sample(self.index - videos, self.step, self.position, self.seed, self.samples - videos)


@dataclass(frozen=True, slots=True)
class Batch(Sequence[Sample]):
    """The samples of a mini-batch, each made when asked for: cheap to send to a worker.

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
        Of its clips in the stream of clips over all processes.
    indices
        Of its videos.
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
    """Return the samples of a step: those of one rank, or with None those of all the schedule's processes in order.

    >>> from pymultigrid import Schedule, Shape, mini_batch
    >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10, processes=2)
    >>> both = mini_batch(schedule, schedule[-1], seed=0)
    >>> len(both), both[4:] == mini_batch(schedule, schedule[-1], seed=0, rank=1)
    (8, True)

    Raises
    ------
    ValueError
        The seed is not in [0, 2**64), or the rank none of the schedule's processes; or the schedule has no ``samples``.
    """
    seed = _arguments.seed(seed)
    first, count = step.first, step.shape.b
    if rank is None:
        count *= schedule.processes
    else:
        first += _arguments.rank(rank, schedule.processes) * count
    schedule.sample(first, seed=seed)  # refuses a schedule that does not know its videos
    videos = _core.shuffle(first, count, schedule.samples, seed)
    return Batch(step, range(first, first + count), tuple(videos), seed, schedule.samples)
