"""How the mini-batch shape varies over training: the policies that `Schedule` takes as `plan`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

from pymultigrid import _arguments, _core
from pymultigrid._core import Factor, Phase, Plan, Rules, Shape

LONG_CYCLE: tuple[tuple[float, float], ...] = ((0.25, 0.5**0.5), (0.5, 0.5**0.5), (0.5, 1.0), (1.0, 1.0))
"""The paper's long cycle: (temporal, spatial) factors of the baseline, coarse to fine."""
SHORT_CYCLE: tuple[float, ...] = (0.5, 0.5**0.5)
"""The paper's short cycle: spatial factors of the baseline below the stage's base, which always comes last."""


_T = TypeVar("_T")


@final
@dataclass(frozen=True, kw_only=True)
class Cycles:
    """The paper's plan: long cycles of stages, a short cycle of steps within each stage, and fine-tuning at the end.

    >>> from pymultigrid import Cycles, Schedule, Shape
    >>> plan = Cycles(long=[(0.5, 0.5), (1, 1)], short=None, cycles=1)
    >>> schedule = Schedule(Shape(8, 16, 64, 64), samples=1000, epochs=10, plan=plan)
    >>> [str(stage.base) for stage in schedule.stages]
    ['64x8x32x32', '8x16x64x64', '8x16x64x64']

    Parameters
    ----------
    long
        (temporal, spatial) or (t, h, w) factors of the baseline, each in (0, 1]; one per stage. None: no long cycle.
    short
        Spatial factors of the baseline, each in (0, 1]. The stage's own base follows as the last size. None: no short
        cycle.
    cycles
        Number of equal long cycles over the first 82 % of the baseline's length. None: one before each of the
        schedule's `lr_drops`, or 3 if it has none (cosine, one-cycle, ...). Not allowed beside `lr_drops`.
    epoch_factor
        Epochs of the schedule / epochs of the baseline. None: 1.5 with any cycle (as in the paper), 1.0 without.

    Raises
    ------
    ValueError
        A factor or a count is out of its range, or `cycles` is given without a long cycle.
    TypeError
        An argument is of the wrong kind.

    Notes
    -----
    Source: Wu et al., "A Multigrid Method for Efficiently Training Video Models", CVPR 2020, section 3.
    """

    long: Sequence[Sequence[float]] | None = LONG_CYCLE
    short: Sequence[float] | None = SHORT_CYCLE
    cycles: int | None = None
    epoch_factor: float | None = None

    def __post_init__(self) -> None:
        if self.long is not None:
            factors = _items("long", self.long, "pass None to turn it off")
            object.__setattr__(self, "long", tuple(_factor("long", each) for each in factors))
        object.__setattr__(self, "short", _short(self.short))
        if self.cycles is not None:
            if self.long is None:
                raise ValueError(f"cycles ({self.cycles}) counts long cycles, and long is None; leave one of them out")
            object.__setattr__(self, "cycles", _arguments.count("cycles", self.cycles))
        if self.epoch_factor is not None:
            factor = _arguments.number("epoch_factor", self.epoch_factor)
            object.__setattr__(self, "epoch_factor", factor)
            if not 0 < factor < math.inf:
                raise ValueError(f"epoch_factor ({factor:g}) must be above 0 and finite; the paper's is 1.5")

    def _plan(self, rules: Rules) -> Plan:
        """Return the stages and the baseline's clock."""
        if self.cycles is not None and rules.lr_drops:
            raise ValueError(
                f"cycles ({self.cycles}) and lr_drops {rules.lr_drops} both choose the number of long cycles, of which "
                "one runs before each drop; leave one of them out"
            )
        factor = 1.0 if self.long is None and self.short is None else 1.5
        return _core.plan_cycles(
            rules,
            long=[_core_factor(factor) for factor in self.long or ()],
            short=self.short or (),
            cycles=self.cycles or 3,
            epoch_factor=factor if self.epoch_factor is None else self.epoch_factor,
        )


@final
@dataclass(frozen=True)
class Phases:
    """Your own list of sizes and how many epochs to train at each.

    The baseline is the schedule's `shape`, trained for the sum of the epochs; `lr_drops` count in the same epochs.

    A long phase at low resolution, then a short cool-down at full resolution with longer clips, as V-JEPA 2 does:

    >>> from pymultigrid import Phases, Schedule, Shape
    >>> plan = Phases([(90, (16, 256, 256)), (10, (64, 384, 384))])
    >>> schedule = Schedule(Shape(8, 64, 384, 384), samples=100_000, plan=plan, multiple_of=16)
    >>> [str(stage.base) for stage in schedule.stages]
    ['72x16x256x256', '8x64x384x384']

    Parameters
    ----------
    phases
        (epochs, (t, h, w)), where the batch follows from the schedule's rules, or (epochs, shape).
    short
        A short cycle within each phase, as in `Cycles`.

    Raises
    ------
    ValueError
        The list is empty, or a length, size or factor is out of its range.
    TypeError
        An argument is of the wrong kind.
    """

    phases: Sequence[tuple[float, Shape | Sequence[float]]]
    short: Sequence[float] | None = None

    def __post_init__(self) -> None:
        items = _items("phases", self.phases, "pass at least one (epochs, shape)")
        object.__setattr__(self, "phases", tuple(_phase(item) for item in items))
        object.__setattr__(self, "short", _short(self.short))
        self._rows()

    @property
    def epochs(self) -> float:
        """The sum of the phases' epochs, which is the length of the baseline's training."""
        return sum(epochs for epochs, _ in self.phases)

    def _rows(self) -> list[Phase]:
        """Return the phases in the core's form, which also checks them; a batch of 0 is chosen by the rules."""
        rows = ((epochs, size if isinstance(size, Shape) else (0, *size)) for epochs, size in self.phases)
        return [Phase(epochs=epochs, b=b, t=t, h=h, w=w) for epochs, (b, t, h, w) in rows]

    def _plan(self, rules: Rules) -> Plan:
        """Return the stages and the baseline's clock."""
        return _core.plan_phases(rules, phases=self._rows(), short=self.short or ())


