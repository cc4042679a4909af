"""The context in which a step's forward and backward run, and which compares step, clips and learning rate."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from pymultigrid import Shape, Step, _arguments
from pymultigrid.torch._agreement import disagreement
from pymultigrid.torch._batch_norm import check_converted, norms_of, splitting
from pymultigrid.torch._driving import any_live, check_rates
from pymultigrid.torch._kinds import check_model


@contextmanager
def sub_batches(model: nn.Module, step: Step, base: int = 8) -> Iterator[int]:
    """Split the mini-batch of every SubBatchNorm in `model` for one step, and undo it on exit.

    The number of splits, the value of ``with ... as splits``, is ``max(1, step.base.b // base)``: about `base` clips
    each in the long cycle. It is constant over the short cycle, whose larger mini-batches have larger sub-batches. With
    activation checkpointing call ``backward()`` inside the ``with``, because it runs the forward again, which is
    refused outside, where the step is not known.

    If ``step.base.b``, the clips of one process, is below `base` and ``torch.distributed`` runs several processes,
    ``ceil(base / step.base.b)`` neighbouring ranks share their statistics, or all if they are fewer. Every process must
    then enter this for the same steps. `base` controls it: with ``base=schedule.shape.b`` no ranks ever share.

    With batch norm or without, this also checks the loop: the `ScaledLR` of the model's parameters must be at this
    step, a batch norm must get this step's clips, and the first input of each shape should have the step's frames,
    height and width.

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
        `base` is below 1; the model's batch norms were not converted; or a batch norm gets another number of clips.
    RuntimeError
        The learning rate is at another step, or a checkpointed layer runs again after the ``with``.

    Warns
    -----
    RuntimeWarning
        The model's input is not of the step's shape, some of its batch norms were not converted, or no `ScaledLR`
        scales the learning rate.

    Notes
    -----
    Source: Wu et al. 2020, section 3.1.
    """
    check_model(model)
    if not isinstance(step, Step):
        raise TypeError(f"step ({step!r}) must be a Step; take it from the loop: for step, batch in loader")
    if _arguments.whole("base", base) < 1:
        raise ValueError(f"base ({base}) must be at least 1: the clips of a sub-batch")
    norms = norms_of(model)
    known: tuple[set[Shape], set[Shape]] = _known.get(model) or (set(), set())
    looked, seen = known
    if step.shape not in looked:
        check_converted(model, norms)
        looked.add(step.shape)
        _known[model] = known
    check_rates(model, step)
    with _watching(model, step, seen), splitting(norms, step, base, clips=step.shape.b) as splits:
        yield splits
    _check_scaled(model, step)


# By model: the shapes at which its batch norms were checked, and those whose input was compared.
_known: WeakIdKeyDictionary = WeakIdKeyDictionary()
_unscaled: WeakIdKeyDictionary = WeakIdKeyDictionary()  # the models that were warned to train without a ScaledLR
_comparing: WeakIdKeyDictionary = WeakIdKeyDictionary()  # by model: the step whose input is awaited


def _check_scaled(model: nn.Module, step: Step) -> None:
    """Warn once of a model that trains on larger batches at the baseline's learning rate."""
    if step.lr_scale == 1 or any_live() or model in _unscaled:
        return
    if any(p.grad is not None for p in model.parameters()):
        _unscaled[model] = True
        warnings.warn(
            f"step {step.index} needs {step.lr_scale:g} times the baseline's learning rate, and there is no ScaledLR: "
            "make one of your scheduler, ScaledLR(scheduler, schedule), and call its step() once an iteration. If you "
            "multiply by step.lr_scale yourself, filter this warning; if nothing should be scaled, pass "
            'lr_scaling="none" to the schedule',
            RuntimeWarning,
            stacklevel=4,
        )


@contextmanager
def _watching(model: nn.Module, step: Step, seen: set[Shape]) -> Iterator[None]:
    """Compare the model's first input of each shape with its step."""
    if step.shape in seen or isinstance(model, torch.jit.ScriptModule):
        yield
        return
    _comparing[model] = step
    hook = model.register_forward_pre_hook(_compare, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        _comparing.pop(model, None)


def _compare(model: nn.Module, args: Any, kwargs: Any) -> None:
    """Warn of an input that does not have the step's shape. A module-level function, so that models can be pickled."""
    if torch.compiler.is_compiling():
        return
    step = _comparing.pop(model, None)  # a copy that was made inside the step has the hook but no step
    if step is None:
        return
    _known[model][1].add(step.shape)
    wrong = disagreement((args, kwargs), step)
    if wrong:
        warnings.warn(
            f"{wrong}. Does the data set read each clip on its sample's grid, sample.grid(extent)?",
            RuntimeWarning,
            stacklevel=2,
        )
