"""Labelled video files for Keras: mini-batches for training, views for evaluation."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import keras
import numpy as np

from pymultigrid import Schedule, Shape, resample
from pymultigrid._files import VideoFiles, Views
from pymultigrid._resample import default_threads
from pymultigrid._sample import Sample
from pymultigrid.keras._batches import batches
from pymultigrid.keras._callback import MultigridCallback


class VideoDataset(VideoFiles):
    """Labelled video files, for ``model.fit(dataset.training(multigrid), callbacks=[multigrid], ...)``.

    >>> import av, keras, numpy, tempfile
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.keras import VideoDataset
    >>> path = tempfile.mkdtemp() + "/grey.mp4"
    >>> with av.open(path, "w") as file:
    ...     stream = file.add_stream("libx264", rate=30, width=64, height=48)
    ...     for level in range(40):
    ...         file.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.full((48, 64, 3), level, "uint8"))))
    ...     file.mux(stream.encode())
    >>> dataset = VideoDataset([path, path], labels=[0, 1], mean=0.45, std=0.225, stride=2)
    >>> schedule = Schedule(Shape(1, 8, 32, 32), samples=len(dataset), epochs=12)
    >>> for step, (clips, labels) in dataset.training(schedule):
    ...     assert clips.shape == (*tuple(step.shape), 3)
    >>> views, labels = dataset.evaluation(schedule.shape, clips=2, crops=3)[1]
    >>> views.shape, labels.tolist()
    ((6, 8, 32, 32, 3), [1, 1, 1, 1, 1, 1])

    A file is opened, and its frames counted, when it is first read. Clips of one video in a mini-batch are read
    together, each frame once.

    Parameters
    ----------
    paths, sampling
        Which videos, and how grids are drawn over them; ``damaged=``, ``rotate=`` and ``index=`` too: see
        `VideoFiles.__init__`, and what it raises.
    labels
        One for each video: a number, an array or list of numbers (one-hot), or a tuple or dictionary of them for a
        model with several outputs.
    mean, std
        A number or one per channel, on the 0..1 scale: (x - mean) / std.
    dtype
        Of the clips: ``"float32"``, ``"float16"``, or ``"uint8"``, which leaves scaling to the model (``Rescaling``).

    Notes
    -----
    Clips are B x T x H x W x C, or B x C x T x H x W where ``keras.config.image_data_format()`` is
    ``"channels_first"``. Source: Wu et al. 2020, section 3.2 (sampling grids); reading only a grid's frames is ours.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        labels: Sequence[Any],
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        dtype: str = "float32",
        **sampling: Any,
    ) -> None:
        super().__init__(paths, labels, **sampling)
        _check_labels(labels)
        layout = "THWC" if keras.config.image_data_format() == "channels_last" else "CTHW"
        self.output: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype, "layout": layout}
        resample(np.zeros((1, 1, 1, 3), "uint8"), (1, 1, 1), **self.output)  # refuses wrong values now

    def __repr__(self) -> str:
        return self._line(**self.output)

    def training(self, steps: MultigridCallback | Schedule, **options: Any) -> Any:
        """Return mini-batches for ``model.fit``: (clips, labels), each clip on its sample's grid.

        `steps` is the callback that `fit` gets or, for your own loop over (step, mini-batch), the schedule; it and the
        options ``seed=``, ``rank=`` and ``workers=`` are those of `batches`.
        """
        schedule = steps.schedule if isinstance(steps, MultigridCallback) else steps
        if isinstance(schedule, Schedule):  # `batches` refuses what is neither
            self.check_sampling(schedule.shape)
        return batches(steps, self.read, **options)

    def read(self, samples: Sequence[Sample]) -> tuple[Any, Any]:
        """Return (clips, labels) of these samples."""
        in_order = sorted(self.decoded(samples), key=itemgetter(0))
        _, videos, pixels, grids = zip(*in_order, strict=True)
        # Threads read mini-batches side by side: one for each.
        clips = resample(pixels, grids, threads=1, **self.output)
        return clips, _stack([self.labels[video] for video in videos])

    def evaluation(self, shape: Shape, *, clips: int = 1, crops: int = 1, workers: int | None = None) -> VideoViews:
        """Return the same files for ``validation_data``, ``evaluate`` and ``predict`` at `shape`: ``schedule.shape``.

        See `VideoViews`; nothing is random, and ``stride``, ``segments`` and ``beyond`` are this data set's.
        """
        return VideoViews(self, shape, clips=clips, crops=crops, workers=workers)


class VideoViews(Views, keras.utils.PyDataset):
    """Labelled video files on their evaluation grids, in order: item i is (views, labels), views B x T x H x W x C.

    With N = clips x crops views of each video, its views follow one another and each carries the video's label;
    ``model.predict(views).reshape(len(dataset), N, -1).mean(1)`` averages over them. T, H, W are those of
    `shape`, and B is at most its batch (or N); see `view_grids`.

    Build it with ``VideoDataset.evaluation``.
    """

    dataset: VideoDataset

    def __init__(self, dataset: VideoDataset, shape: Shape, *, clips: int, crops: int, workers: int | None) -> None:
        keras.utils.PyDataset.__init__(self, workers=default_threads() if workers is None else workers)
        Views.__init__(self, dataset, shape, clips=clips, crops=crops)
        self._videos = max(1, shape.b // (clips * crops))

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self._videos)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        pixels, grids, labels = [], [], []
        for video in range(len(self.dataset))[index * self._videos : (index + 1) * self._videos]:
            frames, on = self.decoded(video)
            pixels += frames
            grids += on
            labels += [self.dataset.labels[video]] * len(on)
        return resample(pixels, grids, threads=1, **self.dataset.output), _stack(labels)


def _stack(labels: Sequence[Any]) -> Any:
    """Stack labels into arrays, one for each entry of a tuple or dictionary."""
    first = labels[0]
    if isinstance(first, Mapping):
        return {name: _stack([label[name] for label in labels]) for name in first}
    if isinstance(first, tuple):
        return tuple(map(_stack, zip(*labels, strict=True)))
    return np.asarray(labels)


def _check_labels(labels: Sequence[Any]) -> None:
    """Refuse labels that Keras cannot train on."""
    try:
        arrays = keras.tree.flatten(_stack(list(labels)))
    except (ValueError, KeyError) as error:
        raise ValueError(f"labels differ in their shape or structure: {error}; pass the same for each video") from error
    for array in arrays:
        if array.dtype.kind in "OSU":
            raise TypeError(
                f"labels has {array.flat[0]!r} and must have numbers, arrays or lists of them, or tuples or "
                "dictionaries of these; number the classes from 0 on, as VideoDataset.from_folder does"
            )
