"""Labelled video files: the part of a data set that no framework has a say in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from pymultigrid._core import Grid, Shape
from pymultigrid.sample import Sample
from pymultigrid.schedule import Schedule
from pymultigrid.video import Video, picked

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""The files that `in_folder` takes for videos."""
SAMPLING = ("stride", "short_side", "area", "aspect", "flip", "segments", "short")
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
    >>> from pymultigrid import Schedule, Shape, resample
    >>> from pymultigrid.files import VideoFiles
    >>> from pymultigrid.sample import mini_batch
    >>> files = VideoFiles([path, path], labels=[0, 1], stride=2)
    >>> schedule = Schedule.from_epochs(Shape(1, 8, 32, 32), samples=len(files), epochs=12)
    >>> pixels, grids = zip(*(files.read(sample) for sample in mini_batch(schedule, schedule[0], seed=0)))
    >>> resample(pixels, grids).shape == (schedule[0].shape.b, 3, *tuple(schedule[0].shape)[1:])
    True

    A file is opened, and its frames counted, when it is first read.

    Parameters
    ----------
    paths
        The video files.
    labels
        One for each.
    sampling
        How grids are drawn, as `Step.grid` takes it: ``stride=``, ``short_side=``, ``area=``, ``aspect=``, ``flip=``,
        ``segments=`` and ``short=``.

    Raises
    ------
    FileNotFoundError
        A file does not exist, at construction.
    ValueError
        No paths, or another number of labels; on reading, a damaged file, or a video shorter than the clip. The file is
        named.
    TypeError
        A sampling option has no such name.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], labels: Sequence[Any], **sampling: Any) -> None:
        if isinstance(paths, (str, os.PathLike)):
            raise TypeError(f"paths ({paths!r}) must be a list of files; VideoDataset.from_folder takes a folder")
        if not len(paths):
            raise ValueError("paths is empty; pass the video files, or use VideoDataset.from_folder")
        if len(paths) != len(labels):
            raise ValueError(f"paths has {len(paths)} files and labels {len(labels)}; pass one label for each file")
        for path in paths:
            if not Path(path).is_file():
                raise FileNotFoundError(f"{os.fspath(path)}: there is no such file; check paths")
        for name in sampling:
            if name not in SAMPLING:
                raise TypeError(f"{name} is no option of VideoDataset; sampling takes {', '.join(SAMPLING)}")
        # A wrong value is refused here, not where the first clip is read.
        step = Schedule(Shape(1, 1, 1, 1), iterations=1, long_cycle=None, short_cycle=None)[0]
        step.grid((2**40, 2, 2), seed=0, sample=0, **sampling)
        self.videos = [Video(path) for path in paths]
        self.labels = labels
        self.sampling = sampling

    def __len__(self) -> int:
        return len(self.videos)

    def read(self, sample: Sample) -> tuple[Pixels, Grid]:
        """Return what `resample` reads the sample's clip from: the frames that its grid picks, and the grid on them."""
        if sample.index >= len(self):
            raise ValueError(
                f"the schedule asks for video {sample.index} of {len(self)}; build it with samples={len(self)}"
            )
        video = self.videos[sample.index]
        extent = video.extent
        self._check_length(video, sample.step.baseline.t)
        try:
            grid = sample.grid(extent, **self.sampling)
        except ValueError as error:
            raise ValueError(f"{video.path}: {error}") from error
        return video.read(grid.frames(extent[0])), picked(grid)

    def read_views(self, schedule: Schedule, index: int, *, clips: int, crops: int) -> tuple[list[Pixels], list[Grid]]:
        """Return what `resample` reads the evaluation views of video `index` from; each frame is decoded once."""
        video = self.videos[index]
        extent = video.extent
        try:
            grids = schedule.views(extent, clips=clips, crops=crops, **self._views_options())
        except ValueError as error:
            raise ValueError(f"{video.path}: {error}") from error
        frames = [grid.frames(extent[0]) for grid in grids]
        distinct = sorted({frame for numbers in frames for frame in numbers})
        pixels = video.read(distinct)
        place = {frame: i for i, frame in enumerate(distinct)}
        on = [pixels if numbers == distinct else pixels[[place[f] for f in numbers]] for numbers in frames]
        return on, [picked(grid) for grid in grids]

    def check_views(self, schedule: Schedule, *, clips: int, crops: int) -> None:
        """Refuse a wrong number of views here, not where the first video is read."""
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule: its full shape is evaluated at")
        _, t, h, w = schedule.shape
        options = self._views_options()
        schedule.views((t * options.get("stride", 1), h, w), clips=clips, crops=crops, **options)

    def _views_options(self) -> dict[str, Any]:
        return {name: self.sampling[name] for name in ("stride", "short") if name in self.sampling}

    def _check_length(self, video: Video, frames: int) -> None:
        """Refuse a video that is long enough for a coarse clip only, hours before the first full one."""
        length, stride = video.extent[0], self.sampling.get("stride", 1)
        if self.sampling.get("segments") or self.sampling.get("short", "error") != "error":
            return
        if length < frames * stride:
            raise ValueError(
                f"{video.path}: the video has {length} frames, fewer than the clip's {frames} frames x stride "
                f"{stride} = {frames * stride} of the full shape, which training comes to; pass "
                'short="clamp" or short="loop", or a smaller stride'
            )


def in_folder(folder: str | os.PathLike[str]) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Return every video in `folder`, which has one sub-folder per class, their labels and the classes' names."""
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
