"""The length of training that a scheduler was made for, as far as its attributes tell."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from torch.optim import lr_scheduler as schedulers
from torch.optim.lr_scheduler import LRScheduler

from pymultigrid import Schedule

# A rate that falls below this share of the first one within the baseline was meant to fall once an epoch.
_NOTHING = 1e-9


def off_the_clock(scheduler: LRScheduler, schedule: Schedule, per: Literal["iteration", "epoch"]) -> str | None:
    """Return how a scheduler's own length differs from the baseline's; None if it fits or can't be known.

    Restarts and cycles have no length, and the parts of a sequence have their own lengths.
    """
    if per == "iteration":
        # An epoch is rarely a whole number of iterations: rounding each one is off by up to one per epoch.
        length, slack = float(schedule.baseline_iterations), schedule.baseline_epochs + 1
        name, other = "schedule.baseline_iterations", 'per="epoch", if it counts epochs'
    else:
        length, slack = schedule.baseline_epochs, 1.0
        name, other = "schedule.baseline_epochs", 'per="iteration", if it counts iterations'
    found = next(_differences(scheduler, length, slack, schedule.baseline_epochs), None)
    if found is None:
        return None
    return (
        f"{type(scheduler).__name__} {found}, and the baseline, whose clock it is on, has {length:g} {per}s: write it "
        f"for that many, {name}, as for a training without multigrid; or pass {other}"
    )


def _differences(scheduler: LRScheduler, length: float, slack: float, epochs: float) -> Iterator[str]:
    for name, own in _lengths(scheduler):
        if abs(own - length) > slack:
            yield f"has {name}={own:g}"
    if isinstance(scheduler, schedulers.MultiStepLR) and scheduler.milestones:
        last = max(scheduler.milestones)
        if last > length:
            yield f"has a milestone at {last:g}"
        elif last <= epochs < length / 2:
            yield f"has its last milestone at {last:g}"
    if isinstance(scheduler, (schedulers.StepLR, schedulers.ExponentialLR)) and 0 < scheduler.gamma < 1:
        size = getattr(scheduler, "step_size", 1)
        falls = scheduler.gamma ** (length // size)
        if falls < _NOTHING:
            each = "at each" if size == 1 else f"every {size}"
            yield f"multiplies the rate by {scheduler.gamma:g} {each}, which makes it {falls:.0e} of the first"


def _lengths(scheduler: LRScheduler) -> Iterator[tuple[str, float]]:
    """Yield the attributes of a scheduler that say how many steps it is made for."""
    for kind, name in (
        (schedulers.CosineAnnealingLR, "T_max"),
        (schedulers.OneCycleLR, "total_steps"),
        (schedulers.PolynomialLR, "total_iters"),
    ):
        if isinstance(scheduler, kind):
            yield name, float(getattr(scheduler, name))
    # The schedulers of transformers, such as get_cosine_schedule_with_warmup.
    for function in getattr(scheduler, "lr_lambdas", ()):
        if isinstance(function, partial) and "num_training_steps" in function.keywords:
            yield "num_training_steps", float(function.keywords["num_training_steps"])
            return


def first_rates(scheduler: LRScheduler) -> list[float] | None:
    """Return a fresh scheduler's first rates by its attributes; None if they can't be known."""
    for kind, name in ((schedulers.ConstantLR, "factor"), (schedulers.LinearLR, "start_factor")):
        if isinstance(scheduler, kind):
            return [float(lr) * getattr(scheduler, name) for lr in scheduler.base_lrs]
    known = (
        schedulers.CosineAnnealingLR,
        schedulers.ExponentialLR,
        schedulers.MultiStepLR,
        schedulers.PolynomialLR,
        schedulers.StepLR,
    )
    return [float(lr) for lr in scheduler.base_lrs] if isinstance(scheduler, known) else None
