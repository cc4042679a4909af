"""Labelled video files: the part of a data set that every framework shares."""

from __future__ import annotations

import copy
import os
import reprlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pymultigrid import _arguments
from pymultigrid._core import Grid, Shape
from pymultigrid._plans import Cycles
from pymultigrid._sample import Sample
from pymultigrid._schedule import Schedule
from pymultigrid._views import picked, view_grids

if TYPE_CHECKING:
    from pymultigrid.video import Video

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""The files that `VideoFiles.from_folder` takes for videos."""
SAMPLING = ("stride", "short_side", "area", "aspect", "flip", "segments", "beyond")
"""How a grid is drawn: the options of `Step.grid` that a data set takes."""

Pixels = NDArray[np.uint8]
Kind = TypeVar("Kind", bound="VideoFiles")


class VideoFiles:
    """Video files with their labels, and how grids are drawn over them: what a framework's data set is a kind of.

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
    >>> for place, frames, grid in files.decoded(mini_batch(schedule, schedule[0], seed=0)):
    ...     assert resample(frames, grid).shape == (3, *tuple(schedule[0].shape)[1:])

    A file is opened, and its frames counted, when it is first read.
    """

    videos: list[Video]
    """The files, each a `pymultigrid.video.Video`."""
    labels: Sequence[Any]
    """One for each video."""
    sampling: dict[str, Any]
    """How grids are drawn: the options of `Step.grid` that were given."""
    classes: tuple[str, ...]
    """The names of the classes, where the videos were taken from a folder; otherwise empty."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]], labels: Sequence[Any], **sampling: Any) -> None:
        """Take the videos and their labels, and check what can be checked without opening a file.

        Parameters
        ----------
        paths
            The video files.
        labels
            One for each, in their order: a list, an array, a column of a table. They are taken by position, now.
        sampling
            How grids are drawn: ``stride=1``, ``short_side=``, ``area=``, ``aspect=``, ``flip=0``, ``segments=False``
            and ``beyond="error"``, as `Step.grid` takes them. ``flip=0.5`` mirrors half of the clips, for labels that
            have no left and right; ``beyond="loop"`` or ``"clamp"`` admits videos shorter than the clip.

        Raises
        ------
        FileNotFoundError
            A file does not exist, at construction.
        ValueError
            No paths, or another number of labels; on reading, a schedule for another number of videos, a damaged file,
            or a video shorter than the clip. The file is named.
        TypeError
            The labels have no order, or a sampling option has no such name.
        """
        from pymultigrid.video import Video  # PyAV is needed by those who read files, not by the rest

        if isinstance(paths, (str, os.PathLike)):
            raise TypeError(f"paths ({paths!r}) must be a list of files; VideoDataset.from_folder takes a folder")
        paths, labels = _by_position("paths", paths), _by_position("labels", labels)
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
        self.classes = ()

    @classmethod
    def from_folder(cls: type[Kind], folder: str | os.PathLike[str], **options: Any) -> Kind:
        """Take every video in `folder`, which has one sub-folder per class; labels number the sorted sub-folders.

        ``dataset.classes`` are their names. `options` are the class's.
        """
        paths, labels, classes = _in_folder(folder)
        files = cls(paths, labels, **options)
        files.classes = classes
        return files

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        return self._line()

    def _line(self, **options: Any) -> str:
        """Return the data set in one line: what was given of `options` and sampling."""
        values = {"videos": len(self), "classes": len(self.classes) or None, **options, **self.sampling}
        given = ", ".join(f"{key}={value!r}" for key, value in values.items() if value is not None)
        return f"{type(self).__name__}({given})"

    def subset(self: Kind, indices: Iterable[int]) -> Kind:
        """Return a data set of these videos alone, with the same options: a split, or a part to try things on.

        ``train, test = dataset.subset(range(900)), dataset.subset(range(900, 1000))``
        """
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

    def decoded(self, samples: Sequence[Sample]) -> Iterator[tuple[int, Pixels, Grid]]:
        """Yield what `resample` reads each clip from: its place in `samples`, the frames that its grid picks, its grid.

        Each video is read once for all its clips, one video after the other; the grid is over these frames.
        """
        places: dict[int, list[int]] = {}
        for place, sample in enumerate(samples):
            self._check(sample)
            places.setdefault(sample.index, []).append(place)
        for index, mine in places.items():
            with self.videos[index].open() as video:
                read = _read(video, [self._grid(video, samples[place]) for place in mine])
            yield from ((place, frames, grid) for place, (frames, grid) in zip(mine, read, strict=True))

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


class Views:
    """Labelled video files on their evaluation grids: what a framework's data set of views is a kind of.

    Video i has ``clips x crops`` views; T, H, W are those of `shape`; see `view_grids`.
    """

    def __init__(self, files: VideoFiles, shape: Shape, *, clips: int, crops: int) -> None:
        _, t, h, w = _arguments.shape(shape)
        self.dataset = files
        self.shape = shape
        self.clips = clips
        self.crops = crops
        self._grids((t * files.sampling.get("stride", 1), h, w))  # refuses wrong values here

    def __len__(self) -> int:
        return len(self.dataset)

    def __repr__(self) -> str:
        _, t, h, w = self.shape
        videos = len(self.dataset)
        return f"{type(self).__name__}(videos={videos}, clips={self.clips}, crops={self.crops}, each {t}x{h}x{w})"

    def decoded(self, index: int) -> tuple[list[Pixels], list[Grid]]:
        """Return what `resample` reads the views of video `index` from; each frame is decoded once."""
        with self.dataset.videos[index].open() as video:
            try:
                grids = self._grids(video.extent)
            except ValueError as error:
                raise ValueError(f"{video.path}: {error}") from error
            read = _read(video, grids)
        return [frames for frames, _ in read], [grid for _, grid in read]

    def _grids(self, extent: Sequence[int]) -> list[Grid]:
        sampling = self.dataset.sampling
        options = {name: sampling[name] for name in ("stride", "segments", "beyond") if name in sampling}
        return view_grids(self.shape, extent, clips=self.clips, crops=self.crops, **options)


def _by_position(name: str, values: Any) -> Sequence[Any]:
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


def _read(video: Video, grids: Sequence[Grid]) -> list[tuple[Pixels, Grid]]:
    """Read a video once for all its grids: of each the frames that it picks, and the grid over them."""
    numbers = [tuple(grid.frames(video.extent[0])) for grid in grids]
    distinct = tuple(sorted({frame for each in numbers for frame in each}))
    pixels = video.read(distinct)
    place = {frame: i for i, frame in enumerate(distinct)}
    parts = {each: pixels if each == distinct else pixels[[place[frame] for frame in each]] for each in set(numbers)}
    return [(parts[each], picked(grid)) for each, grid in zip(numbers, grids, strict=True)]


def _in_folder(folder: str | os.PathLike[str]) -> tuple[list[Path], list[int], tuple[str, ...]]:
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
