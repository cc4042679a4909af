"""Labelled video files: the part of a data set that no framework has a say in."""

from __future__ import annotations

import copy
import os
import reprlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pymultigrid import _arguments
from pymultigrid._core import Grid, Shape
from pymultigrid._plans import Cycles
from pymultigrid._sample import Sample
from pymultigrid._schedule import Schedule
from pymultigrid._views import view_grids
from pymultigrid.video import Video, picked

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""The files that `in_folder` takes for videos."""
SAMPLING = ("stride", "short_side", "area", "aspect", "flip", "segments", "beyond")
"""How a grid is drawn: the options of `Step.grid` that a data set takes."""

Pixels = NDArray[np.uint8]


@final
class VideoFiles:
    """Video files with their labels, and how grids are drawn over them.

    >>> import av, numpy, tempfile
    >>> path = tempfile.mkdtemp() + "/grey.mp4"
    >>> with av.open(path, "w") as file:
    ...     stream = file.add_stream("libx264", rate=30, width=64, height=48)
    ...     for level in range(40):
    ...         file.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.full((48, 64, 3), level, "uint8"))))
    ...     file.mux(stream.encode())
    >>> from pymultigrid import Schedule, Shape, mini_batch, resample
    >>> from pymultigrid._files import VideoFiles
    >>> files = VideoFiles([path, path], labels=[0, 1], stride=2)
    >>> schedule = Schedule(Shape(1, 8, 32, 32), samples=len(files), epochs=12)
    >>> for place, frames, grid in files.read(mini_batch(schedule, schedule[0], seed=0)):
    ...     assert resample(frames, grid).shape == (3, *tuple(schedule[0].shape)[1:])

    A file is opened, and its frames counted, when it is first read.

    Parameters
    ----------
    paths
        The video files.
    labels
        One for each, in their order: a list, an array, a column of a table. They are taken by position, now.
    sampling
        How grids are drawn, as `Step.grid` takes it: ``stride=``, ``short_side=``, ``area=``, ``aspect=``, ``flip=``,
        ``segments=`` and ``beyond=``.

    Raises
    ------
    FileNotFoundError
        A file does not exist, at construction.
    ValueError
        No paths, or another number of labels; on reading, a schedule for another number of videos, a damaged file, or a
        video shorter than the clip. The file is named.
    TypeError
        A sampling option has no such name.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], labels: Sequence[Any], **sampling: Any) -> None:
        if isinstance(paths, (str, os.PathLike)):
            raise TypeError(f"paths ({paths!r}) must be a list of files; VideoDataset.from_folder takes a folder")
        paths, labels = by_position("paths", paths), by_position("labels", labels)
        if not len(paths):
            raise ValueError("paths is empty; pass the video files, or use VideoDataset.from_folder")
        if len(paths) != len(labels):
            raise ValueError(f"paths has {len(paths)} files and labels {len(labels)}; pass one label for each file")
        for path in paths:
            if not isinstance(path, (str, os.PathLike)):
                raise TypeError(f"paths has {reprlib.repr(path)}, which is not a path; pass the files' names")
            if not Path(path).is_file():
                raise FileNotFoundError(f"{os.fspath(path)}: there is no such file; check paths")
        for name in sampling:
            if name not in SAMPLING:
                raise TypeError(f"{name} is no option of VideoDataset; sampling takes {', '.join(SAMPLING)}")
        # A wrong value is refused here, not where the first clip is read.
        step = Schedule(Shape(1, 1, 1, 1), iterations=1, plan=Cycles(long=None, short=None))[0]
        step.grid((2**31, 2, 2), seed=0, sample=0, **sampling)
        self.videos = [Video(path) for path in paths]
        self.labels = labels
        self.sampling = sampling

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        return self.line("VideoFiles")

    def line(self, name: str, **options: Any) -> str:
        """Return a data set of these files in one line: its `name`, and what was given of `options` and sampling."""
        values = {"videos": len(self), **options, **self.sampling}
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items() if value is not None)})"

    def subset(self, indices: Iterable[int]) -> VideoFiles:
        """Return these videos alone, with their labels and the same sampling."""
        if not isinstance(indices, Iterable):
            raise TypeError(f"indices ({indices!r}) must be a list of numbers, those of the videos to keep")
        chosen = [_arguments.whole("indices", index) for index in indices]
        if not chosen:
            raise ValueError("indices is empty; choose at least one video")
        for index in chosen:
            if not 0 <= index < len(self):
                raise ValueError(f"indices has {index}, which must lie in [0, {len(self)}), the data set's videos")
        part = copy.copy(self)
        part.videos = [self.videos[index] for index in chosen]
        part.labels = [self.labels[index] for index in chosen]
        return part

    def checksum(self) -> int:
        """Return what tells these files and labels from others, in this order, wherever their folder is mounted."""
        paths = [Path(video.path).absolute() for video in self.videos]
        top = os.path.commonpath(paths)
        found = 0
        for path, label in zip(paths, self.labels, strict=True):
            # Other labels (arrays, tuples of them) have no short text that is always the same.
            known = label if isinstance(label, (str, int, float, np.generic)) else ""
            found = zlib.crc32(f"{os.path.relpath(path, top)}\0{known}\0".encode("utf-8", "surrogateescape"), found)
        return found

    def read(self, samples: Sequence[Sample]) -> Iterator[tuple[int, Pixels, Grid]]:
        """Yield what `resample` reads each clip from: its place in `samples`, the frames that its grid picks, its grid.

        Each video is read once for all its clips, one video after the other; the grid is over these frames.
        """
        places: dict[int, list[int]] = {}
        for place, sample in enumerate(samples):
            self._check(sample)
            places.setdefault(sample.index, []).append(place)
        for index, mine in places.items():
            with self.videos[index].open() as video:
                read = _decoded(video, [self._grid(video, samples[place]) for place in mine])
            yield from ((place, frames, grid) for place, (frames, grid) in zip(mine, read, strict=True))

    def read_views(self, shape: Shape, index: int, *, clips: int, crops: int) -> tuple[list[Pixels], list[Grid]]:
        """Return what `resample` reads the evaluation views of video `index` from; each frame is decoded once."""
        with self.videos[index].open() as video:
            extent = video.extent
            try:
                grids = view_grids(shape, extent, clips=clips, crops=crops, **self._views_options())
            except ValueError as error:
                raise ValueError(f"{video.path}: {error}") from error
            read = _decoded(video, grids)
        return [frames for frames, _ in read], [grid for _, grid in read]

    def check_views(self, shape: Shape, *, clips: int, crops: int) -> None:
        """Refuse a wrong shape or number of views here, not where the first video is read."""
        _, t, h, w = _arguments.shape(shape)
        options = self._views_options()
        view_grids(shape, (t * options.get("stride", 1), h, w), clips=clips, crops=crops, **options)

    def _views_options(self) -> dict[str, Any]:
        return {name: self.sampling[name] for name in ("stride", "segments", "beyond") if name in self.sampling}

    def _check(self, sample: Sample) -> None:
        """Refuse a sample of a schedule for another number of videos."""
        has, whole = "has", str(len(self))
        if sample.before:
            has, whole = (
                f"is part of a whole, where it comes after {sample.before}, and has",
                "len(dataset), of the whole",
            )
        if sample.samples < len(self):
            raise ValueError(
                f"the schedule is for {sample.samples + sample.before} videos and the data set {has} {len(self)}, of "
                f"which {len(self) - sample.samples} would never be read; build it with samples={whole}, or leave them "
                f"out: dataset.subset(range({sample.samples}))"
            )
        if sample.index >= len(self):
            raise ValueError(
                f"the schedule asks for video {sample.index + sample.before} of {len(self) + sample.before}; build it "
                f"with samples={whole}"
            )

    def _grid(self, video: Video, sample: Sample) -> Grid:
        try:
            return sample.grid(video.extent, **self.sampling)
        except ValueError as error:
            raise ValueError(f"{video.path}: {error}") from error


