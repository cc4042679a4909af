"""Videos on disk as a data set: each clip read on the grid that its step asks for."""

from __future__ import annotations

import copy
import operator
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pymultigrid.torch.decoded import DecodedClips, cut
from pymultigrid.torch.resample import resample
from pymultigrid.torch.sampler import Sample

import torch
from pymultigrid import Grid, Schedule, Shape
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from typing_extensions import Self

    from pymultigrid.video import Video

Clips = Tensor | DecodedClips
SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""The files that `VideoDataset.from_folder` takes for videos."""


class VideoDataset(Dataset[tuple[Clips, Any]]):
    """Labelled video files, for ``DataLoader(dataset, batch_sampler=BatchSampler(schedule))``.

    ``dataset[sample]`` reads the frames that the sample's grid needs and resamples them in one pass: (clip, label), the
    clip C x T x H x W at the shape of the sample's step.

    >>> import av, numpy, tempfile
    >>> from torch.utils.data import DataLoader
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import BatchSampler, VideoDataset
    >>> path = tempfile.mkdtemp() + "/grey.mp4"
    >>> with av.open(path, "w") as file:
    ...     stream = file.add_stream("libx264", rate=30, width=64, height=48)
    ...     for level in range(40):
    ...         file.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.full((48, 64, 3), level, "uint8"))))
    ...     file.mux(stream.encode())
    >>> dataset = VideoDataset([path, path], labels=[0, 1], mean=0.45, std=0.225, stride=2)
    >>> schedule = Schedule.from_epochs(Shape(1, 8, 32, 32), samples=len(dataset), epochs=12)
    >>> loader = DataLoader(dataset, batch_sampler=BatchSampler(schedule))
    >>> for step, (clips, labels) in zip(schedule, loader):
    ...     assert clips.shape == (step.shape.b, 3, step.shape.t, step.shape.h, step.shape.w)
    >>> views, label = dataset.evaluation(schedule, clips=2, crops=3)[1]
    >>> views.shape, label
    (torch.Size([6, 3, 8, 32, 32]), 1)

    A file is opened, and its frames counted, when it is first read; each worker does that once (keep them between
    epochs: ``persistent_workers=True``, or one loader for the whole schedule as above). Clips of one video in a batch
    (see ``BatchSampler(repeats=)``) are read together, each frame once.

    Parameters
    ----------
    paths
        The video files.
    labels
        One for each, handed on as it is.
    mean, std
        A number or one per channel, on the 0..1 scale: (x - mean) / std.
    dtype
        Of the clips; ``torch.uint8`` leaves scaling and normalising to you, on the GPU say.
    resample_on
        ``"worker"``: clips are tensors. ``"device"``: a worker decodes and cuts, and ``clips.to(device)`` resamples on
        that device, so that uint8 goes over the bus and the workers are free to decode; see `DecodedClips`.
    sampling
        How grids are drawn: ``stride=1``, ``short_side=``, ``area=``, ``aspect=``, ``flip=0.5``, ``segments=False`` and
        ``short="error"``, as `Step.grid` takes them. Pass ``flip=0`` where left and right matter; ``short="loop"`` or
        ``"clamp"`` admits videos shorter than the clip.

    Raises
    ------
    FileNotFoundError
        A file does not exist, at construction.
    ValueError
        No paths, or another number of labels; on reading, a damaged file, or a video shorter than the clip. The file is
        named.
    TypeError
        An index is no `Sample`, or a sampling option has no such name.

    Notes
    -----
    Source: Wu et al. 2020, section 3.2 (sampling grids); reading only a grid's frames is ours.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        labels: Sequence[Any],
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        dtype: torch.dtype = torch.float32,
        resample_on: Literal["worker", "device"] = "worker",
        **sampling: Any,
    ) -> None:
        from pymultigrid.video import Video  # PyAV is needed by those who read files, not by the rest of the adapter

        if isinstance(paths, (str, os.PathLike)):
            raise TypeError(f"paths ({paths!r}) must be a list of files; VideoDataset.from_folder takes a folder")
        if not len(paths):
            raise ValueError("paths is empty; pass the video files, or use VideoDataset.from_folder")
        if len(paths) != len(labels):
            raise ValueError(f"paths has {len(paths)} files and labels {len(labels)}; pass one label for each file")
        for path in paths:
            if not Path(path).is_file():
                raise FileNotFoundError(f"{os.fspath(path)}: there is no such file; check paths")
        output: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype}
        if resample_on not in ("worker", "device"):
            raise ValueError(f'resample_on ({resample_on!r}) must be "worker" or "device"')
        _check_options(sampling, output)
        self.videos: list[Video] = [Video(path) for path in paths]
        self.labels = labels
        self.classes: tuple[str, ...] = ()
        self.sampling = sampling
        self.output = output
        self.resample_on = resample_on

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], **options: Any) -> Self:
        """Take every video in `folder`, which has one sub-folder per class; labels number the sorted sub-folders.

        ``dataset.classes`` are their names. `options` are the class's.
        """
        root = Path(folder)
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: there is no such folder; pass one with a sub-folder of videos per class")
        classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not classes:
            raise ValueError(f"{root}: the folder has no sub-folders; put the videos of each class in one of its own")
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = sorted(f for f in (root / name).iterdir() if f.suffix.lower() in SUFFIXES)
            if not files:
                raise ValueError(f"{root / name}: the folder has no videos ({', '.join(SUFFIXES)}); fill or remove it")
            paths += files
            labels += [label] * len(files)
        dataset = cls(paths, labels, **options)
        dataset.classes = tuple(classes)
        return dataset

    def subset(self, indices: Iterable[int]) -> Self:
        """Return a data set of these videos alone, with the same options: a split, or a part to try things on.

        ``train, test = (dataset.subset(part.indices) for part in random_split(dataset, [0.9, 0.1]))``
        """
        chosen = [operator.index(index) for index in indices]
        if not chosen:
            raise ValueError("indices is empty; choose at least one video")
        for index in chosen:
            if not 0 <= index < len(self):
                raise ValueError(f"indices has {index}, which must lie in [0, {len(self)}), the data set's videos")
        part = copy.copy(self)
        part.videos = [self.videos[index] for index in chosen]
        part.labels = [self.labels[index] for index in chosen]
        return part

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, sample: Sample) -> tuple[Clips, Any]:
        return self._read([sample])[0]

    def __getitems__(self, samples: Sequence[Sample]) -> list[tuple[Clips, Any]]:
        """Return the items of a batch, as a DataLoader asks for them: every video is read once for all its clips."""
        if type(self).__getitem__ is not VideoDataset.__getitem__:
            return [self[sample] for sample in samples]  # a subclass has its own
        return self._read(samples)

    def _read(self, samples: Sequence[Sample]) -> list[tuple[Clips, Any]]:
        places: dict[int, list[int]] = {}
        for place, sample in enumerate(samples):
            self._check(sample)
            places.setdefault(sample.index, []).append(place)
        read: dict[int, tuple[Clips, Any]] = {}
        for index, mine in places.items():
            with self.videos[index].open() as video:
                frames, grids = _decoded(video, [self._grid(video, samples[place]) for place in mine])
            clips: Iterable[Clips]
            if self.resample_on == "device":
                clips = [DecodedClips.of([f], [g], self.output, batch=()) for f, g in zip(frames, grids, strict=True)]
            else:
                clips = resample(frames, grids, **self.output)
            read.update((place, (clip, self.labels[index])) for place, clip in zip(mine, clips, strict=True))
        return [read[place] for place in range(len(samples))]

    def _check(self, sample: Sample) -> None:
        if not isinstance(sample, Sample):
            raise TypeError(
                f"a VideoDataset is indexed by Sample, not {type(sample).__name__}: pass "
                "batch_sampler=BatchSampler(schedule) to the DataLoader, or use dataset.evaluation(schedule); Subset "
                "and random_split lose the grid: take dataset.subset(part.indices)"
            )
        if sample.samples < len(self):
            raise ValueError(
                f"the schedule is for {sample.samples} videos and the data set has {len(self)}, of which "
                f"{len(self) - sample.samples} would never be read; build it with samples={len(self)}, or leave them "
                f"out: dataset.subset(range({sample.samples}))"
            )
        if sample.index >= len(self):
            raise ValueError(
                f"the schedule asks for video {sample.index} of {len(self)}; build it with samples={len(self)}"
            )

    def _grid(self, video: Video, sample: Sample) -> Grid:
        self._check_length(video, sample.step.baseline.t)
        extent = video.extent
        try:
            return sample.grid(extent, **self.sampling)
        except ValueError as error:
            raise ValueError(f"{video.path}: {error}") from error

    def _check_length(self, video: Video, frames: int) -> None:
        """Refuse a video that is long enough for a coarse clip only, hours before the first full one."""
        length, needed = video.extent[0], frames * self.sampling.get("stride", 1)
        if length < needed and not self.sampling.get("segments") and self.sampling.get("short", "error") == "error":
            raise ValueError(
                f"{video.path}: the video has {length} frames, fewer than the clip's {frames} frames x stride "
                f"{self.sampling.get('stride', 1)} = {needed} of the full shape, which training comes to; pass "
                'short="clamp" or short="loop", or a smaller stride'
            )

    def evaluation(self, schedule: Schedule, *, clips: int = 1, crops: int = 1) -> VideoViews:
        """Return the same files for evaluation: ``[i]`` is (views, label), all at the full shape, nothing random.

        See `VideoViews`; the stride and what a short video is are this data set's.
        """
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule: its full shape is evaluated at")
        return VideoViews(self, schedule, clips=clips, crops=crops)


