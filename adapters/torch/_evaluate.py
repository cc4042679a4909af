"""Evaluation at the full shape, averaged over the views of each video."""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, Subset

from pymultigrid import _arguments
from pymultigrid._progress import bar
from pymultigrid.torch._dataset import VideoViews
from pymultigrid.torch._kinds import check_model
from pymultigrid.torch._processes import rank_and_processes


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Evaluation:
    """The result of `evaluate`: a row of scores for each video, in the order of the data set, on the CPU.

    Raises
    ------
    ValueError
        A label is none of the classes, or the numbers of labels and of rows of scores differ.
    TypeError
        The labels are not whole numbers, or the scores are not videos x classes.
    """

    scores: Tensor
    """videos x classes."""
    labels: Tensor
    """videos."""

    def __post_init__(self) -> None:
        if not isinstance(self.scores, Tensor) or self.scores.dim() != 2:
            raise TypeError(f"scores ({reprlib.repr(self.scores)}) must be a tensor, videos x classes")
        _classes(self.labels, self.scores)

    def __repr__(self) -> str:
        videos, classes = self.scores.shape
        return f"Evaluation(videos={videos}, classes={classes}, accuracy={self.accuracy():.3f})"

    def accuracy(self, k: int = 1) -> float:
        """Return the share of videos whose label is among the `k` highest scores, in [0, 1]; NaN if a score is NaN.

        >>> import torch
        >>> from pymultigrid.torch import Evaluation
        >>> found = Evaluation(torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]]), torch.tensor([0, 1]))
        >>> found
        Evaluation(videos=2, classes=3, accuracy=0.500)
        >>> found.accuracy(), found.accuracy(k=2)
        (0.5, 1.0)
        """
        classes = self.scores.shape[1]
        if not 1 <= _arguments.whole("k", k) <= classes:
            raise ValueError(f"k ({k}) must lie in [1, {classes}]: the scores are of {classes} classes")
        if self.scores.isnan().any():
            return math.nan  # topk takes NaN for the highest score, which would count the first classes
        hits = self.scores.topk(k, dim=1).indices == self.labels[:, None]
        return hits.any(1).double().mean().item()