def by_position(name: str, values: Any) -> Sequence[Any]:
    """Return `values` so that item i is the one at position i, whatever they are looked up by where they come from."""
    if isinstance(values, (Mapping, Set)) or not isinstance(values, Iterable):
        raise TypeError(
            f"{name} is a {type(values).__name__} ({reprlib.repr(values)}); pass a list, an array or a column of a "
            "table, one for each file and in the files' order"
        )
    if hasattr(values, "to_numpy"):  # a table's column has an index of its own: labels[0] is not its first one
        values = values.to_numpy()
        values = values.tolist() if values.dtype == object else values
    if hasattr(values, "dtype") and hasattr(values, "shape"):
        if not values.shape:
            raise TypeError(f"{name} is a single value ({values!r}); pass one for each file")
        array: Sequence[Any] = values  # NumPy's and the frameworks' arrays count positions as they are
        return array
    return list(values)


def _decoded(video: Video, grids: Sequence[Grid]) -> list[tuple[Pixels, Grid]]:
    """Read a video once for all its grids: of each the frames that it picks, and the grid over them."""
    numbers = [tuple(grid.frames(video.extent[0])) for grid in grids]
    distinct = tuple(sorted({frame for each in numbers for frame in each}))
    pixels = video.read(distinct)
    place = {frame: i for i, frame in enumerate(distinct)}
    parts = {each: pixels if each == distinct else pixels[[place[frame] for frame in each]] for each in set(numbers)}
    return [(parts[each], picked(grid)) for each, grid in zip(numbers, grids, strict=True)]


def in_folder(folder: str | os.PathLike[str]) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Return every video in `folder`, which has one sub-folder per class, their labels and the classes' names."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder ({reprlib.repr(folder)}) must be a path")
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder; pass one with a sub-folder of videos per class")
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ValueError(f"{root}: the folder has no sub-folders; put the videos of each class in one of its own")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(f for f in (root / name).iterdir() if f.suffix.lower() in SUFFIXES)
        if not found:
            raise ValueError(f"{root / name}: the folder has no videos ({', '.join(SUFFIXES)}); fill or remove it")
        paths += found
        labels += [label] * len(found)
    return paths, labels, tuple(classes)
