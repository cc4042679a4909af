"""What arguments mean: checked, named in the error, and handed to the core."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Mapping, Sequence
from typing import Literal

from pymultigrid import _core
from pymultigrid._core import Shape

LRScaling = Literal["linear", "sqrt", "none"]
Costs = Mapping[tuple[int, int, int], float]
_LR_POWER = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}


def baseline(shape: object) -> Shape:
    """Return `shape`, a Shape."""
    if not isinstance(shape, Shape):
        yours = shape if isinstance(shape, tuple) and len(shape) == 4 else (8, 32, 224, 224)
        raise TypeError(f"shape ({reprlib.repr(shape)}) must be a Shape; write Shape{yours}")
    return shape


def whole(name: str, value: int) -> int:
    """Return `value`, a whole number."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} ({reprlib.repr(value)}) must be a whole number") from None


def count(name: str, value: int) -> int:
    """Return `value`, a whole number of at least 1."""
    count = whole(name, value)
    if count < 1:
        raise ValueError(f"{name} ({count}) must be at least 1")
    return count


def seed(value: int) -> int:
    """Return `value`, a run's seed: a whole number that fits 64 bits."""
    seed = whole("seed", value)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed ({seed}) must lie in [0, 2**64); take it modulo 2**64")
    return seed


def rank(value: int, processes: int, each: str = "") -> int:
    """Return `value`, one of a schedule's processes, of which `each` may be several (micro-batches)."""
    rank = whole("rank", value)
    if not 0 <= rank < processes:
        raise ValueError(
            f"rank ({rank}) must lie in [0, {processes}), the schedule's processes{each}; "
            "build the schedule with the number of processes that train together"
        )
    return rank


def numbers(name: str, values: Sequence[float] | None) -> list[float]:
    """Return `values`, any sequence of numbers; None is none."""
    try:
        return [] if values is None else [float(value) for value in values]
    except TypeError:
        raise TypeError(f"{name} ({values!r}) must be a sequence of numbers") from None


def factor(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    """Return a (temporal, spatial) or (t, h, w) factor as (t, h, w)."""
    axes = numbers(name, values)
    if len(axes) not in (2, 3):
        raise ValueError(f"{name} has {tuple(axes)}; a factor is (temporal, spatial) or (t, h, w)")
    return axes[0], axes[1], axes[-1]


def sizes(size: Shape | Sequence[float]) -> tuple[float, float, float, float]:
    """Return the (b, t, h, w) of a phase; b = 0 stands for the rule."""
    if isinstance(size, Shape):
        return size.b, size.t, size.h, size.w
    axes = numbers("a phase's sizes", size)
    if len(axes) != 3:
        raise ValueError(f"a phase has {tuple(axes)}; pass a Shape, or (t, h, w) for a batch by the rule")
    return 0.0, axes[0], axes[1], axes[2]


def phase(item: tuple[float, Shape | Sequence[float]]) -> tuple[float, float, float, float, float]:
    """Return a phase's epochs and (b, t, h, w)."""
    try:
        epochs, size = item
    except (TypeError, ValueError):
        raise TypeError(f"a phase ({item!r}) must be (epochs, shape) or (epochs, (t, h, w))") from None
    return (float(epochs), *sizes(size))


def clip_costs(costs: Costs) -> dict[tuple[int, int, int], float]:
    """Return `costs`, what a clip of (t, h, w) costs."""
    try:
        table = {(operator.index(t), operator.index(h), operator.index(w)): float(c) for (t, h, w), c in costs.items()}
    except (AttributeError, TypeError, ValueError):
        raise TypeError(
            f"costs ({reprlib.repr(costs)}) must map each clip's (t, h, w) to a number, as report.costs does"
        ) from None
    if not table:
        raise ValueError("costs is empty; pass None for a batch by sampling points")
    return table


def rules(
    shape: Shape,
    epochs: float,
    lr_drops: Sequence[float],
    short_cycle: Sequence[float] | None,
    batch_growth: float,
    lr_scaling: LRScaling,
    multiples: tuple[int, int, int],
    costs: Costs | None,
) -> _core.Rules:
    """Return the rules every plan follows; `multiples` are of (frames, heights and widths, batches)."""
    if lr_scaling not in _LR_POWER:
        raise ValueError(f"lr_scaling ({lr_scaling!r}) must be one of {', '.join(map(repr, _LR_POWER))}")
    if short_cycle is not None and not numbers("short_cycle", short_cycle):
        raise ValueError("short_cycle is empty; pass None to turn it off")
    frames, size, batch = multiples
    return _core.Rules(
        baseline=shape,
        epochs=epochs,
        lr_drops=numbers("lr_drops", lr_drops),
        short_cycle=numbers("short_cycle", short_cycle),
        batch_growth=float(batch_growth),
        lr_power=_LR_POWER[lr_scaling],
        frames_multiple_of=count("frames_multiple_of", frames),
        multiple_of=count("multiple_of", size),
        batch_multiple_of=count("batch_multiple_of", batch),
        costs={} if costs is None else clip_costs(costs),
    )


def cycles_plan(
    rules: _core.Rules,
    long_cycle: Sequence[Sequence[float]] | None,
    short_cycle: Sequence[float] | None,
    cycles: int,
    epoch_factor: float | None,
) -> _core.Plan:
    """Return the stages and the baseline's clock of long and short cycles."""
    if long_cycle is not None and not len(long_cycle):
        raise ValueError("long_cycle is empty; pass None to turn it off")
    if epoch_factor is None:
        epoch_factor = 1.0 if long_cycle is None and short_cycle is None else 1.5
    factors = [] if long_cycle is None else [factor("long_cycle", item) for item in long_cycle]
    return _core.plan_cycles(rules, factors, count("cycles", cycles), float(epoch_factor))
