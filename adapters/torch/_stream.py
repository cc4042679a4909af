"""A data set for streams: the steps of a schedule over items in the order in which they arrive."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Any

from torch.utils.data import IterableDataset, default_collate, get_worker_info

from pymultigrid import Schedule, Step, _arguments
from pymultigrid._sample import Sample
from pymultigrid.torch._randomness import drawn_from
from pymultigrid.torch._sampler import Shares


class StreamDataset(IterableDataset[Any]):
    """The mini-batches of a schedule, from a stream of items, for ``DataLoader(dataset, batch_size=None)``.

    ``Loader(source, schedule, read=read)`` builds one and yields each batch with its step.

    `source` is anything that can be iterated repeatedly: WebDataset, a streaming Hugging Face data set,
    ``ray.data``'s ``iter_rows()``, a list of files. ``read(item, sample)`` makes (clip, label) from an item, on the
    grid that ``sample.grid(extent)`` draws:

    >>> import torch
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import StreamDataset, resample
    >>> schedule = Schedule(Shape(2, 8, 32, 32), samples=5, epochs=8)
    >>> source = [{"video": torch.zeros(20, 48, 64, 3, dtype=torch.uint8), "label": i} for i in range(5)]
    >>> def read(item, sample):
    ...     video = item["video"]
    ...     return resample(video, sample.grid(video.shape[:3], stride=2)), item["label"]
    >>> loader = torch.utils.data.DataLoader(StreamDataset(source, schedule, read), batch_size=None)
    >>> for step, (clips, labels) in zip(schedule, loader):
    ...     assert clips.shape == (step.shape.b, 3, step.shape.t, step.shape.h, step.shape.w)
    >>> len(loader) == len(schedule)
    True

    Without ``batch_size=None`` the loader would make batches of these batches.

    A source that has ``set_epoch``, as Hugging Face's do, gets the number of the pass, counted over the whole schedule,
    so that a shuffling source has a new order in each. Others reshuffle by themselves, or not at all.

    A source that runs out starts again, so every process yields every step of the schedule, at its shape, however much
    data it has, and ranks never wait for each other's data. With n workers, worker w makes the steps w, w + n, ... from
    its own share of the source, and the loader returns them in order. The shares are:

    - among workers, a ``torch.utils.data.IterableDataset`` (WebDataset and Hugging Face's are) divides itself, as torch
      requires; of any other source worker w takes the items w, w + n, ...;
    - among processes, each gets its own source (``wds.split_by_node``, ``split_dataset_by_node``,
      ``streaming_split``, a part of the files).

    Resuming is slicing here too, ``StreamDataset(source, schedule[start:], ...)``: shapes, grids and learning rates
    continue exactly. The source alone decides which item comes next; it starts where you let it.

    Parameters
    ----------
    source
        The items.
    schedule
        The steps to take, often a slice. A stream needs no ``samples``: ``Schedule(shape, iterations=...)`` will do.
    read
        Makes (clip, label), or whatever `collate` takes, from an item and its `Sample`. With workers that are not
        forked it must be a function of a module.
    seed
        The run's seed, in [0, 2**64): it decides every grid.
    rank, accumulate
        As in `BatchSampler`.
    collate
        Makes a batch from a list of the results of `read`.

    Raises
    ------
    ValueError
        As in `BatchSampler` for `rank`, `seed` and `accumulate`; while reading, a source without items.
    TypeError
        `source` can't be iterated, or only once; `read` is not callable.

    Notes
    -----
    The order of steps is that of ``DataLoader(in_order=True)``, its default.
    """

    def __init__(
        self,
        source: Iterable[Any],
        schedule: Schedule,
        read: Callable[[Any, Sample], Any],
        *,
        seed: int = 0,
        rank: int | None = None,
        accumulate: int = 1,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        super().__init__()
        if not isinstance(source, Iterable) or isinstance(source, (str, bytes)):
            raise TypeError(
                f"source is a {type(source).__name__}, which can't be iterated; a data set of numbered items goes "
                "with a BatchSampler"
            )
        if isinstance(source, Iterator):
            raise TypeError(
                f"source is a {type(source).__name__}, which can be read once only, and a source that runs out must "
                "start again; pass what it iterates over"
            )
        for name, function in (("read", read), ("collate", collate)):
            _arguments.function(name, function)
        self.shares = Shares(schedule, rank, accumulate, seed)
        self.source = source
        self.read = read
        self.seed = self.shares.seed
        self.collate = collate

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[Any]:
        return (batch for _, batch in self.pairs())

    def pairs(self) -> Iterator[tuple[Step, Any]]:
        """Yield each batch with its step."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        items = self._items(number, workers)
        seed, samples = self.seed, self.shares.schedule.samples
        for step, positions in islice(self.shares, number, None, workers):
            batch = []
            for position in positions:
                item, sample = next(items), Sample(-1, step, position, seed, samples)
                with drawn_from(sample.own_seed):
                    batch.append(self.read(item, sample))
            with drawn_from(sample.own_seed ^ 1):
                collated = self.collate(batch)
            yield step, collated

    def _items(self, worker: int, workers: int) -> Iterator[Any]:
        """Yield the worker's items, endlessly."""
        divides_itself = isinstance(self.source, IterableDataset)
        source, schedule = _of_this_process(self.source), self.shares.schedule
        set_epoch = getattr(source, "set_epoch", None)
        for number in count(schedule[0].first // schedule.samples):
            if set_epoch is not None:
                set_epoch(number)  # otherwise a shuffled source has the same order each time
            nothing = True
            for item in source if divides_itself else islice(source, worker, None, workers):
                nothing = False
                yield item
            if nothing:
                share = f"worker {worker} of {workers}" if workers > 1 else "anyone"
                raise ValueError(
                    f"source has no item for {share}; pass one with more items (or shards, if read shard by shard) "
                    "than there are workers, or use fewer workers"
                )


def _of_this_process(source: Iterable[Any]) -> Iterable[Any]:
    """Return a copy of a source that counts passes, because Hugging Face's share the count between workers."""
    if get_worker_info() is None or not hasattr(source, "set_epoch"):
        return source
    return copy.deepcopy(source)
