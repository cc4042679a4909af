"""The data loader of a schedule: every batch comes with the step that it was made for."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, default_collate

from pymultigrid import Schedule, Step, _arguments
from pymultigrid._sample import Batch, Sample
from pymultigrid.torch._agreement import disagreement
from pymultigrid.torch._dataset import VideoDataset
from pymultigrid.torch._randomness import drawn_from
from pymultigrid.torch._sampler import BatchSampler
from pymultigrid.torch._states import check_state, of_one_process
from pymultigrid.torch._stream import StreamDataset

# What the schedule decides in place of the DataLoader.
_OURS = ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last")


class Loader(Iterable[tuple[Step, Any]]):
    """The (step, batch) pairs of a schedule, read by a ``torch.utils.data.DataLoader``.

    >>> import torch
    >>> from pymultigrid import Schedule, Shape, resample
    >>> from pymultigrid.torch import Loader
    >>> class Noise(torch.utils.data.Dataset):  # or VideoDataset(paths, labels)
    ...     def __len__(self):
    ...         return 100
    ...     def __getitem__(self, sample):
    ...         return torch.rand(3, *tuple(sample.step.shape)[1:]), sample.index % 2
    >>> schedule = Schedule(Shape(4, 16, 56, 56), samples=100, epochs=10)
    >>> loader = Loader(Noise(), schedule, seed=0)
    >>> for step, (clips, labels) in loader:  # the whole training: no loop over epochs around it
    ...     assert clips.shape == (step.shape.b, 3, step.shape.t, step.shape.h, step.shape.w)
    >>> len(loader) == len(schedule)
    True

    The step is attached in the worker that reads the batch, so that loader states, slices, skipped batches and
    prefetching cannot pair a batch with another step. The first batch of each shape is compared with its step.

    To resume, load the `state_dict` that was saved with the model, or build the loader on
    ``schedule[step.index + 1:]``:

    >>> state = loader.state_dict()
    >>> loader.load_state_dict({**state, "step": len(schedule) - 1})
    >>> [step.index == len(schedule) - 1 for step, batch in loader]
    [True]

    With ``read=`` the data is a stream: any iterable, of whose items `read` makes clips; see `StreamDataset`.

    Parameters
    ----------
    dataset
        Returns an item for a `Sample`, which says which video to read and on which grid; a `VideoDataset`, or your own.
        Its length is the schedule's ``samples``. With `read`, the items of a stream.
    schedule
        The steps to take, whole or a slice.
    read
        For streams: makes (clip, label) from an item and its `Sample`, as in `StreamDataset`.
    seed, rank, accumulate, repeats, weights
        As in `BatchSampler`; `repeats` and `weights` are not for streams. With ``accumulate=k`` the same step comes k
        times, each time with another micro-batch.
    collate_fn
        Makes the batch from a list of items; by default torch's ``default_collate``.
    options
        Options of ``torch.utils.data.DataLoader``: ``num_workers``, ``pin_memory``, ``persistent_workers``, ...

    Raises
    ------
    TypeError
        The data set or the stream is of the wrong kind.
    ValueError
        The schedule decides an option; the data set's length is not the schedule's ``samples``; or an error of
        `BatchSampler`. While reading: the data set returns clips that do not have their step's shape.

    Notes
    -----
    It has a DataLoader but is not one, because Accelerate's ``prepare`` and Lightning's sampler injection rebuild a
    DataLoader. Both leave this one unchanged; the loop then has to move the batch to the device.
    """

    def __init__(
        self,
        dataset: Any,
        schedule: Schedule,
        *,
        read: Callable[[Any, Sample], Any] | None = None,
        seed: int = 0,
        rank: int | None = None,
        accumulate: int = 1,
        repeats: int = 1,
        weights: Sequence[float] | None = None,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        **options: Any,
    ) -> None:
        for name in _OURS:
            if name in options:
                raise ValueError(
                    f"{name} ({reprlib.repr(options[name])}) is for a plain DataLoader: the schedule decides which "
                    "videos make a batch, and how many; leave it out"
                )
        if not options.get("in_order", True):
            raise ValueError("in_order (False) would give steps in another order than the schedule's; leave it out")
        self._source = dataset
        self._settings: dict[str, Any] = {"seed": seed, "rank": rank, "accumulate": accumulate}
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule ({reprlib.repr(schedule)}) must be a pymultigrid.Schedule")
        _arguments.function("collate_fn", collate_fn)
        if read is None:
            _check_dataset(dataset)
            self._settings |= {"repeats": repeats, "weights": weights}
        elif repeats != 1 or weights is not None:
            raise ValueError(
                "repeats and weights choose videos by number, which a stream does not have; leave them out"
            )
        self._read = read
        self._collate = collate_fn
        self._options = options
        self.schedule = schedule
        self._dataloader = self._loading(schedule)
        if read is None:
            check_fits(dataset, schedule)
            if rank is None:
                sampler: Any = self._dataloader.batch_sampler
                sampler.shares.agree({"a list of videos of checksum": _checksum(dataset)})
        self._start = self._next = schedule.start
        self._resuming = False

    def _loading(self, schedule: Schedule) -> DataLoader[Any]:
        """Return a DataLoader over these steps, whose batches are (step, batch)."""
        if self._read is not None:
            stream = StreamDataset(self._source, schedule, self._read, collate=self._collate, **self._settings)
            self._settings["rank"] = stream.shares.rank
            return DataLoader(_PairedStream(stream), batch_size=None, **self._options)
        sampler = BatchSampler(schedule, **self._settings)
        self._settings["rank"] = sampler.rank  # the ranks have compared their schedules once, which is enough
        paired, collate = _Paired(self._source), _PairedCollate(self._collate)
        return DataLoader(paired, batch_sampler=sampler, collate_fn=collate, **self._options)  # type: ignore[arg-type]

    @property
    def rank(self) -> int:
        """Whose share of the global batches it reads."""
        rank: int = self._settings["rank"]
        return rank

    def __len__(self) -> int:
        """Return the number of batches of the schedule that was passed, also after a resume."""
        accumulate: int = self._settings["accumulate"]
        return len(self.schedule) * accumulate

    def __iter__(self) -> Iterator[tuple[Step, Any]]:
        start, self._resuming = (self._next if self._resuming else self.schedule.start), False
        if start != self._start:
            self._dataloader, self._start = self._loading(self.schedule[start - self.schedule.start :]), start
        compared = set()
        for step, batch in self._dataloader:
            if step.shape not in compared:
                _compare(batch, step)
                compared.add(step.shape)
            self._next = step.index + 1
            yield step, batch

    def state_dict(self) -> dict[str, Any]:
        """Return the loop's position, as numbers and lists that ``torch.load(weights_only=True)`` takes.

        The batch that the loop holds counts as trained. With `accumulate`, save after a step's last micro-batch,
        because the gradients of the others are in no checkpoint.
        """
        return {"step": self._next, "seed": self._settings["seed"], "schedule": of_one_process(self.schedule)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Make the next loop begin where the saved loop was, also on another number of processes.

        Raises
        ------
        ValueError
            The state is of another schedule or seed, or of a step that is not in the schedule here.
        """
        check_state(state_dict, "Loader", ("step", "seed"), self.schedule)
        step = state_dict["step"]
        if state_dict["seed"] != self._settings["seed"]:
            raise ValueError(
                f"the state is of seed {state_dict['seed']}, the loader here has {self._settings['seed']}: the videos "
                "would come in another order; build it with the same seed"
            )
        if not self.schedule.start <= step <= self.schedule.stop:
            raise ValueError(
                f"the state is at step {step}, the schedule here has the steps {self.schedule.start} to "
                f"{self.schedule.stop}; pass the whole schedule"
            )
        self._next, self._resuming = step, True

    def __getattr__(self, name: str) -> Any:
        # For code that asks a loader for its data set or sampler, such as Trainer's skip_first_batches.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataloader, name)

    def __repr__(self) -> str:
        return f"Loader({self._source!r}, {self.schedule!r})"


