"""Labelled video files: the part of a data set that every framework shares."""

from __future__ import annotations

import copy
import os
import reprlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pymultigrid import _arguments, _core
from pymultigrid._at_rate import AtRate, check_fps
from pymultigrid._core import Grid, Shape
from pymultigrid._folder import videos_in
from pymultigrid._sample import Sample
from pymultigrid._skipped import Skipped, drawn_instead
from pymultigrid._views import picked, view_grids

if TYPE_CHECKING:
    from pymultigrid.video import Video

SAMPLING = ("stride", "fps", "short_side", "area", "aspect", "flip", "segments", "beyond")
"""How a grid is drawn: the options of `Step.grid` that a data set takes, and the rate that videos are read at."""
_ATTEMPTS = 100  # at a clip that can be read, where videos are damaged

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
    >>> for place, video, frames, grid in files.decoded(mini_batch(schedule, schedule[0], seed=0)):
    ...     assert resample(frames, grid).shape == (3, *tuple(schedule[0].shape)[1:])

    A file is opened, and its frames counted, when it is first read, or taken from a saved index.
    """

    videos: list[Video]
    """The files, each a `pymultigrid.video.Video`."""
    labels: Sequence[Any]
    """One for each video."""
    sampling: dict[str, Any]
    """How grids are drawn: the options that were given."""
    classes: tuple[str, ...]
    """The names of the classes, where the videos were taken from a folder; otherwise empty."""

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        labels: Sequence[Any],
        *,
        damaged: Literal["error", "skip", "use"] = "error",
        rotate: bool = True,
        index: str | os.PathLike[str] | None = None,
        **sampling: Any,
    ) -> None:
        """Take the videos and their labels, and check what can be checked without opening a file.

        Parameters
        ----------
        paths
            The video files.
        labels
            One for each, in their order: a list, an array, a column of a table. They are taken by position, now.
        damaged
            What is done where a file is truncated, or frames of it that a clip needs are damaged. ``"error"`` says
            which and where. ``"skip"`` reads another video in that clip's place, the same one in every process and
            after a resume, warns of each damaged video once, and stops where more than a tenth are; a run that stopped
            at one goes on from its checkpoint with it, and its other clips stay as they are. ``"use"`` takes what the
            decoder makes of it, and decodes every file once to know how many pictures that is.
        rotate
            Turn and mirror videos as their files say they are to be shown.
        index
            What `save_index` wrote: files that are as they were then are not looked through again.
        sampling
            How grids are drawn: ``stride=1``, ``short_side=``, ``area=``, ``aspect=``, ``flip=0``, ``segments=False``
            and ``beyond="error"``, as `Step.grid` takes them. ``flip=0.5`` mirrors half of the clips, for labels that
            have no left and right; ``beyond="loop"`` or ``"clamp"`` admits videos shorter than the clip. With ``fps=``
            videos are read as if all had been taken at so many frames a second, in which ``stride`` counts; see
            `pymultigrid.video.AtRate`.

        Raises
        ------
        FileNotFoundError
            A file, or the index, does not exist, at construction.
        ValueError
            No paths, or another number of labels; on reading, a schedule for another number of videos, a damaged file,
            or a video shorter than the clip. The file is named.
        TypeError
            The labels have no order, or a sampling option has no such name.
        """
        from pymultigrid.video import Video  # PyAV is needed by those who read files, not by the rest

        if isinstance(paths, (str, os.PathLike)):
            raise TypeError(f"paths ({paths!r}) must be a list of files; VideoDataset.from_folder takes a folder")
        paths, labels = _arguments.by_position("paths", paths), _arguments.by_position("labels", labels)
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
        if damaged not in ("error", "skip", "use"):
            raise ValueError(f'damaged ({damaged!r}) must be "error", "skip" or "use"')
        self.sampling = sampling
        self.damaged = damaged
        self.videos = [Video(path, rotate=rotate, damaged="use" if damaged == "use" else "error") for path in paths]
        self.labels = labels
        self.classes = ()
        self._skipped = Skipped(len(self.videos))
        self.check_sampling()
        if index is not None:
            from pymultigrid.video._saved_index import load_index

            load_index(_arguments.path("index", index), self.videos)

    @classmethod
    def from_folder(cls: type[Kind], folder: str | os.PathLike[str], **options: Any) -> Kind:
        """Take every video in `folder`, which has one sub-folder per class; labels number the sorted sub-folders.

        ``dataset.classes`` are their names. A class's folder may have folders in it. Files that are no videos are left
        out with a warning that counts them; hidden ones, silently. `options` are the class's.
        """
        paths, labels, classes = videos_in(folder)
        files = cls(paths, labels, **options)
        files.classes = classes
        return files

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        return self._line()

    def _line(self, **options: Any) -> str:
        """Return the data set in one line: what was given of `options` and sampling."""
        damaged = None if self.damaged == "error" else self.damaged
        values = {"videos": len(self), "classes": len(self.classes) or None, **options, "damaged": damaged}
        values |= self.sampling
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
        part._skipped = Skipped(len(chosen))
        return part

    @property
    def skipped(self) -> dict[str, str]:
        """Which videos were found to be damaged in this process, with ``damaged="skip"``, and what was wrong."""
        return dict(self._skipped.reasons)

    def save_index(self, path: str | os.PathLike[str], *, workers: int | None = None) -> dict[str, str]:
        """Look through all files, and write down what is known of them, to be passed as ``index=``.

        Return which files cannot be read, and why; that is written down, too. A file that was changed since (its size
        or its time of change) is looked through again when it is read.

        Parameters
        ----------
        path
            The index, a file of a few dozen bytes for each video. It is written beside its place, and then put there.
        workers
            How many files are looked through at a time. None: as many as this machine has CPUs.
        """
        from pymultigrid.video._saved_index import save_index

        workers = os.cpu_count() or 1 if workers is None else _arguments.count("workers", workers)
        return save_index(_arguments.path("path", path), self.videos, workers)

    def check_sampling(self, baseline: Shape | None = None) -> None:
        """Refuse sampling options that are wrong for every video, or in a training with this full shape."""
        _core.check_sampling(baseline, **self._drawing())
        if "fps" in self.sampling:
            check_fps(self.sampling["fps"])

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

    def decoded(self, samples: Sequence[Sample]) -> Iterator[tuple[int, int, Pixels, Grid]]:
        """Yield what `resample` reads each clip from: its place in `samples`, which video, the frames, its grid.

        The frames are those that the grid picks, and the grid is over them. Each video is read once for all its clips,
        one video after the other. The video is the sample's own, but where that is damaged and ``damaged="skip"``.
        """
        from pymultigrid.video import DamagedVideo

        places: dict[int, list[int]] = {}
        for place, sample in enumerate(samples):
            self._check(sample)
            places.setdefault(sample.index, []).append(place)
        for index, mine in places.items():
            try:
                read = [(index, *clip) for clip in self._clips(index, [samples[place] for place in mine])]
            except DamagedVideo:
                if self.damaged != "skip":
                    raise
                read = [self._clip_instead(samples[place]) for place in mine]
            yield from ((place, *clip) for place, clip in zip(mine, read, strict=True))

    def _clips(self, index: int, samples: Sequence[Sample]) -> list[tuple[Pixels, Grid]]:
        with self.videos[index].open() as file:
            video = self._shown(file)
            return _read(video, [self._grid(video, sample) for sample in samples])

    def _clip_instead(self, sample: Sample) -> tuple[int, Pixels, Grid]:
        """Read a clip, of another video where the sample's cannot give it.

        That depends on the sample alone, and not on what was found out before: a resumed run reads the same.
        """
        from pymultigrid.video import DamagedVideo

        for attempt in range(_ATTEMPTS):
            index = drawn_instead(sample, attempt, len(self)) if attempt else sample.index
            try:
                return (index, *self._clips(index, [sample])[0])
            except DamagedVideo as damage:
                self._skipped.note(self.videos[index].path, str(damage))
        raise ValueError(f"no video that could be read was drawn in {_ATTEMPTS} attempts; {self.skipped}")

    def _shown(self, video: Video) -> Video | AtRate:
        """Return a video at the rate that it is read at."""
        return AtRate(video, self.sampling["fps"]) if "fps" in self.sampling else video

    def _drawing(self) -> dict[str, Any]:
        """Return the options of `Step.grid`."""
        return {name: value for name, value in self.sampling.items() if name != "fps"}

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

    def _grid(self, video: Video | AtRate, sample: Sample) -> Grid:
        extent = video.extent
        try:
            return sample.grid(extent, **self._drawing())
        except ValueError as error:
            raise ValueError(f"{video.path}: {error}") from error


class Views:
    """Labelled video files on their evaluation grids: what a framework's data set of views is a kind of.

    Video i has ``clips x crops`` views; T, H, W are those of `shape`; see `view_grids`.
    """

    def __init__(self, files: VideoFiles, shape: Shape, *, clips: int, crops: int) -> None:
        self.dataset = files
        self.shape = _arguments.shape(shape)
        self.clips = _arguments.count("clips", clips)
        self.crops = _arguments.count("crops", crops)

    def __len__(self) -> int:
        return len(self.dataset)

    def __repr__(self) -> str:
        _, t, h, w = self.shape
        videos = len(self.dataset)
        return f"{type(self).__name__}(videos={videos}, clips={self.clips}, crops={self.crops}, each {t}x{h}x{w})"

    def decoded(self, index: int) -> tuple[list[Pixels], list[Grid]]:
        """Return what `resample` reads the views of video `index` from; each frame is decoded once."""
        from pymultigrid.video import DamagedVideo

        try:
            return self._decoded(index)
        except DamagedVideo as damage:
            raise DamagedVideo(
                f"{damage}. Evaluation draws no other video in its place; leave video {index} out by dataset.subset"
            ) from damage

    def _decoded(self, index: int) -> tuple[list[Pixels], list[Grid]]:
        with self.dataset.videos[index].open() as file:
            video = self.dataset._shown(file)
            extent = video.extent
            try:
                grids = self._grids(extent)
            except ValueError as error:
                raise ValueError(f"{video.path}: {error}") from error
            read = _read(video, grids)
        return [frames for frames, _ in read], [grid for _, grid in read]

    def _grids(self, extent: Sequence[int]) -> list[Grid]:
        sampling = self.dataset.sampling
        options = {name: sampling[name] for name in ("stride", "segments", "beyond") if name in sampling}
        return view_grids(self.shape, extent, clips=self.clips, crops=self.crops, **options)


def _read(video: Video | AtRate, grids: Sequence[Grid]) -> list[tuple[Pixels, Grid]]:
    """Read a video once for all its grids: of each the frames that it picks, and the grid over them."""
    numbers = [tuple(grid.frames(video.extent[0])) for grid in grids]
    distinct = tuple(sorted({frame for each in numbers for frame in each}))
    pixels = video.read(distinct)
    place = {frame: i for i, frame in enumerate(distinct)}
    parts = {each: pixels if each == distinct else pixels[[place[frame] for frame in each]] for each in set(numbers)}
    return [(parts[each], picked(grid)) for each, grid in zip(numbers, grids, strict=True)]
