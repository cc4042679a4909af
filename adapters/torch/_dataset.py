"""Videos on disk as a data set: each clip read on the grid that its step asks for."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pymultigrid import Shape
from pymultigrid._sample import Sample
from pymultigrid.torch._decoded import DecodedClips
from pymultigrid.torch._randomness import drawn_from
from pymultigrid.torch._resample import resample

if TYPE_CHECKING:
    from typing_extensions import Self

    from pymultigrid.video import Video

Clips = Tensor | DecodedClips


class VideoDataset(Dataset[tuple[Clips, Any]]):
    """Labelled video files, for ``Loader(dataset, schedule)``.

    ``dataset[sample]`` reads the frames that the sample's grid needs and resamples them in one pass: (clip, label), the
    clip C x T x H x W at the shape of the sample's step.

    >>> import av, numpy, tempfile
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import Loader, VideoDataset
    >>> path = tempfile.mkdtemp() + "/grey.mp4"
    >>> with av.open(path, "w") as file:
    ...     stream = file.add_stream("libx264", rate=30, width=64, height=48)
    ...     for level in range(40):
    ...         file.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.full((48, 64, 3), level, "uint8"))))
    ...     file.mux(stream.encode())
    >>> dataset = VideoDataset([path, path], labels=[0, 1], mean=0.45, std=0.225, stride=2)
    >>> dataset
    VideoDataset(videos=2, mean=0.45, std=0.225, dtype=torch.float32, stride=2)
    >>> schedule = Schedule(Shape(1, 8, 32, 32), samples=len(dataset), epochs=12)
    >>> for step, (clips, labels) in Loader(dataset, schedule):
    ...     assert clips.shape == (step.shape.b, 3, step.shape.t, step.shape.h, step.shape.w)
    >>> views, label = dataset.evaluation(schedule.shape, clips=2, crops=3)[1]
    >>> views.shape, label
    (torch.Size([6, 3, 8, 32, 32]), 1)

    A file is opened, and its frames counted, when it is first read; each worker does that once (keep them between
    epochs: ``persistent_workers=True``, or one loader for the whole schedule as above). Clips of one video in a batch
    (see ``Loader(repeats=)``) are read together, each frame once.

    Parameters
    ----------
    paths
        The video files.
    labels
        One for each, handed on as it is: a list, an array, a column of a table, taken by position.
    mean, std
        A number or one per channel, on the 0..1 scale: (x - mean) / std.
    dtype
        Of the clips; ``torch.uint8`` leaves scaling and normalising to you, on the GPU say.
    resample_on
        ``"worker"``: clips are tensors. ``"device"``: a worker decodes and cuts, and ``clips.to(device)`` resamples on
        that device, so that uint8 goes over the bus and the workers are free to decode; see `DecodedClips`.
    sampling
        How grids are drawn: ``stride=1``, ``short_side=``, ``area=``, ``aspect=``, ``flip=0``, ``segments=False`` and
        ``beyond="error"``, as `Step.grid` takes them. ``flip=0.5`` mirrors half of the clips, for labels that have no
        left and right; ``beyond="loop"`` or ``"clamp"`` admits videos shorter than the clip.

    Raises
    ------
    FileNotFoundError
        A file does not exist, at construction.
    ValueError
        No paths, or another number of labels; on reading, a schedule for another number of videos, a damaged file, or a
        video shorter than the clip. The file is named.
    TypeError
        The labels have no order, a sampling option has no such name, or `dtype` is none of torch's that clips can have;
        on reading, an index is no `Sample`.

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
        from pymultigrid._files import VideoFiles  # PyAV is needed by those who read files, not by the rest

        self.files = VideoFiles(paths, labels, **sampling)
        if resample_on not in ("worker", "device"):
            raise ValueError(f'resample_on ({resample_on!r}) must be "worker" or "device"')
        self.classes: tuple[str, ...] = ()
        self.output: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype}
        self.resample_on = resample_on
        resample(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), (1, 1, 1), **self.output)  # refuses wrong values here

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], **options: Any) -> Self:
        """Take every video in `folder`, which has one sub-folder per class; labels number the sorted sub-folders.

        ``dataset.classes`` are their names. `options` are the class's.
        """
        from pymultigrid._files import in_folder

        paths, labels, classes = in_folder(folder)
        dataset = cls(paths, labels, **options)
        dataset.classes = classes
        return dataset

    @property
    def videos(self) -> list[Video]:
        """The files, each a `pymultigrid.video.Video`."""
        return self.files.videos

    @property
    def labels(self) -> Sequence[Any]:
        """One for each video."""
        return self.files.labels

    @property
    def sampling(self) -> dict[str, Any]:
        """How grids are drawn: the options of `Step.grid` that were given."""
        return self.files.sampling

    def subset(self, indices: Iterable[int]) -> Self:
        """Return a data set of these videos alone, with the same options: a split, or a part to try things on.

        ``train, test = (dataset.subset(part.indices) for part in random_split(dataset, [0.9, 0.1]))``
        """
        part = copy.copy(self)
        part.files = self.files.subset(indices)
        return part

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        classes = len(self.classes) or None
        on = None if self.resample_on == "worker" else self.resample_on
        return self.files.line(type(self).__name__, classes=classes, **self.output, resample_on=on)

    def __getitem__(self, sample: Sample) -> tuple[Clips, Any]:
        return self._read([sample])[0]

    def __getitems__(self, samples: Sequence[Sample]) -> list[tuple[Clips, Any]]:
        """Return the items of a batch, as a DataLoader asks for them: every video is read once for all its clips."""
        if type(self).__getitem__ is VideoDataset.__getitem__:
            return self._read(samples)
        items = []
        for sample in samples:  # a subclass has its own, and random numbers in it
            with drawn_from(sample.own_seed):
                items.append(self[sample])
        return items

    def _read(self, samples: Sequence[Sample]) -> list[tuple[Clips, Any]]:
        for sample in samples:
            if not isinstance(sample, Sample):
                raise TypeError(
                    f"a VideoDataset is indexed by Sample, not {type(sample).__name__}: "
                    "read it by pymultigrid.torch.Loader(dataset, schedule), or use dataset.evaluation(shape); "
                    "Subset and random_split lose the grid: take dataset.subset(part.indices)"
                )
        read: dict[int, Clips] = {}
        for place, pixels, grid in self.files.read(samples):
            frames = torch.from_numpy(pixels)
            if self.resample_on == "device":
                read[place] = DecodedClips.of([frames], [grid], self.output, batch=())
            else:
                read[place] = resample(frames, grid, **self.output)
        return [(read[place], self.labels[sample.index]) for place, sample in enumerate(samples)]

    def evaluation(self, shape: Shape, *, clips: int = 1, crops: int = 1) -> VideoViews:
        """Return the same files for evaluation at `shape`, mostly ``schedule.shape``: ``[i]`` is (views, label).

        See `VideoViews`; nothing is random, and ``stride``, ``segments`` and ``beyond`` are this data set's.
        """
        return VideoViews(self, shape, clips=clips, crops=crops)


