"""Adaptive optimizers, and how their rates are scaled."""

from __future__ import annotations

import math

from torch.optim import Optimizer

from pymultigrid import Schedule


def scaled_linearly(optimizer: Optimizer, schedule: Schedule) -> str | None:
    """Return a warning about an adaptive optimizer whose rate is scaled linearly with the batch, or None."""
    inner = getattr(optimizer, "optimizer", optimizer)  # Accelerate's wrapper
    name = type(inner).__name__
    # Of other libraries by their names: Adam8bit, FusedAdam. The rule is shown for these two families.
    if not any("Adam" in kind.__name__ or kind.__name__ == "RMSprop" for kind in type(inner).__mro__):
        return None
    ahead = [stage for stage in schedule.stages if stage.stop > schedule.start]
    stage = max(ahead, key=lambda stage: stage.lr_scale)
    growth = stage.base.b / schedule.shape.b
    if growth == 1 or not math.isclose(stage.lr_scale, growth):
        return None
    return (
        f"{name} would train batches {growth:g} times as large at {stage.lr_scale:g} times the rate, the rule for SGD; "
        f"for an optimizer that divides by the size of its gradients it is the square root, {math.sqrt(growth):.2g} "
        'times: Schedule(..., lr_scaling="sqrt"), or "none" (docs/models.md, Adaptive optimizers). If you have tried '
        "the linear rule, filter this warning"
    )
