"""`pymultigrid.resample` for tensors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from pymultigrid import Axis, Grid, _core
from pymultigrid._resample import Layout, Mode, Temporal, default_threads

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

    A tensor in the layout of a model is read in place, by its strides: ``resample(batch.movedim(1, -1), (8, 112,
    112))`` takes B x C x T x H x W.

    Parameters
    ----------
    video
        One video T x H x W x C, a batch B x T x H x W x C, or a list of videos of different sizes; uint8, float16,
        bfloat16 or float32, any strides, all on the CPU or on one CUDA device. On CUDA one launch on the current stream
        makes the batch, without synchronisation, and CUDA graphs can capture it.
    grid, mode, temporal, antialias, mean, std, layout, threads
        As in `pymultigrid.resample`.
    dtype
        dtype of the result: ``torch.uint8``, ``torch.float16``, ``torch.bfloat16`` or ``torch.float32``.
    out
        A contiguous tensor on the videos' device to write into and return; its dtype then counts.

    Returns
    -------
    C x T x H x W for one video, B x C x T x H x W for a batch or list (``layout="THWC"``: channels last).

    Raises
    ------
    RuntimeError
        Tensors are on several devices, on another kind of device, or on a GPU without CUDA (`cuda_missing`); or a
        tensor requires grad, because there is no backward.
    TypeError
        An argument is not a tensor, or its dtype is not in the list.
    ValueError
        As in `pymultigrid.resample`.

    Notes
    -----
    Equivalent to ``torch.nn.functional.interpolate`` of the box; see `pymultigrid.resample`. Under ``torch.compile`` a
    call is the operator ``pymultigrid::resample`` and its grids are constants of the graph: resample outside the
    compiled region where they change.
    """
    if not isinstance(video, (Tensor, Sequence)):
        raise TypeError(f"video is a {type(video).__name__}, not a torch.Tensor; pymultigrid.resample takes arrays")
    videos = [video] if isinstance(video, Tensor) else list(video)
    for i, tensor in enumerate(videos):
        name = "video" if isinstance(video, Tensor) else f"videos[{i}]"
        _check(name, tensor)
        _check_place(name, tensor, videos[0])
    if out is None:
        torch_dtype(dtype, _DTYPES)
    else:
        _check("out", out)
        _check_place("out", out, videos[0] if videos else out)
    if torch.compiler.is_compiling() or not all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in videos):
        options = (mode, temporal, antialias, _numbers(mean), _numbers(std), layout, threads)
        clips = torch.ops.pymultigrid.resample(videos, *_boxes(grid), *options, dtype if out is None else out.dtype)
        clip: Tensor = clips[0] if isinstance(video, Tensor) and video.ndim == 4 else clips
        return clip if out is None else out.copy_(clip)
    for i, tensor in enumerate(videos):
        _check_memory("video" if isinstance(video, Tensor) else f"videos[{i}]", tensor)
    if out is not None:
        _check_memory("out", out)
    device = videos[0].device if videos else torch.device("cpu")
    # On the current stream of the tensors' device, like every operation of torch: the tensors are ready there, and
    # their memory returns to the caching allocator in stream order.
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None
    threads = default_threads() if threads is None else threads

    def make(shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    # On exit torch makes no context on a device that has none.
    with torch.cuda.device_of(videos[0]) if device.type == "cuda" else nullcontext():
        made: Tensor = _core.resample(
            video, grid, out, make, mode, temporal, antialias, mean, std, layout, threads, stream, True
        )
    return made


def torch_dtype(value: object, choices: Sequence[torch.dtype] = ()) -> torch.dtype:
    """Return `value`, a torch dtype: one of `choices`, or any."""
    if isinstance(value, torch.dtype) and (value in choices or not choices):
        return value
    name = getattr(value, "__name__", str(value)).removeprefix("torch.")
    named = getattr(torch, name, None)  # "uint8" and numpy.uint8 name torch.uint8
    meant = named if isinstance(named, torch.dtype) and (named in choices or not choices) else torch.float32
    rule = f"one of {', '.join(map(str, choices))}" if choices else "a torch dtype"
    raise TypeError(f"dtype ({value!r}) must be {rule}; pass {meant}")


def _check(name: str, tensor: Any) -> None:
    # DLPack's C exchange API skips torch's own checks.
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}, not a torch.Tensor; pymultigrid.resample takes arrays")
    if tensor.device.type not in ("cpu", "cuda"):
        raise RuntimeError(f"{name} is on {tensor.device}; resample reads CPU and CUDA tensors: pass {name}.cpu()")
    if tensor.requires_grad:
        raise RuntimeError(f"{name} requires grad and resample has no backward; pass {name}.detach()")
    if tensor.dtype not in _DTYPES:
        raise TypeError(f"{name} has dtype {tensor.dtype}; it must be one of {', '.join(map(str, _DTYPES))}")


