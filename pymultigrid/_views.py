"""Grids over a whole video for evaluation, and over the frames alone that were read of it."""

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
    """Return the grids of a video for evaluation: `clips` x `crops` of them, with nothing random.

    >>> from pymultigrid import Shape, view_grids
    >>> grids = view_grids(Shape(8, 32, 224, 224), (300, 256, 340), crops=3)
    >>> [grid.w.start for grid in grids], grids[0].t.start
    ([0.0, 42.0, 84.0], 134.0)

    With the extent F x H x W and the clip t x h x w, clip i of n begins at frame floor(i (F - stride t) / (n - 1)), or
    floor((F - stride t) / 2) where there is one. The crops are the largest box of h : w that fits, placed likewise over
    the longer side.

    Parameters
    ----------
    shape
        Of the clips, mostly the schedule's ``shape``; its batch plays no part.
    extent
        The video's (frames, height, width).
    clips, crops
        How many, spread evenly over time, and over the longer side.
    stride
        The temporal stride in source frames.
    segments
        One frame from the middle of each of t equal parts instead of a stride, for models trained so.
    beyond
        A video with too few frames is an ``"error"``, ``"clamp"`` repeats its last frame, ``"loop"`` starts it again.

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
    """Return `grid` over the frames that it picks, in its order: the grid on ``video.read(grid.frames(length))``."""
    return Grid(Axis(0, grid.t.size, grid.t.size), grid.h, grid.w)
