"""Which clips make a mini-batch: a batch sampler over the steps of a schedule."""

from __future__ import annotations

import os
import reprlib
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import Sampler

from pymultigrid import Schedule, Step, _arguments, _core
from pymultigrid._sample import Batch
from pymultigrid.torch._processes import rank_and_processes


class BatchSampler(Sampler[Any]):
    """The mini-batches of a schedule, for ``DataLoader(dataset, batch_sampler=...)``; see `Loader` first.

    Step i has ``step.shape.b`` samples, those from position ``step.first + rank * b`` on of the schedule's stream of
    clips. Every process and every worker computes the same step, so ranks agree on shapes without communication;
    batches are never short and never padded. Resuming is slicing: ``BatchSampler(schedule[start:])`` gives the same
    batches as the interrupted run.

    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import BatchSampler
    >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10)
    >>> batches = BatchSampler(schedule, seed=0)
    >>> len(batches) == len(schedule)
    True
    >>> print([(len(batch), str(batch[0].step.shape)) for batch in batches][-1])
    (4, '4x16x112x112')

    `Loader` builds one and yields each batch with its step; use this directly only for data loaders of another class.
    They run ahead of training: the step of a batch is ``sample.step`` in the data set, not the sampler's position.

    Gradients are accumulated over micro-batches as if each were a separate process: make the schedule for
    ``processes=world * accumulate``; ``shape.b`` stays what fits into memory, and a step takes `accumulate` batches:

    >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10, processes=2)
    >>> batches = iter(BatchSampler(schedule, accumulate=2))
    >>> for step in schedule:
    ...     for _ in range(2):
    ...         batch = next(batches)  # in training: clips, labels = next(batches of the loader)
    ...         assert batch.step == step

    If torch.distributed provides the rank, all processes must build this, as with ``DistributedDataParallel``, because
    they compare their schedules, seeds, weights and repeats. (A `Loader` also compares the lists of videos, and the
    data set's length with the schedule's, which a sampler does not see.)

    Parameters
    ----------
    schedule
        The steps to take, often a slice. Its ``samples`` is the length of the data set.
    seed
        The run's seed, in [0, 2**64): it decides the order of the videos and every grid.
    rank
        Which of the ``schedule.processes / accumulate`` processes this is. None: 0 for one process, else
        ``torch.distributed``'s rank.
    accumulate
        Micro-batches per step and process.
    repeats
        How many consecutive clips of the stream are of the same video, each on its own grid (repeated augmentation). A
        batch then has as many clips of fewer videos, and `VideoDataset` reads each video of a batch once.
    weights
        One non-negative weight per video: videos are drawn with replacement, in proportion. None: every video once in
        an epoch.

    Raises
    ------
    ValueError
        An argument is out of its range, or torch.distributed runs another number of processes than the schedule;
        or another process has another schedule, seed, weights or repeats.
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
        self.shares = Shares(schedule, rank, accumulate, seed)
        self.schedule = schedule
        self.rank = self.shares.rank
        self.seed = self.shares.seed
        self.repeats = _arguments.count("repeats", repeats)
        schedule.sample(0, seed=self.seed)  # refuses a schedule that does not know its videos
        self._rising = None if weights is None else _rising(weights, schedule.samples)
        if rank is None:
            digest = 0 if self._rising is None else zlib.crc32(self._rising.tobytes())
            self.shares.agree({"repeats": self.repeats, "weights of checksum": digest})

    @property
    def drop_last(self) -> bool:
        """Does not exist; with several processes, access raises ValueError.

        Accelerate's ``prepare`` and Lightning's ``use_distributed_sampler`` read it in order to distribute the batches
        over the ranks, although they already belong to this rank.
        """
        if self.shares.processes > 1:
            raise ValueError(
                f"the batch sampler already gives the batches of rank {self.rank} of {self.shares.processes}, and a "
                "framework is about to distribute them over the processes again; do not prepare this data loader, or "
                "use Loader(dataset, schedule), which accelerator.prepare does not change (Lightning: "
                "use_distributed_sampler=False)"
            )
        raise AttributeError("a BatchSampler has no drop_last: its batches are never short")

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[Any]:  # of Batch; DataLoader is typed for lists only
        return Batches(self)

    def since(self, start: int) -> Iterator[Batch]:
        """Yield the batches from micro-batch `start` on, counted from the beginning of the whole schedule."""
        seed, repeats, samples = self.seed, self.repeats, self.schedule.samples
        for step, positions in self.shares.since(start):
            first = positions[0] // repeats
            count = positions[-1] // repeats - first + 1
            videos = self._videos(first, count)
            if repeats > 1:
                videos = [videos[p // repeats - first] for p in positions]
            yield Batch(step, positions, tuple(videos), seed, samples)

    def _videos(self, first: int, count: int) -> list[int]:
        """Return the videos at `count` positions of the stream of videos, from `first` on."""
        if self._rising is None:
            return _core.shuffle(first, count, self.schedule.samples, self.seed)
        return _core.draw(first, count, self._rising, self.seed)


class Batches(Iterator[Batch]):
    """The batches of a sampler, as an iterator with a state, which torchdata's StatefulDataLoader needs.

    Its state counts from the beginning of the whole schedule, so a loader that saves it continues correctly, whether
    the sampler that it is loaded into has the whole schedule or a slice.
    """

    def __init__(self, sampler: BatchSampler) -> None:
        self._sampler = sampler
        self._next = sampler.shares.start
        self._rest: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        if self._rest is None:
            self._rest = self._sampler.since(self._next)
        batch = next(self._rest)
        self._next += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return the step and micro-batch that come next."""
        step, micro_batch = divmod(self._next, self._sampler.shares.accumulate)
        return {"step": step, "micro_batch": micro_batch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go to the position of another iterator."""
        shares = self._sampler.shares
        place = state_dict["step"] * shares.accumulate + state_dict["micro_batch"]
        if not shares.start <= place <= shares.start + len(shares):
            schedule = shares.schedule
            raise ValueError(
                f"the state is at step {state_dict['step']}, the schedule here has the steps {schedule.start} to "
                f"{schedule.stop}; pass the whole schedule"
            )
        self._next, self._rest = place, None


class Shares:
    """The (step, positions in the stream of clips) of one process's mini-batches, `accumulate` of them in each step."""

    def __init__(self, schedule: Schedule, rank: int | None, accumulate: int, seed: int) -> None:
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule; write Schedule(shape, ...)")
        self.schedule = schedule
        self.accumulate = _arguments.count("accumulate", accumulate)
        self.rank = _rank(schedule.processes, rank, self.accumulate)
        self.seed = _arguments.seed(seed)
        if rank is None:
            settings = {"seed": self.seed, "accumulate": self.accumulate, **schedule.to_dict()}
            self.agree({f"a schedule with {name}": value for name, value in settings.items()})

    @property
    def processes(self) -> int:
        """How many processes share a step."""
        return self.schedule.processes // self.accumulate

    def agree(self, mine: dict[str, Any]) -> None:
        """Refuse settings that differ between processes, if there are several: they would not share the same stream."""
        if self.processes > 1:
            _agree(mine)

    def __len__(self) -> int:
        return len(self.schedule) * self.accumulate

    @property
    def start(self) -> int:
        """The first micro-batch, counted from the beginning of the whole schedule."""
        return self.schedule.start * self.accumulate

    def __iter__(self) -> Iterator[tuple[Step, range]]:
        return self.since(self.start)

    def since(self, start: int) -> Iterator[tuple[Step, range]]:
        """Yield them from micro-batch `start` on."""
        index, skipped = divmod(start, self.accumulate)
        ranks = range(self.rank * self.accumulate, (self.rank + 1) * self.accumulate)
        pairs = ((step, rank) for step in self.schedule[index - self.schedule.start :] for rank in ranks)
        for step, rank in islice(pairs, skipped, None):
            first, b = step.first, step.shape.b
            yield step, range(first + rank * b, first + (rank + 1) * b)


def _rising(weights: Sequence[float], samples: int) -> NDArray[np.float64]:
    """Return the running sum of the weights."""
    array = np.asarray(weights)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"weights ({reprlib.repr(weights)}) must be numbers, one for each video")
    array = array.astype(np.float64)
    if array.shape != (samples,):
        raise ValueError(f"weights has the shape {array.shape}; pass one for each of the schedule's {samples} videos")
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(wrong):
        first = wrong[0]
        raise ValueError(f"weights[{first}] ({array[first]}) must be finite and not negative; 0 leaves a video out")
    if not array.any():
        raise ValueError("weights are all 0; pass a weight above 0 for the videos to draw")
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
        return _arguments.rank(rank, running, each)
    here, world = rank_and_processes() or (0, None)
    if world is None and running > 1:
        raise RuntimeError(
            f"the schedule is for {running} processes{each} and torch.distributed is not initialised; "
            "call torch.distributed.init_process_group first, or pass rank=; gradient accumulation is accumulate="
        )
    started = int(os.environ.get("WORLD_SIZE", "1")) if world is None else 1
    if started > 1:
        raise RuntimeError(
            f"torchrun started {started} processes (WORLD_SIZE) and torch.distributed is not initialised: each would "
            "train the whole schedule alone; call torch.distributed.init_process_group first and build the "
            f"schedule with processes={started}, or pass rank=0 if each is a training of its own"
        )
    if world is not None and world != running:
        # With ranks of another schedule, processes would silently train on the same clips.
        raise ValueError(
            f"torch.distributed runs {world} processes, the schedule is for {running}{each}; "
            f"build it with processes={world * accumulate} (to resume: "
            f"schedule.with_processes({world * accumulate})), or pass rank= if several processes should share clips"
        )
    return here


def _agree(mine: dict[str, Any]) -> None:
    """Refuse, on every rank, settings that differ between ranks; otherwise they would deadlock much later."""
    every: list[dict[str, Any]] = [{} for _ in range(distributed.get_world_size())]
    # Not over NCCL: objects go through the current GPU, which at this point may be the first one for every rank.
    group = distributed.new_group(backend="gloo")
    distributed.all_gather_object(every, mine, group)
    distributed.destroy_process_group(group)
    for rank, theirs in enumerate(every):
        for name, value in theirs.items():
            if value != every[0][name]:
                raise ValueError(
                    f"rank {rank} has {name} {reprlib.repr(value)}, rank 0 has {reprlib.repr(every[0][name])}; build "
                    "the same one on every rank: from the same list of videos, seed, weights and checkpoint"
                )