class VideoViews(Dataset[tuple[Clips, Any]]):
    """Labelled video files on their evaluation grids: item i is (views, label), views N x C x T x H x W.

    N = clips x crops, also when it is 1: ``model(views.flatten(0, 1)).unflatten(0, views.shape[:2]).mean(1)`` averages
    over the views of a batch B x N x C x T x H x W. T, H, W are the schedule's full shape; see `Schedule.views`.

    Build it with ``VideoDataset.evaluation``.
    """

    def __init__(self, dataset: VideoDataset, schedule: Schedule, *, clips: int, crops: int) -> None:
        self.dataset = dataset
        self.schedule = schedule
        self.clips = clips
        self.crops = crops
        self._options = {name: dataset.sampling[name] for name in ("stride", "short") if name in dataset.sampling}
        # A wrong number of views is refused here, not in a worker.
        whole = schedule.shape.t * self._options.get("stride", 1), schedule.shape.h, schedule.shape.w
        schedule.views(whole, clips=clips, crops=crops, **self._options)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Clips, Any]:
        with self.dataset.videos[index].open() as video:
            extent = video.extent
            try:
                grids = self.schedule.views(extent, clips=self.clips, crops=self.crops, **self._options)
            except ValueError as error:
                raise ValueError(f"{video.path}: {error}") from error
            frames, grids = _decoded(video, grids)
        output, label = self.dataset.output, self.dataset.labels[index]
        if self.dataset.resample_on == "device":
            return DecodedClips.of(frames, grids, output, batch=(len(grids),)), label
        return resample(frames, grids, **output), label


