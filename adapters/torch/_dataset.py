"""A data set of video files that reads each clip on the grid of its step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pymultigrid import Shape
from pymultigrid._files import VideoFiles, Views
from pymultigrid._sample import Sample
from pymultigrid.torch._decoded import DecodedClips
from pymultigrid.torch._randomness import drawn_from
from pymultigrid.torch._resample import resample

Clips = Tensor | DecodedClips


class VideoDataset(VideoFiles, Dataset[tuple[Clips, Any]]):
    """Labelled video files, for ``Loader(dataset, schedule)``.

    ``dataset[sample]`` reads the frames that the sample's grid needs, resamples them in one pass and returns
    (clip, label), the clip C x T x H x W at the shape of the sample's step.

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
    (see ``Loader(repeats=)``) are read together, each frame once. Labels are returned unchanged. For a split by torch's
    `random_split` use ``dataset.subset(part.indices)``.

    Parameters
    ----------
    paths, labels, sampling
        Which videos, and how grids are drawn over them; ``damaged=``, ``rotate=`` and ``index=`` too: see
        `VideoFiles.__init__`, and what it raises.
    mean, std
        A number or one per channel, on the 0..1 scale: (x - mean) / std.
    dtype
        Of the clips; ``torch.uint8`` leaves scaling and normalising to you, for example on the GPU.
    resample_on
        ``"worker"``: clips are tensors. ``"device"``: a worker decodes and cuts, and ``clips.to(device)`` resamples on
        that device, so that uint8 crosses the bus and the workers only decode; see `DecodedClips`.

    Raises
    ------
    TypeError
        `dtype` is not a torch dtype that clips can have; on reading, an index is not a `Sample`.

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
        super().__init__(paths, labels, **sampling)
        if resample_on not in ("worker", "device"):
            raise ValueError(f'resample_on ({resample_on!r}) must be "worker" or "device"')
        self.output: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype}
        self.resample_on = resample_on
        resample(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), (1, 1, 1), **self.output)  # refuses wrong values now

    def __repr__(self) -> str:
        return self._line(**self.output, resample_on=None if self.resample_on == "worker" else self.resample_on)

    def __getitem__(self, sample: Sample) -> tuple[Clips, Any]:
        return self._read([sample])[0]

    def __getitems__(self, samples: Sequence[Sample]) -> list[tuple[Clips, Any]]:
        """Return the items of a batch, as a DataLoader requests them: every video is read once for all its clips."""
        if type(self).__getitem__ is VideoDataset.__getitem__:
            return self._read(samples)
        items = []
        for sample in samples:  # a subclass has its own __getitem__, which may draw random numbers
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
        read: dict[int, tuple[Clips, Any]] = {}
        for place, video, pixels, grid in self.decoded(samples):
            frames = torch.from_numpy(pixels)
            clip: Clips
            if self.resample_on == "device":
                clip = DecodedClips.of([frames], [grid], self.output, batch=())
            else:
                clip = resample(frames, grid, **self.output)
            read[place] = clip, self.labels[video]
        return [read[place] for place in range(len(samples))]

    def evaluation(self, shape: Shape, *, clips: int = 1, crops: int = 1) -> VideoViews:
        """Return the same files for evaluation at `shape`, usually ``schedule.shape``: ``[i]`` is (views, label).

        See `VideoViews`; nothing is random, and ``stride``, ``segments`` and ``beyond`` are this data set's.
        """
        return VideoViews(self, shape, clips=clips, crops=crops)


class VideoViews(Views, Dataset[tuple[Clips, Any]]):
    """Labelled video files on their evaluation grids: item i is (views, label), views N x C x T x H x W.

    N = clips x crops, also when it is 1: ``model(views.flatten(0, 1)).unflatten(0, views.shape[:2]).mean(1)`` averages
    over the views of a batch B x N x C x T x H x W. T, H, W are those of `shape`; see `view_grids`.

    Build it with ``VideoDataset.evaluation``.
    """

    dataset: VideoDataset

    def __getitem__(self, index: int) -> tuple[Clips, Any]:
        pixels, grids = self.decoded(index)
        frames = [torch.from_numpy(part) for part in pixels]
        output, label = self.dataset.output, self.dataset.labels[index]
        if self.dataset.resample_on == "device":
            return DecodedClips.of(frames, grids, output, batch=(len(grids),)), label
        return resample(frames, grids, **output), label
