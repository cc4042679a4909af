"""Which clips make a mini-batch: a batch sampler over the steps of a schedule."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymultigrid import Grid, Schedule, Step
from torch import distributed
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip of a mini-batch, on its way from the sampler to the data set: which video, and on which grid.

    It stands in for the index that a data set expects (``__index__``), so one that only looks up a list works as it is;
    one that reads videos asks for the grid.

    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import BatchSampler
    >>> schedule = Schedule.from_epochs(Shape(4, 16, 112, 112), samples=100, epochs=10)
    >>> sample = next(iter(BatchSampler(schedule)))[0]
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


class BatchSampler(Sampler[list[Sample]]):
    """The mini-batches of a schedule, for ``DataLoader(dataset, batch_sampler=...)``.

    Step i gives ``step.shape.b`` samples, those at positions ``step.first + rank * b`` and up of the schedule's stream
    of clips. Every process and every worker computes the same step, so shapes agree without talking; batches are never
    short and never padded. Resuming is slicing: ``BatchSampler(schedule[start:])`` gives the same batches as the run
    that was interrupted.

    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import BatchSampler
    >>> schedule = Schedule.from_epochs(Shape(4, 16, 112, 112), samples=100, epochs=10)
    >>> batches = BatchSampler(schedule, seed=0)
    >>> len(batches) == len(schedule)
    True
    >>> print([(len(batch), str(batch[0].step.shape)) for batch in batches][-1])
    (4, '4x16x112x112')

    The data loader runs ahead of training: take the step from ``zip(schedule, loader)``, not from the sampler.

    Parameters
    ----------
    schedule
        The steps to take, often a slice. Its ``samples`` is the length of the data set.
    seed
        The run's, in [0, 2**64): it decides the order of the videos and every grid.
    rank
        Which of the schedule's ``processes`` this is. None: 0 for one process, else ``torch.distributed``'s rank.

    Raises
    ------
    ValueError
        The rank or seed is out of its range, or torch.distributed runs another number of processes than the schedule.
    RuntimeError
        The schedule is for several processes, `rank` is None and torch.distributed has not been initialised.

    Notes
    -----
    Source: Wu et al. 2020, section 3 (batch sizes); the sharding and the stream of clips are ours.
    """

    def __init__(self, schedule: Schedule, *, seed: int = 0, rank: int | None = None) -> None:
        super().__init__()
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule; see Schedule.from_epochs")
        self.schedule = schedule
        self.seed = _seed(seed)
        self.rank = _rank(schedule.processes, rank)

    def __len__(self) -> int:
        return len(self.schedule)

    def __iter__(self) -> Iterator[list[Sample]]:
        sample, seed = self.schedule.sample, self.seed
        for step in self.schedule:
            first = step.first + self.rank * step.shape.b
            positions = range(first, first + step.shape.b)
            yield [Sample(sample(p, seed=seed), step, p, seed) for p in positions]


def _whole(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} ({value!r}) must be a whole number") from None


def _seed(seed: int) -> int:
    number = _whole("seed", seed)
    if not 0 <= number < 2**64:
        raise ValueError(f"seed ({number}) must lie in [0, 2**64); take it modulo 2**64")
    return number


def _rank(processes: int, rank: int | None) -> int:
    if rank is not None:
        number = _whole("rank", rank)
        if not 0 <= number < processes:
            raise ValueError(
                f"rank ({number}) must lie in [0, {processes}), the schedule's processes; "
                "build the schedule with the number of processes that train together"
            )
        return number
    world = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else None
    if world is None and processes > 1:
        raise RuntimeError(
            f"the schedule is for {processes} processes and torch.distributed is not initialised; "
            "call torch.distributed.init_process_group first, or pass rank="
        )
    if world is not None and world != processes:
        # With one set of ranks on another schedule, processes would train on the same clips and nobody would notice.
        raise ValueError(
            f"torch.distributed runs {world} processes, the schedule is for {processes}; "
            f"build it with processes={world} (to resume: schedule.with_processes({world})), "
            "or pass rank= where several processes mean to share clips"
        )
    return 0 if world is None else distributed.get_rank()
