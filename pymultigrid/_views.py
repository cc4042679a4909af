"""Grids over a whole video for evaluation, and grids over only the frames that were read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pymultigrid import _arguments, _core
from pymultigrid._core import Axis, Grid, Shape


def view_grids(
    shape: Shape,
    extent: Sequence[int],
    *,
    clips: int = 1,
    crops: int = 1,
    stride: int = 1,
    segments: bool = False,
    beyond: Literal["error", "clamp", "loop"] = "error",
) -> list[Grid]:
    """Return a video's `clips` x `crops` grids for evaluation, with nothing random.

    >>> from pymultigrid import Shape, view_grids
    >>> grids = view_grids(Shape(8, 32, 224, 224), (300, 256, 340), crops=3)
    >>> [grid.w.start for grid in grids], grids[0].t.start
    ([0.0, 42.0, 84.0], 134.0)

    With the extent F x H x W and the clip t x h x w, clip i of n begins at frame floor(i (F - stride t) / (n - 1)), or
    floor((F - stride t) / 2) if n is 1. The crops are the largest boxes of aspect h : w that fit, placed likewise along
    the longer side.

    Parameters
    ----------
    shape
        The shape of the clips, usually the schedule's ``shape``; its batch is ignored.
    extent
        The video's (frames, height, width).
    clips, crops
        Number of clips, spread evenly over time, and of crops, spread evenly over the longer side.
    stride
        The temporal stride in source frames.
    segments
        Take one frame from the middle of each of t equal parts instead of a stride, for models trained that way.
    beyond
        With too few frames: ``"error"``, ``"clamp"`` to the last frame, or ``"loop"`` from the first again.

    Raises
    ------
    ValueError
        A number is below 1, or the video is too short.
    TypeError
        `shape` is not a `Shape`, or another argument is of the wrong kind.

    Notes
    -----
    Source: Feichtenhofer et al. 2019, "SlowFast Networks for Video Recognition", section 4 (10 clips x 3 crops).
    """
    return _core.view_grids(_arguments.shape(shape), extent, clips, crops, stride, segments, beyond)


def picked(grid: Grid) -> Grid:
    """Return `grid` on the frames that it picks, in that order: the grid for ``video.read(grid.frames(length))``."""
    return Grid(Axis(0, grid.t.size, grid.t.size), grid.h, grid.w)
