"""Which layer of a model could not take a shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

from torch import Tensor, nn

from pymultigrid.torch._kinds import check_model

# What to do about an error, by its words; the first match counts. _SIZES is for all other errors but TypeError.
_ADVICE = (
    (
        r"to have \d+ channels, but got|running_mean should contain|channel dimension",
        "the layer takes another number of channels. Clips are B x C x T x H x W; a model of B x T x C x H x W takes "
        "clips.transpose(1, 2). In preflight channels= is their number, and loss= calls the model",
    ),
    (
        r"should be the same|same dtype|scalar type",
        "clips and weights are of different dtypes: use torch.autocast, or clips of the weights' dtype; in preflight "
        "dtype= is theirs, and autocast belongs in loss=",
    ),
    (
        r"\dD input|\(unbatched\)",
        "the layer takes inputs of another number of axes. Clips are B x C x T x H x W; a model of images takes "
        "clips.transpose(1, 2).flatten(0, 1), and in preflight that belongs in loss=",
    ),
    (r"same device", "move model and clips to one device"),
    (
        r"argument",
        "the model is called in another way than model(clips): in preflight loss= calls it, with all its inputs",
    ),
)
_SIZES = (
    "fit position embeddings with PositionEmbeddings, keep sizes that the model's strides divide with multiple_of= and "
    "frames_multiple_of= of the schedule, or take milder factors (plan=Cycles(long=, short=))"
)


@contextmanager
def layer_errors(model: nn.Module) -> Iterator[None]:
    """Make an error in a forward of `model` name the innermost layer that failed, and its input.

    >>> import torch
    >>> from pymultigrid.torch import layer_errors
    >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> with layer_errors(net):
    ...     net(torch.zeros(2, 3, 4, 4, 4)).shape
    torch.Size([2, 10])
    >>> with layer_errors(net):
    ...     net(torch.zeros(2, 3, 4, 8, 8))
    Traceback (most recent call last):
    ...
    ValueError: model (Sequential), layer 2 (Linear) can't take 2x576: mat1 and mat2 shapes cannot be multiplied ...

    Errors outside any forward, errors inside a compiled model, and out-of-memory errors are not changed.

    Raises
    ------
    ValueError
        A layer failed; the layer's own error is its cause.
    """
    check_model(model)
    try:
        yield
    except Exception as error:
        failed = None if out_of_memory(error) else _innermost(model, error)
        if failed is None:
            raise
        told = [f"model ({type(model).__name__}){failed}: {error}", _advice(error)]
        raise ValueError("; ".join(filter(None, told))) from error


def _advice(error: Exception) -> str:
    for words, advice in _ADVICE:
        if re.search(words, str(error)):
            return advice
    return _SIZES if isinstance(error, (RuntimeError, ValueError, IndexError, AssertionError)) else ""


def out_of_memory(error: Exception) -> bool:
    """Return whether the GPU or the CPU ran out of memory."""
    told = ("out of memory", "DefaultCPUAllocator", "bad allocation", "STATUS_ALLOC_FAILED")  # the last: cuDNN, cuBLAS
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


def _innermost(model: nn.Module, error: Exception) -> str | None:
    """Return the innermost call of a layer in the error's traceback, so that nothing is paid unless it fails."""
    names = {id(module): name for name, module in model.named_modules()}
    failed = None
    for frame, _ in walk_tb(error.__traceback__):
        # A call of a layer is nn.Module.__call__(self, *args, **kwargs).
        module, args = frame.f_locals.get("self"), frame.f_locals.get("args")
        if id(module) in names and isinstance(args, tuple):
            name = names[id(module)]
            given = ", ".join(_shapes([*args, *frame.f_locals.get("kwargs", {}).values()]))
            layer = f", layer {name} ({type(module).__name__})" if name else ""
            failed = f"{layer} can't take {given or 'its input'}"
    return failed


def _shapes(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Tensor):
            yield "x".join(map(str, value.shape)) or "a number"
        elif isinstance(value, (list, tuple)):
            yield from _shapes(value)
