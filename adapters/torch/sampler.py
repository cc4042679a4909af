"""Which clips make a mini-batch: a batch sampler over the steps of a schedule."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from pymultigrid import Grid, Schedule, Step, _core
from torch import distributed
from torch.utils.data import Sampler


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
        Which of the `samples` videos. In a `StreamDataset`, where the video is at hand, -1.
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

    # What torch's ConcatDataset does with an index: find its part, and count from the part's beginning.
    def __lt__(self, other: int) -> bool:
        return self.index < other

    def __sub__(self, videos: int) -> Sample:
        return Sample(self.index - videos, self.step, self.position, self.seed, self.samples - videos)


@dataclass(frozen=True, slots=True)
class Batch(Sequence[Sample]):
    """The samples of a mini-batch, made when asked for: what a `BatchSampler` yields, cheap to send to a worker.

    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import BatchSampler
    >>> schedule = Schedule.from_epochs(Shape(4, 16, 112, 112), samples=100, epochs=10)
    >>> batch = next(iter(BatchSampler(schedule)))
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


class BatchSampler(Sampler[Batch]):
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

    Gradients are accumulated over micro-batches as if each were a process of its own: the schedule is made for
    ``processes=world * accumulate``, ``shape.b`` stays what fits into memory, and a step takes `accumulate` batches:

    >>> schedule = Schedule.from_epochs(Shape(4, 16, 112, 112), samples=100, epochs=10, processes=2)
    >>> batches = iter(BatchSampler(schedule, accumulate=2))
    >>> for step in schedule:
    ...     for _ in range(2):
    ...         batch = next(batches)  # in training: clips, labels = next(batches of the loader)
    ...         assert batch.step == step

    Parameters
    ----------
    schedule
        The steps to take, often a slice. Its ``samples`` is the length of the data set.
    seed
        The run's, in [0, 2**64): it decides the order of the videos and every grid.
    rank
        Which of the ``schedule.processes / accumulate`` processes this is. None: 0 for one process, else
        ``torch.distributed``'s rank.
    accumulate
        Micro-batches per step and process.
    repeats
        So many consecutive clips of the stream are of one video, each on its own grid (repeated augmentation): as many
        clips of fewer videos, and `VideoDataset` reads each video of a batch once.
    weights
        One for each video, not negative: videos are drawn with replacement, in proportion. None: every video once in
        an epoch.

    Raises
    ------
    ValueError
        An argument is out of its range, or torch.distributed runs another number of processes than the schedule.
    RuntimeError
        The schedule is for several processes, `rank` is None and torch.distributed has not been initialised.

    Notes
    -----
    Source: Wu et al. 2020, section 3 (batch sizes); Hoffer et al. 2020, "Augment your batch" (`repeats`); the sharding
    and the stream of clips are ours.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        seed: int = 0,
        rank: int | None = None,
        accumulate: int = 1,
        repeats: int = 1,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.shares = Shares(schedule, rank, accumulate)
        self.schedule = schedule
        self.rank = self.shares.rank
        self.seed = checked_seed(seed)
        self.repeats = _count("repeats", repeats)
        schedule.sample(0, seed=self.seed)  # refuses a schedule that does not know its videos
        self._rising = None if weights is None else _rising(weights, schedule.samples)

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[Batch]:
        seed, repeats, samples = self.seed, self.repeats, self.schedule.samples
        for step, positions in self.shares:
            first = positions[0] // repeats
            count = positions[-1] // repeats - first + 1
            videos = self._videos(first, count)
            if repeats > 1:
                videos = [videos[p // repeats - first] for p in positions]
            yield Batch(step, positions, tuple(videos), seed, samples)

    def _videos(self, first: int, count: int) -> list[int]:
        """Return which videos are at `count` places of the stream of videos, from `first` on."""
        if self._rising is None:
            return _core.shuffle(first, count, self.schedule.samples, self.seed)
        return _core.draw(first, count, self._rising, self.seed)


class Shares:
    """The (step, positions in the stream of clips) of one process's mini-batches, `accumulate` of them in each step."""

    def __init__(self, schedule: Schedule, rank: int | None, accumulate: int) -> None:
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule; see Schedule.from_epochs")
        self.schedule = schedule
        self.accumulate = _count("accumulate", accumulate)
        self.rank = _rank(schedule.processes, rank, self.accumulate)

    def __len__(self) -> int:
        return len(self.schedule) * self.accumulate

    def __iter__(self) -> Iterator[tuple[Step, range]]:
        ranks = range(self.rank * self.accumulate, (self.rank + 1) * self.accumulate)
        for step in self.schedule:
            first, b = step.first, step.shape.b
            for rank in ranks:
                yield step, range(first + rank * b, first + (rank + 1) * b)


def checked_seed(seed: int) -> int:
    """Return `seed`, a whole number that fits 64 bits."""
    number = _whole("seed", seed)
    if not 0 <= number < 2**64:
        raise ValueError(f"seed ({number}) must lie in [0, 2**64); take it modulo 2**64")
    return number


def _whole(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} ({value!r}) must be a whole number") from None


def _count(name: str, value: int) -> int:
    number = _whole(name, value)
    if number < 1:
        raise ValueError(f"{name} ({number}) must be at least 1")
    return number


def _rising(weights: Sequence[float], samples: int) -> NDArray[np.float64]:
    """Return the running sum of the weights."""
    array = np.asarray(weights, np.float64)
    if array.shape != (samples,):
        raise ValueError(f"weights has the shape {array.shape}; pass one for each of the schedule's {samples} videos")
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(wrong):
        first = wrong[0]
        raise ValueError(f"weights[{first}] ({array[first]}) must be finite and not negative; 0 leaves a video out")
    if not array.any():
        raise ValueError("weights are all 0; give the videos to draw a weight above 0")
    return np.cumsum(array / array.max())


def _rank(processes: int, rank: int | None, accumulate: int) -> int:
    if processes % accumulate:
        raise ValueError(
            f"accumulate ({accumulate}) must divide the schedule's processes ({processes}): a micro-batch counts as a "
            f"process; build the schedule with processes=<processes that train together> * {accumulate}"
        )
    running = processes // accumulate
    each = f" / accumulate ({accumulate})" if accumulate > 1 else ""
    if rank is not None:
        number = _whole("rank", rank)
        if not 0 <= number < running:
            raise ValueError(
                f"rank ({number}) must lie in [0, {running}), the schedule's processes{each}; "
                "build the schedule with the number of processes that train together"
            )
        return number
    world = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else None
    if world is None and running > 1:
        raise RuntimeError(
            f"the schedule is for {running} processes{each} and torch.distributed is not initialised; "
            "call torch.distributed.init_process_group first, or pass rank=; gradient accumulation is accumulate="
        )
    if world is not None and world != running:
        # With one set of ranks on another schedule, processes would train on the same clips and nobody would notice.
        raise ValueError(
            f"torch.distributed runs {world} processes, the schedule is for {running}{each}; "
            f"build it with processes={world * accumulate} (to resume: "
            f"schedule.with_processes({world * accumulate})), or pass rank= where several processes mean to share clips"
        )
    return 0 if world is None else distributed.get_rank()