def evaluate(
    model: nn.Module,
    views: VideoViews,
    *,
    average: Literal["softmax", "logits"] = "softmax",
    batch_size: int | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Score every video of `views` by the average over its views, at the full shape, with nothing random.

    >>> import av, numpy, tempfile, torch
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import VideoDataset, evaluate
    >>> path = tempfile.mkdtemp() + "/grey.mp4"
    >>> with av.open(path, "w") as file:
    ...     stream = file.add_stream("libx264", rate=30, width=64, height=48)
    ...     for level in range(40):
    ...         file.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.full((48, 64, 3), level, "uint8"))))
    ...     file.mux(stream.encode())
    >>> dataset = VideoDataset([path, path], labels=[0, 1], stride=2)
    >>> schedule = Schedule(Shape(4, 8, 32, 32), samples=len(dataset), epochs=12)
    >>> net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(3, 5))
    >>> found = evaluate(net, dataset.evaluation(schedule.shape, clips=2, crops=3), progress=False)
    >>> found.scores.shape, found.labels
    (torch.Size([2, 5]), tensor([0, 1]))
    >>> found.accuracy() in (0.0, 0.5, 1.0), net.training
    (True, True)

    With x_v the views of a video and f the model, its scores are mean_v softmax(f(x_v)) in float32, or mean_v f(x_v)
    with ``average="logits"``. The model runs in evaluation mode, without gradients, on the device of its first
    parameter; afterwards every module has its own mode again, also one that you had frozen. ``torch.autocast`` around
    the call works as in training. Nothing is drawn from torch's generators, so training continues as it would have.

    If torch.distributed runs several processes, all of them must call this. Each reads its share of the videos, runs
    the model equally often, as DDP and FSDP need, and gets all the scores, each video counted once.

    Parameters
    ----------
    model
        Maps B x C x T x H x W to logits, B x classes. Wrap a model with other inputs or outputs in a module that does.
    views
        What ``dataset.evaluation(shape, clips=, crops=)`` returns; the labels must be whole numbers.
    average
        What is averaged over the views: probabilities, as SlowFast and VideoMAE report, or logits.
    batch_size
        Clips in one forward. None: the shape's batch, which fits in memory if training does.
    num_workers
        Workers of the data loader.
    progress
        Show a progress bar on a terminal, if tqdm is installed.

    Raises
    ------
    ValueError
        `average` is neither, `batch_size` is below 1, the model does not return B x classes, a label is none of its
        classes, or the ranks have different numbers of videos or views.
    TypeError
        `views` is not a `VideoViews`, or the labels are not whole numbers.

    Warns
    -----
    RuntimeWarning
        Scores are NaN, and so is the accuracy.

    Notes
    -----
    Source: Feichtenhofer et al. 2019, "SlowFast Networks for Video Recognition", section 4 (10 clips x 3 crops, softmax
    scores averaged).
    """
    check_model(model)
    _arguments.flag("progress", progress)
    if not isinstance(views, VideoViews):
        raise TypeError(f"views ({type(views).__name__}) must be what dataset.evaluation(shape) returns")
    if average not in ("softmax", "logits"):
        raise ValueError(f'average ({average!r}) must be "softmax" or "logits"')
    clips = views.shape.b if batch_size is None else _arguments.whole("batch_size", batch_size)
    if clips < 1:
        raise ValueError(f"batch_size ({batch_size}) must be at least 1: the clips in one forward")
    rank, processes = rank_and_processes() or (0, 1)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    sizes = _gathered(torch.tensor([[len(views), views.clips, views.crops, clips]], device=device), processes)
    if (sizes != sizes[0]).any():
        raise ValueError(
            f"the ranks' (videos, clips, crops, batch_size) are {sizes.tolist()}; pass the same list of videos and the "
            "same arguments on every rank: each reads its share of the list"
        )
    # Every process reads equally many videos; if they don't divide, the last ones read a video of another process
    # again.
    share = [(i + rank) % len(views) for i in range(0, len(views), processes)]
    loader = DataLoader(
        Subset(views, share),
        batch_size=max(1, clips // (views.clips * views.crops)),
        num_workers=_arguments.whole("num_workers", num_workers),
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # so that the loader's seed is not drawn from the training's generator
    )
    rows, answers = [], []
    with evaluating(model), torch.no_grad():
        for batch, labels in bar(loader, progress and rank == 0, desc="evaluate", unit="batch", disable=None):
            videos = batch.to(device, non_blocking=True)  # B x N x C x T x H x W
            scores = torch.cat([_scores(model, part, average) for part in videos.flatten(0, 1).split(clips)])
            rows.append(scores.unflatten(0, videos.shape[:2]).mean(1))
            answers.append(_classes(labels, rows[-1]))
    every = [_gathered(torch.cat(part).to(device), processes)[: len(views)] for part in (rows, answers)]
    wrong = int(every[0].isnan().any(1).sum())
    if wrong:
        warnings.warn(
            f"the model's scores are NaN for {wrong} of {len(views)} videos, and so is the accuracy: training has "
            "diverged, or half precision overflows",
            RuntimeWarning,
            stacklevel=2,
        )
    return Evaluation(*every)


def _scores(model: nn.Module, clips: Tensor, average: str) -> Tensor:
    logits = model(clips)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(clips):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the model made {got} of {len(clips)} clips, not {len(clips)} x classes; wrap it in a module that returns "
            "its logits, or write the loop over dataset.evaluation(shape) yourself"
        )
    return logits.float().softmax(1) if average == "softmax" else logits.float()


def _classes(labels: Any, scores: Tensor) -> Tensor:
    """Return `labels`, or raise an error unless each is a class of `scores`."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dim() != 1:
        raise TypeError(
            f"labels ({reprlib.repr(labels)}) must be whole numbers, one for each video; for others write the loop "
            "over dataset.evaluation(shape) yourself"
        )
    videos, classes = scores.shape
    if len(labels) != videos:
        raise ValueError(f"labels has {len(labels)} videos, and scores has {videos}; pass one row for each label")
    beyond = labels[(labels < 0) | (labels >= classes)]
    if len(beyond):
        raise ValueError(
            f"label {int(beyond[0])} is none of the model's {classes} classes, 0 to {classes - 1}: number the classes "
            "from 0, as VideoDataset.from_folder does, or give the model as many as there are"
        )
    return labels


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode, and restore each module's own mode on exit."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


def _gathered(mine: Tensor, processes: int) -> Tensor:
    """Return the rows of all processes, on the CPU: row i * processes + r is rank r's row i."""
    if processes == 1:
        return mine.cpu()
    every = [torch.empty_like(mine) for _ in range(processes)]
    distributed.all_gather(every, mine.contiguous())
    return torch.stack(every, 1).flatten(0, 1).cpu()
