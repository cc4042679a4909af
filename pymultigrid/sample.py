"""Which clips make a mini-batch."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymultigrid._core import Grid, Step
from pymultigrid.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip of a mini-batch: which video, and on which grid.

    It stands in for the index that a list or data set expects (``__index__``).

    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.sample import mini_batch
    >>> schedule = Schedule.from_epochs(Shape(4, 16, 112, 112), samples=100, epochs=10)
    >>> sample = mini_batch(schedule, schedule[0], seed=0)[0]
    >>> grid = sample.grid((120, 128, 171), stride=2)
    >>> (grid.t.size, grid.h.size, grid.w.size) == tuple(sample.step.shape)[1:]
    True
    >>> list(range(100))[sample] == sample.index
    True

    Parameters
    ----------
    index
        Which of the schedule's ``samples`` videos.
    step
        The iteration that trains on it; ``step.shape`` is the shape of the whole mini-batch.
    position
        The clip's position in the stream of clips over all processes; it keys the random draw of the grid.
    seed
        The run's.
    """

    index: int
    step: Step
    position: int
    seed: int

    def grid(self, extent: Sequence[int], **options: Any) -> Grid:
        """Return this clip's grid over a video of `extent` (frames, height, width); `options` as `Step.grid` takes."""
        return self.step.grid(extent, seed=self.seed, sample=self.position, **options)

    def __index__(self) -> int:
        return self.index


def mini_batch(schedule: Schedule, step: Step, *, seed: int, rank: int | None = None) -> list[Sample]:
    """Return the samples of a step: those of one rank, or with None those of all the schedule's processes in order.

    >>> from pymultigrid import Schedule, Shape
    >>> schedule = Schedule.from_epochs(Shape(4, 16, 112, 112), samples=100, epochs=10, processes=2)
    >>> both = mini_batch(schedule, schedule[-1], seed=0)
    >>> len(both), both[4:] == mini_batch(schedule, schedule[-1], seed=0, rank=1)
    (8, True)

    Raises
    ------
    ValueError
        The seed is not in [0, 2**64), or the rank none of the schedule's processes.
    """
    seed = whole_number("seed", seed, 2**64, "take it modulo 2**64")
    first, count = step.first, step.shape.b
    if rank is None:
        count *= schedule.processes
    else:
        next_move = "build the schedule with the number of processes that train together"
        first += whole_number("rank", rank, schedule.processes, next_move) * count
    return [Sample(schedule.sample(p, seed=seed), step, p, seed) for p in range(first, first + count)]


def whole_number(name: str, value: int, stop: int, next_move: str) -> int:
    """Return `value`, a whole number in [0, stop)."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} ({value!r}) must be a whole number") from None
    if not 0 <= number < stop:
        bound = "2**64" if stop == 2**64 else stop
        raise ValueError(f"{name} ({number}) must lie in [0, {bound}); {next_move}")
    return number