class _Paired(Dataset[Any]):
    """A data set whose batches carry their step."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, sample: Sample) -> Any:
        return self.dataset[sample]

    def __getitems__(self, batch: Batch) -> tuple[Sample, list[Any]]:
        try:
            return batch[0], self._read(batch)
        except (AttributeError, LookupError, TypeError) as error:
            # Keeps the error of the code that took the sample for a number. Python 3.10 has no notes.
            getattr(error, "add_note", lambda _: None)(_NO_PLAIN_NUMBER)
            raise

    def _one(self, sample: Sample) -> Any:
        with drawn_from(sample.own_seed):
            return self.dataset[sample]

    def _read(self, batch: Batch) -> list[Any]:
        together = getattr(self.dataset, "__getitems__", None)
        if together is None:
            return [self._one(sample) for sample in batch]
        with drawn_from(batch[0].own_seed):
            items: list[Any] = together(batch)
            return items


_NO_PLAIN_NUMBER = (
    "The loader asked the data set for a pymultigrid.torch.Sample: sample.index is the number of the video, "
    "sample.grid(extent) where to read it. What passes on only a number (Subset, random_split, Hugging Face data sets, "
    "iloc) loses the grid: take dataset.subset(indices) of a VideoDataset, or write a data set whose "
    "__getitem__(sample) reads item sample.index on sample.grid(extent)."
)


class _PairedCollate:
    """A collation that passes the step through."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, pair: tuple[Sample, list[Any]]) -> tuple[Step, Any]:
        first, items = pair
        with drawn_from(first.own_seed ^ 1):
            return first.step, self.collate(items)


class _PairedStream(IterableDataset[Any]):
    """A stream whose batches carry their step."""

    def __init__(self, stream: StreamDataset) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[tuple[Step, Any]]:
        return self.stream.pairs()


def _check_dataset(dataset: Any) -> None:
    if isinstance(dataset, (IterableDataset, DataLoader, Loader)) or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"dataset is a {type(dataset).__name__}, which can't be asked for an item by number; pass a data set of "
            "numbered items, or the source of a stream with read="
        )


def check_fits(dataset: Any, schedule: Schedule) -> None:
    """Refuse a data set whose length is not the schedule's, and videos that can't be sampled for its shapes."""
    schedule.sample(0, seed=0)  # refuses a schedule without samples
    if hasattr(dataset, "__len__") and len(dataset) != schedule.samples:
        raise ValueError(
            f"the data set has {len(dataset)} videos and the schedule was made for samples={schedule.samples}: some "
            "would never be read, or ones that are not there; make the schedule with samples=len(dataset)"
        )
    for part in _parts(dataset):
        if isinstance(part, VideoDataset):
            part.check_sampling(schedule.shape)


def _checksum(dataset: Any) -> list[int | None]:
    """Return a checksum of each part's list of videos and labels; None for a part without such a list."""
    return [part.checksum() if isinstance(part, VideoDataset) else None for part in _parts(dataset)]


def _parts(dataset: Any) -> Iterator[Any]:
    """Yield the data sets that a ConcatDataset is made of."""
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _parts(part)
    else:
        yield dataset


def _compare(batch: Any, step: Step) -> None:
    wrong = disagreement(batch, step)
    if wrong:
        raise ValueError(
            f"{wrong}. The data set must read each clip on its sample's grid, "
            "sample.grid((frames, height, width)), as a VideoDataset does; one that takes a sample for a plain index "
            "returns full clips at a coarse step's learning rate"
        )
