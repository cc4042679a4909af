"""The baseline's clock: which of its iterations a step of the schedule corresponds to."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Literal, final

from pymultigrid._core import Step
from pymultigrid._schedule import Schedule

# A reading this close below a whole iteration or epoch counts as that number, because progress is a rounded quotient.
_TOLERANCE = 1e-6


@final
class Clock:
    """The iteration (or epoch) at which each step of a schedule evaluates the baseline's learning-rate policy.

    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid._clock import Clock
    >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=20, lr_drops=(10, 15))
    >>> clock = Clock(schedule)
    >>> clock(schedule[0]), clock(schedule[-1]), schedule.baseline_iterations
    (0, 497, 500)
    >>> Clock(schedule, per="epoch")(schedule[-1])
    19

    With N the length of the baseline, ``clock(step) = floor(step.progress * N)``. At a learning-rate drop it is exact:
    the first step of the new LR stage gives the drop's epoch e, or the first iteration of the baseline that begins at
    or after it, ceil(e * samples / global batch).

    Parameters
    ----------
    schedule
        The schedule or a slice of it; both have the same clock.
    per
        The unit that the policy counts in: ``"iteration"`` or ``"epoch"``.

    Raises
    ------
    ValueError
        `per` is neither.

    Notes
    -----
    This is our extension; in the paper the baseline drops its learning rate at given epochs only.
    """

    __slots__ = ("_knots",)

    def __init__(self, schedule: Schedule, *, per: Literal["iteration", "epoch"] = "iteration") -> None:
        if per not in ("iteration", "epoch"):
            raise ValueError(f'per ({per!r}) must be "iteration" or "epoch": what the scheduler counts')
        epochs, inner, length = schedule.baseline_epochs, list[tuple[float, float]](), schedule.baseline_epochs
        if per == "iteration":
            # An epoch is rarely a whole number of iterations: a drop takes effect at the first that begins at or after
            # it.
            per_epoch = schedule.samples / (schedule.shape.b * schedule.processes)
            inner = [(drop / epochs, math.ceil(drop * per_epoch - _TOLERANCE)) for drop in schedule.lr_drops]
            length = float(schedule.baseline_iterations)
        # (progress, baseline step) at the LR drops and both ends; the clock is linear between them.
        self._knots = ((0.0, 0.0), *inner, (1.0, length))

    def __call__(self, step: Step) -> int:
        """Return the baseline's iteration (or epoch) that `step` corresponds to."""
        knots, progress = self._knots, step.progress
        k = min(max(bisect_right(knots, progress, key=lambda knot: knot[0]), 1), len(knots) - 1)
        (p0, n0), (p1, n1) = knots[k - 1], knots[k]
        return math.floor(n0 + (n1 - n0) * ((progress - p0) / (p1 - p0)) + _TOLERANCE)
