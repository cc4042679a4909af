"""`pymultigrid.resample` for tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pymultigrid import Grid, _core
from pymultigrid.resample import Layout, Mode, Temporal, default_threads
from torch import Tensor

Grids = Grid | Sequence[Grid] | tuple[int, int, int]

_DTYPES = (torch.uint8, torch.float16, torch.float32, torch.bfloat16)


def resample(
    video: Tensor | Sequence[Tensor],
    grid: Grids,
    *,
    mode: Mode = "linear",
    temporal: Temporal = "nearest",
    antialias: bool = True,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
    layout: Layout = "CTHW",
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """Read a video, or a batch of videos, on a sampling grid: `pymultigrid.resample`, tensor in, tensor out.

    >>> import torch
    >>> from pymultigrid import Axis, Grid
    >>> from pymultigrid.torch import resample
    >>> video = torch.zeros(30, 240, 320, 3, dtype=torch.uint8)
    >>> grid = Grid(Axis(0, 16, 8), Axis(8, 224, 112), Axis(264, -224, 112))
    >>> clip = resample(video, grid, mean=0.45, std=0.225, dtype=torch.bfloat16)
    >>> clip.shape, clip.dtype
    (torch.Size([3, 8, 112, 112]), torch.bfloat16)

    A tensor in the layout of a model is read where it lies, by its strides: ``resample(batch.movedim(1, -1), (8, 112,
    112))`` takes B x C x T x H x W.

    Parameters
    ----------
    video
        One video T x H x W x C, a batch B x T x H x W x C, or a list of videos of different sizes; uint8, float16,
        bfloat16 or float32, any strides, in host memory.
    grid, mode, temporal, antialias, mean, std, layout, threads
        As `pymultigrid.resample`.
    dtype
        Of the result: ``torch.uint8``, ``torch.float16``, ``torch.bfloat16`` or ``torch.float32``.
    out
        A contiguous tensor to write into and return; its dtype then counts.

    Returns
    -------
    C x T x H x W for one video, B x C x T x H x W for a batch or list (``layout="THWC"``: channels last).

    Raises
    ------
    RuntimeError
        A tensor is on another device than the CPU, or requires grad: this build has no kernel for that.
    TypeError
        Something that is no tensor, or a dtype that is not in the list.
    ValueError
        As `pymultigrid.resample`.

    Notes
    -----
    Equivalent to ``torch.nn.functional.interpolate`` of the box; see `pymultigrid.resample`.
    """
    for tensor in (video,) if isinstance(video, Tensor) else video:
        _check("video", tensor)
    if out is None:
        if dtype not in _DTYPES:
            raise TypeError(f"dtype ({dtype!r}) must be one of {', '.join(map(str, _DTYPES))}")
        out = torch.empty(_core.resample_shape(video, grid, layout), dtype=dtype)
    else:
        _check("out", out)
    threads = default_threads() if threads is None else threads
    _core.resample(video, grid, out, mode, temporal, antialias, mean, std, layout, threads)
    return out


def _check(name: str, tensor: Any) -> None:
    # The fast path of DLPack skips torch's own checks.
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}, not a torch.Tensor; pymultigrid.resample takes arrays")
    if tensor.device.type != "cpu":
        raise RuntimeError(f"{name} is on {tensor.device} and this build has no CUDA kernel yet; pass {name}.cpu()")
    if tensor.requires_grad:
        raise RuntimeError(f"{name} requires grad and resample has no backward; pass {name}.detach()")
    if tensor.dtype not in _DTYPES:
        raise TypeError(f"{name} has dtype {tensor.dtype}; it must be one of {', '.join(map(str, _DTYPES))}")