@final
@dataclass(frozen=True, kw_only=True)
class Progressive:
    """Progressive resizing: sizes rise linearly from `start` to the full shape.

    EfficientNetV2 has four stages; one stage per epoch gives the ramp of fastai and FFCV.

    >>> from pymultigrid import Progressive, Schedule, Shape
    >>> schedule = Schedule(Shape(8, 16, 224, 224), samples=1000, epochs=16, plan=Progressive(), multiple_of=16)
    >>> [str(stage.base) for stage in schedule.stages]
    ['32x16x112x112', '19x16x144x144', '11x16x192x192', '8x16x224x224']

    Parameters
    ----------
    start
        The first stage's (temporal, spatial) or (t, h, w) factor of the baseline, in (0, 1].
    stages
        Number of stages, the last at the full shape. The ones before it have equal length.
    full_from
        The share of the training, in (0, 1), after which the last stage begins. None: all stages are equally long.

    Raises
    ------
    ValueError
        A factor, count or share is out of its range.
    TypeError
        An argument is of the wrong kind.
    """

    start: Sequence[float] = (1.0, 0.5)
    stages: int = 4
    full_from: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _factor("start", self.start))
        stages = _arguments.count("stages", self.stages)
        object.__setattr__(self, "stages", stages)
        if stages < 2:
            raise ValueError(f"stages ({stages}) must be at least 2: the first at start, the last at the full shape")
        if self.full_from is not None:
            share = _arguments.number("full_from", self.full_from)
            object.__setattr__(self, "full_from", share)
            if not 0 < share < 1:
                raise ValueError(f"full_from ({share:g}) must lie in (0, 1): the share before the full shape")

    def _plan(self, rules: Rules) -> Plan:
        """Return the stages and the baseline's clock."""
        share = (self.stages - 1) / self.stages if self.full_from is None else self.full_from
        return _core.plan_progressive(rules, start=_core_factor(self.start), stages=self.stages, full_from=share)


def baseline_length(
    plan: Cycles | Phases | Progressive,
    batch: int,
    samples: int | None,
    epochs: float | None,
    iterations: int | None,
    lr_drops: tuple[float, ...],
) -> tuple[float, tuple[float, ...]]:
    """Return the baseline's length and drops in epochs."""
    given = [
        f"{name}={value!r}" for name, value in (("epochs", epochs), ("iterations", iterations)) if value is not None
    ]
    if isinstance(plan, Phases):
        if given:
            raise ValueError(f"{given[0]} and Phases, of {plan.epochs:g} epochs, both choose the length; leave one out")
        epochs = plan.epochs
    elif len(given) != 1:
        raise ValueError(
            f"one of epochs= (with samples=) and iterations= is the baseline's length; you passed "
            f"{' and '.join(given) or 'neither'}"
        )
    if iterations is None:
        if samples is None:
            raise ValueError("samples is missing: pass the number of videos in an epoch, or plan in iterations=")
        return _arguments.number("epochs", epochs), lr_drops
    length = _arguments.count("iterations", iterations)
    if list(lr_drops) != sorted(set(lr_drops)) or not all(0 < drop < length for drop in lr_drops):
        raise ValueError(
            f"lr_drops {lr_drops} must increase, above 0 and below iterations ({length}): they count the baseline's "
            "iterations; with epochs= they count epochs"
        )
    videos = batch if samples is None else samples
    return length * batch / videos, tuple(drop * batch / videos for drop in lr_drops)


def _items(name: str, values: Iterable[_T], empty: str) -> tuple[_T, ...]:
    """Return `values` as a tuple; strings and empty sequences are refused."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} ({values!r}) must be a sequence")
    items = tuple(values)
    if not items:
        raise ValueError(f"{name} is empty; {empty}")
    return items


def _factor(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Return a (temporal, spatial) or (t, h, w) factor."""
    axes = _arguments.numbers(name, values)
    if len(axes) not in (2, 3):
        raise ValueError(f"{name} has {axes}; a factor is (temporal, spatial) or (t, h, w)")
    for axis in axes:
        _core.check_fraction(name, axis)
    return axes


def _core_factor(axes: Sequence[float]) -> Factor:
    return Factor(t=axes[0], h=axes[1], w=axes[-1])


def _short(values: Sequence[float] | None) -> tuple[float, ...] | None:
    """Return the factors of a short cycle."""
    if values is None:
        return None
    factors = _arguments.numbers("short", values)
    if not factors:
        raise ValueError("short is empty; pass None to turn it off")
    for factor in factors:
        _core.check_fraction("short", factor)
    return factors


def _phase(item: tuple[float, Shape | Sequence[float]]) -> tuple[float, Shape | tuple[float, ...]]:
    """Return a phase's epochs and sizes."""
    try:
        epochs, size = item
    except (TypeError, ValueError):
        raise TypeError(f"a phase ({item!r}) must be (epochs, shape) or (epochs, (t, h, w))") from None
    epochs = _arguments.number("a phase's epochs", epochs)
    if isinstance(size, Shape):
        return epochs, size
    axes = _arguments.numbers("a phase's sizes", size)
    if len(axes) != 3:
        raise ValueError(f"a phase has {axes}; pass a Shape, or (t, h, w) for a batch by the rule")
    return epochs, axes
