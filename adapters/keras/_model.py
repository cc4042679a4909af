"""Checks of a model for multigrid training, made before the first step."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from pymultigrid import Schedule
from pymultigrid.keras._batch_norm import SubBatchNormalization

# Share of their first values that is left in the moving statistics after a training, above which they are wrong.
LEFT = 0.05


def check_compiled(model: Any) -> None:
    """Refuse what no schedule can be trained with, as the model was compiled."""
    if model.steps_per_execution != 1:
        raise ValueError(
            f"steps_per_execution ({model.steps_per_execution}) must be 1: Keras calls no callback between the steps "
            "of an execution; leave it out of compile"
        )
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if optimizer is None:
        raise ValueError("the model has no optimizer, whose learning rate is scaled; pass one to compile")
    if optimizer.gradient_accumulation_steps:
        raise ValueError(
            f"gradient_accumulation_steps ({optimizer.gradient_accumulation_steps}) must be None: it would add up the "
            "gradients of steps of different shapes and learning rates; leave it out, and plan a schedule for the "
            "mini-batch that fits"
        )


def check_norms(model: Any, schedule: Schedule, *, base: int) -> None:
    """Refuse a model that was not converted, and warn of batch norms that would be trained badly."""
    norms = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization) and x.trainable]
    if max(stage.base.b for stage in schedule.whole.stages) // base > 1:
        _check_kinds(norms)
    _check_momentum(norms, schedule.whole)


def _check_kinds(norms: list[Any]) -> None:
    """Refuse or warn of batch norms that would take the statistics of a whole coarse mini-batch."""
    plain = [x.name for x in norms if SubBatchNormalization.converts(x)]
    if plain:
        raise ValueError(
            f"{_named(plain)} would take the statistics of mini-batches that are larger in coarse stages; call "
            "SubBatchNormalization.convert(model) once after building it (or pass a base= as large as these "
            "mini-batches to MultigridCallback, to leave batch norm as it is)"
        )
    others = [f"{x.name} ({type(x).__name__})" for x in norms if not isinstance(x, SubBatchNormalization)]
    if others:
        warnings.warn(
            f"{_named(others)} would take the statistics of mini-batches that are larger in coarse stages: "
            "SubBatchNormalization.convert leaves this kind as it is",
            stacklevel=4,
        )


def _check_momentum(norms: list[Any], schedule: Schedule) -> None:
    """Warn of moving statistics that the schedule's few steps do not move far enough."""
    steps, baseline = len(schedule), schedule.baseline_iterations
    slow = [x for x in norms if x.momentum**steps > LEFT] if steps < baseline else []
    if slow:
        momentum = max(x.momentum for x in slow)
        warnings.warn(
            f"momentum={momentum:g} of {_named([x.name for x in slow if x.momentum == momentum])}: after the "
            f"schedule's {steps} steps {momentum**steps:.0%} of its moving statistics is still what they began with "
            f"(after the baseline's {baseline} iterations {momentum**baseline:.0%}), and evaluation uses them; "
            f"momentum={momentum ** (baseline / steps):.2g} moves them as far as the baseline's, a smaller one further",
            stacklevel=4,
        )


def _named(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