class VideoViews(Dataset[tuple[Clips, Any]]):
    """Labelled video files on their evaluation grids: item i is (views, label), views N x C x T x H x W.

    N = clips x crops, also when it is 1: ``model(views.flatten(0, 1)).unflatten(0, views.shape[:2]).mean(1)`` averages
    over the views of a batch B x N x C x T x H x W. T, H, W are those of `shape`; see `view_grids`.

    Build it with ``VideoDataset.evaluation``.
    """

    def __init__(self, dataset: VideoDataset, shape: Shape, *, clips: int, crops: int) -> None:
        dataset.files.check_views(shape, clips=clips, crops=crops)
        self.dataset = dataset
        self.shape = shape
        self.clips = clips
        self.crops = crops

    def __len__(self) -> int:
        return len(self.dataset)

    def __repr__(self) -> str:
        _, t, h, w = self.shape
        return f"VideoViews(videos={len(self)}, clips={self.clips}, crops={self.crops}, each {t}x{h}x{w})"

    def __getitem__(self, index: int) -> tuple[Clips, Any]:
        pixels, grids = self.dataset.files.read_views(self.shape, index, clips=self.clips, crops=self.crops)
        frames = [torch.from_numpy(part) for part in pixels]
        output, label = self.dataset.output, self.dataset.labels[index]
        if self.dataset.resample_on == "device":
            return DecodedClips.of(frames, grids, output, batch=(len(grids),)), label
        return resample(frames, grids, **output), label