def _check_memory(name: str, tensor: Tensor) -> None:
    # What torch stores beside the memory: a sign flag, and how much of the memory still exists.
    if tensor.is_neg() or tensor.is_conj():
        raise ValueError(
            f"{name} is a view that negates its memory when it is read, and resample works on the memory; "
            f"resolve it first: {name}.resolve_neg()"
        )
    values = tensor.numel()
    if not tensor.is_contiguous():  # faster for the usual case: a batch may have hundreds of videos
        values = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end = (tensor.storage_offset() + values) * tensor.element_size()
    if tensor.numel() and end > tensor.untyped_storage().nbytes():
        raise ValueError(
            f"{name} has no memory behind it: its storage was freed or made smaller, as FSDP does between uses; gather "
            "or copy it first"
        )


def _check_place(name: str, tensor: Tensor, first: Tensor) -> None:
    if tensor.device != first.device:
        raise RuntimeError(
            f"{name} is on {tensor.device} and the first video on {first.device}; move all to one device"
        )


# For tracing (torch.compile, export), where a call is a node of a graph: an operator of tensors and numbers. `boxes`
# are start and span of t, h, w for each grid; none: the whole of each video. The result always has B in front.
torch.library.define(
    "pymultigrid::resample",
    "(Tensor[] videos, float[] boxes, str[] beyond, int[] size, str mode, str temporal, bool antialias, float[]? mean, "
    "float[]? std, str layout, int? threads, ScalarType dtype) -> Tensor",
)


def _numbers(moment: float | Sequence[float] | None) -> list[float] | None:
    return [moment] if isinstance(moment, (int, float)) else None if moment is None else list(moment)


def _boxes(grid: Grids) -> tuple[list[float], list[str], list[int]]:
    grids = [grid] if isinstance(grid, Grid) else [each for each in grid if isinstance(each, Grid)]
    if not grids:
        return [], [], [size for size in grid if isinstance(size, int)] if isinstance(grid, tuple) else []
    axes = [(each.t, each.h, each.w) for each in grids]
    boxes = [number for each in axes for axis in each for number in (axis.start, axis.span)]
    return boxes, [each.beyond for each in grids], [axis.size for each in axes for axis in each]


def _grids(boxes: list[float], beyond: list[str], size: list[int]) -> Grids:
    if not boxes:
        return size[0], size[1], size[2]
    axes = [Axis(boxes[i], boxes[i + 1], size[i // 2]) for i in range(0, len(boxes), 2)]
    grids = [Grid(axes[3 * i], axes[3 * i + 1], axes[3 * i + 2], each) for i, each in enumerate(beyond)]
    return grids if len(grids) > 1 else grids[0]


@torch.library.impl("pymultigrid::resample", ("cpu", "cuda"))
def _operator(
    videos: list[Tensor],
    boxes: list[float],
    beyond: list[str],
    size: list[int],
    mode: Mode,
    temporal: Temporal,
    antialias: bool,
    mean: list[float] | None,
    std: list[float] | None,
    layout: Layout,
    threads: int | None,
    dtype: torch.dtype,
) -> Tensor:
    # A subclass that torch does not trace, such as torchvision's Video, arrives here unchanged; its memory is plain.
    videos = [tensor.as_subclass(Tensor) for tensor in videos]
    video = videos[0] if videos[0].ndim == 5 else videos
    grid = _grids(boxes, beyond, size)
    return resample(
        video,
        grid,
        mode=mode,
        temporal=temporal,
        antialias=antialias,
        mean=mean,
        std=std,
        dtype=dtype,
        layout=layout,
        threads=threads,
    )


def _shape_of_operator(
    videos: list[Tensor], boxes: list[float], beyond: list[str], size: list[int], *options: Any
) -> Tensor:
    layout, dtype = options[-3], options[-1]
    batch = videos[0].shape[0] if videos[0].ndim == 5 else len(videos)
    channels = videos[0].shape[-1]
    t, h, w = size[:3]  # of the first grid; the operator refuses grids of other sizes
    shape = (batch, channels, t, h, w) if layout == "CTHW" else (batch, t, h, w, channels)
    return videos[0].new_empty(shape, dtype=dtype)


torch.library.register_fake("pymultigrid::resample", _shape_of_operator)
