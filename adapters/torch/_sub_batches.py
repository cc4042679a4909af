"""The context of a step: where its forward and backward run, and where step, clips and learning rate are compared."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from pymultigrid import Shape, Step
from pymultigrid.torch._agreement import disagreement
from pymultigrid.torch._batch_norm import has_plain_norm, norms_of, splitting
from pymultigrid.torch._driving import check_rates


@contextmanager
def sub_batches(model: nn.Module, step: Step, base: int = 8) -> Iterator[int]:
    """Split the mini-batch of every SubBatchNorm in `model` for one step, and undo it on exit.

    The number of splits, which ``with ... as splits`` gives, is ``max(1, step.base.b // base)``: about `base` clips
    each with respect to the long cycle, held over the short cycle, whose larger mini-batches have larger sub-batches.
    With activation checkpointing keep ``backward()`` inside the ``with``: it runs the forward again.

    Where ``step.base.b``, the clips of one process, is below `base` and ``torch.distributed`` runs several processes,
    ``ceil(base / step.base.b)`` neighbouring ranks share their statistics, or all if they are fewer. Every process
    must then come here for the same steps. `base` is the dial: with ``base=schedule.shape.b`` no ranks ever share.

    It is also where what belongs together is compared, with batch norm or without: the `ScaledLR` of the model's
    parameters must stand at this step, a batch norm must see this step's clips, and the first input of each shape
    should have the step's frames, height and width.

    >>> import torch
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import SubBatchNorm, sub_batches
    >>> schedule = Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=10)
    >>> net = SubBatchNorm.convert(torch.nn.BatchNorm3d(4))
    >>> with sub_batches(net, schedule[0], base=16) as splits:
    ...     splits
    4

    Raises
    ------
    TypeError
        `step` is not a Step.
    ValueError
        `base` is below 1; the model's batch norms were not converted; or a batch norm sees another number of clips.
    RuntimeError
        The learning rate stands at another step.

    Warns
    -----
    RuntimeWarning
        The model's input is not of the step's shape.

    Notes
    -----
    Source: Wu et al. 2020, section 3.1.
    """
    if not isinstance(step, Step):
        raise TypeError(f"step ({step!r}) must be a Step; take it from the loop: for step, batch in loader")
    if operator.index(base) < 1:
        raise ValueError(f"base ({base}) must be at least 1: the clips of a sub-batch")
    norms = norms_of(model)
    if not norms and has_plain_norm(model):
        raise ValueError(
            f"model ({type(model).__name__}) has batch norms and none of them is a SubBatchNorm; call "
            "SubBatchNorm.convert(model) once after building it"
        )
    check_rates(model, step)
    with _watching(model, step), splitting(norms, step, base, clips=step.shape.b) as splits:
        yield splits


_seen: WeakIdKeyDictionary = WeakIdKeyDictionary()  # by model: the shapes whose input was compared


@contextmanager
def _watching(model: nn.Module, step: Step) -> Iterator[None]:
    """Compare the model's first input of each shape with its step."""
    seen: set[Shape] = _seen.setdefault(model, set())
    if step.shape in seen or isinstance(model, torch.jit.ScriptModule):
        yield
        return

    def compare(module: nn.Module, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling() or step.shape in seen:
            return
        seen.add(step.shape)
        wrong = disagreement((args, kwargs), step)
        if wrong:
            warnings.warn(
                f"{wrong}. Does the data set read each clip on its sample's grid, sample.grid(extent)?",
                RuntimeWarning,
                stacklevel=2,
            )

    hook = model.register_forward_pre_hook(compare, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
