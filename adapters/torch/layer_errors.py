"""Which layer of a model could not take a shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def layer_errors(model: nn.Module) -> Iterator[None]:
    """Let an error in a forward of `model` name the innermost layer that failed, and what that was given.

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

    An error outside of any forward, and one of memory, comes through as it is. For an eager model, before it is
    compiled.

    Raises
    ------
    ValueError
        A layer failed; the layer's own error is its cause.
    """
    entered: list[tuple[str, nn.Module, str]] = []

    def enter(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append((name, module, ", ".join(_shapes([*args, *kwargs.values()]))))

    def leave(module: nn.Module, *_: Any) -> None:
        # Layers whose error was caught inside this one never left.
        while entered.pop()[1] is not module:
            pass

    with ExitStack() as undo:
        for name, module in model.named_modules():
            undo.callback(module.register_forward_pre_hook(partial(enter, name), with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(leave).remove)
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            if not entered:
                raise
            name, module, given = entered[-1]
            layer = f", layer {name} ({type(module).__name__})" if name else ""
            raise ValueError(
                f"model ({type(model).__name__}){layer} can't take {given or 'its input'}: {error}; fit position "
                "embeddings with PositionEmbeddings, keep sizes that the model's strides divide with multiple_of= and "
                "frames_multiple_of= of the schedule, or take milder factors (long_cycle=, short_cycle=)"
            ) from error


def _shapes(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, Tensor):
            yield "x".join(map(str, value.shape)) or "a number"
        elif isinstance(value, (list, tuple)):
            yield from _shapes(value)