def _decoded(video: Video, grids: Sequence[Grid]) -> tuple[list[Tensor], list[Grid]]:
    """Read a video once for all its grids: of each the frames that it picks, cut to its box, and the grid over them."""
    from pymultigrid.video import picked

    numbers = [grid.frames(video.extent[0]) for grid in grids]
    distinct = sorted({frame for each in numbers for frame in each})
    pixels = torch.from_numpy(video.read(distinct))
    place = {frame: i for i, frame in enumerate(distinct)}
    parts, moved = [], []
    for each, grid in zip(numbers, grids, strict=True):
        part, over = cut(pixels, picked(grid))
        parts.append(part if each == distinct else part[[place[frame] for frame in each]])
        moved.append(over)
    return parts, moved


_SAMPLING = ("stride", "short_side", "area", "aspect", "flip", "segments", "short")


def _check_options(sampling: dict[str, Any], output: dict[str, Any]) -> None:
    """Refuse here what would be refused in a worker."""
    for name in sampling:
        if name not in _SAMPLING:
            raise TypeError(f"{name} is no option of VideoDataset; sampling takes {', '.join(_SAMPLING)}")
    step = Schedule(Shape(1, 1, 1, 1), iterations=1, long_cycle=None, short_cycle=None)[0]
    step.grid((2**40, 2, 2), seed=0, sample=0, **sampling)
    resample(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), (1, 1, 1), **output)
