"""Resampling: crop, flip, resize, normalise and lay out a clip in one pass over memory."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from pymultigrid import _core
from pymultigrid._core import Grid

Mode = Literal["nearest", "linear", "area"]
Temporal = Literal["nearest", "linear"]
Layout = Literal["CTHW", "THWC"]
Grids = Grid | Sequence[Grid] | tuple[int, int, int]
DTYPES = ("uint8", "float16", "float32", "bfloat16")


def default_threads() -> int:
    """Return how many threads `resample` uses by default: 1 in a child process, else the cores of this process.

    A child of `multiprocessing` (a DataLoader worker, forked or spawned) shares the machine with its siblings.
    """
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resample(
    video: Any,
    grid: Grids,
    *,
    mode: Mode = "linear",
    temporal: Temporal = "nearest",
    antialias: bool = True,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    dtype: str | np.dtype[Any] | type[np.generic] = "float32",
    layout: Layout = "CTHW",
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> Any:
    """Read a video, or a batch of videos, on a sampling grid.

    >>> import numpy as np
    >>> from pymultigrid import Axis, Grid, resample
    >>> video = np.zeros((30, 240, 320, 3), "uint8")
    >>> grid = Grid(Axis(0, 16, 8), Axis(8, 224, 112), Axis(40, 224, 112))
    >>> resample(video, grid).shape
    (3, 8, 112, 112)
    >>> resample([video, video[:, :, ::-1]], (8, 112, 112), mean=0.45, std=0.225, dtype="float16").shape
    (2, 3, 8, 112, 112)

    A flip is an axis read backwards:

    >>> row = np.arange(8, dtype="float32").reshape(1, 1, 8, 1)
    >>> resample(row, Grid(Axis(0, 1, 1), Axis(0, 1, 1), Axis(8, -8, 4)), antialias=False).ravel()
    array([6.5, 4.5, 2.5, 0.5], dtype=float32)

    Parameters
    ----------
    video
        One video T x H x W x C, a batch B x T x H x W x C, or a list of videos of different sizes. NumPy arrays or
        anything with ``__dlpack__``, in host memory or (with `out`) all on one CUDA device; uint8, float16, float32 or
        bfloat16; any strides.
    grid
        One `Grid` for all videos, one for each video, or a size (t, h, w), which reads the whole video.
    mode
        In space: ``"linear"`` (with `antialias`, a triangle as wide as the stride), ``"nearest"`` (the pixel at the
        cell's centre) or ``"area"`` (each pixel by its share of the cell). Pixels outside the box are never read.
    temporal
        ``"nearest"`` takes frame floor(start + i stride), ``"linear"`` blends the two frames around the cell's centre.
    antialias
        Whether ``"linear"`` widens its filter when it shrinks; in space only.
    mean, std
        A number, or one per channel, on the output's scale: (x - mean) / std.
    dtype
        ``"uint8"``, ``"float16"``, ``"float32"``; ``"bfloat16"`` through `out` only. A uint8 video becomes float by
        x / 255; a float video is taken as it is and cannot become uint8.
    layout
        Layout of each clip: ``"CTHW"`` or ``"THWC"``. The result for a batch or list has B in front.
    out
        A C-contiguous array to write into and return; its dtype then counts. By default memory comes from a small
        ring of reusable buffers (`set_buffer_limit`), since touching fresh memory costs more than the arithmetic.
    threads
        At most this many threads for this call; by default 1 in a child process, such as a DataLoader worker, else one
        per core. Small clips use fewer.
    stream
        For arrays on a GPU, the CUDA stream to work on, numbered as in DLPack: 1 for the legacy default stream (as are
        None and 0), 2 for the thread's, else its handle, such as CuPy's ``stream.ptr``. It is passed to the arrays'
        libraries (``__dlpack__(stream=...)``), which make it wait for their own work. The call does not wait for the
        result, which is ready for later work on that stream. Keep the arrays alive until then: their libraries do not
        know that they are still being read.

    Raises
    ------
    ValueError
        A value breaks a rule: an empty axis, a box that leaves the video, an `out` of another shape.
    TypeError
        An argument is not an array, is in neither CPU nor GPU memory, or has another dtype.
    RuntimeError
        The arrays are on a GPU, and this build or machine has no CUDA (`cuda_missing`).

    Notes
    -----
    Equal to ``torch.nn.functional.interpolate`` of the box in float32, to a few units in the last place:
    ``mode="bilinear"`` with the same ``antialias``, ``"nearest-exact"``, and ``"trilinear"`` for ``temporal="linear"``.
    """
    name = ""
    if out is None:
        name = str(dtype) if dtype in DTYPES else _named(dtype)
        if name not in DTYPES[:3]:
            hint = "pass out=, an array of it" if name == "bfloat16" else f"choose one of {DTYPES}"
            raise ValueError(f"dtype ({name!r}) can't be returned as a NumPy array; {hint}")
    threads = default_threads() if threads is None else threads
    return _core.resample(video, grid, out, name, mode, temporal, antialias, mean, std, layout, threads, stream)


def set_buffer_limit(limit: int) -> None:
    """Keep at most `limit` bytes of unused output buffers in this process; 0 turns the ring off.

    An output buffer returns to the ring when the last array that views it is gone, and the next batch is written to
    memory that is already mapped. The default limit is 256 MiB.
    """
    _core.set_buffer_limit(limit)


def _named(dtype: Any) -> str:
    try:
        return str(np.dtype(dtype))
    except TypeError:
        raise TypeError(f"dtype ({dtype!r}) must be a NumPy dtype or its name; pass 'float16', for example") from None


def cuda_missing() -> str | None:
    """Return what is missing to use CUDA (the kernel in this build, a driver, a GPU), or None.

    >>> from pymultigrid import cuda_available, cuda_missing
    >>> cuda_available() == (cuda_missing() is None)
    True
    """
    return _core.cuda_missing()


def cuda_available() -> bool:
    """Return whether `resample` takes arrays on a GPU here; `cuda_missing` says why not.

    >>> from pymultigrid import cuda_available
    >>> device = "cuda" if cuda_available() else "cpu"
    """
    return _core.cuda_missing() is None
