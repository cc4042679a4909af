"""Checks of arguments: each returns the value as the core takes it, or raises an error that names the argument."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal

from pymultigrid import _core
from pymultigrid._core import Shape

LRScaling = Literal["linear", "sqrt", "none"]
Costs = Mapping[tuple[int, int, int], float]
_LR_POWER = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}


def shape(value: object) -> Shape:
    """Return `value`, a Shape."""
    if isinstance(value, Shape):
        return value
    if isinstance(getattr(value, "shape", None), Shape):
        raise TypeError(f"shape ({value!r}) must be a Shape; pass schedule.shape")
    yours = value if isinstance(value, tuple) and len(value) == 4 else (8, 32, 224, 224)
    raise TypeError(f"shape ({reprlib.repr(value)}) must be a Shape; write Shape{yours}")


def whole(name: str, value: int) -> int:
    """Return `value`, a whole number."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{name} ({reprlib.repr(value)}) must be a whole number")


def count(name: str, value: int, most: float | None = None) -> int:
    """Return `value`, a whole number of at least 1 and at most `most`, by default the core's limit of that name."""
    count = whole(name, value)
    if most is None:
        most = _core.limits.get(name, math.inf)
    if count < 1:
        raise ValueError(f"{name} ({reprlib.repr(count)}) must be at least 1")
    if count > most:
        raise ValueError(f"{name} ({reprlib.repr(count)}) must be at most {most}")
    return count


def seed(value: int) -> int:
    """Return `value`, a run's seed: a whole number that fits 64 bits."""
    seed = whole("seed", value)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed ({seed}) must lie in [0, 2**64); take it modulo 2**64")
    return seed


def rank(value: int, processes: int, each: str = "") -> int:
    """Return `value`, the rank of one of a schedule's processes; `each` says in the error what counts as a process."""
    rank = whole("rank", value)
    if not 0 <= rank < processes:
        raise ValueError(
            f"rank ({rank}) must lie in [0, {processes}), the schedule's processes{each}; "
            "build the schedule with the number of processes that train together"
        )
    return rank


def number(name: str, value: Any) -> float:
    """Return `value`, a number; strings and booleans are refused."""
    try:
        if not isinstance(value, (str, bytes, bool)):
            return float(value)
    except OverflowError:
        raise ValueError(f"{name} ({reprlib.repr(value)}) is too large for a float") from None
    except TypeError:
        pass
    raise TypeError(f"{name} ({reprlib.repr(value)}) must be a number")


def numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Return `values`, any sequence of numbers."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} ({reprlib.repr(values)}) must be a sequence of numbers")
    return tuple(number(f"a number of {name}", value) for value in values)


def flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} ({reprlib.repr(value)}) must be True or False")


def path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return `value`, where a file is."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} ({reprlib.repr(value)}) must be a path")
    return Path(value)


def function(name: str, value: object) -> None:
    """Refuse what can't be called."""
    if not callable(value):
        raise TypeError(f"{name} ({reprlib.repr(value)}) must be a function")


def clip_costs(costs: Costs) -> dict[tuple[int, int, int], float]:
    """Return `costs`, the cost of a clip of each (t, h, w)."""
    try:
        table = {
            (operator.index(t), operator.index(h), operator.index(w)): number("a cost", c)
            for (t, h, w), c in costs.items()
        }
    except (AttributeError, TypeError, ValueError):
        raise TypeError(
            f"costs ({reprlib.repr(costs)}) must map each clip's (t, h, w) to a number, as report.costs does"
        ) from None
    if not table:
        raise ValueError("costs is empty; pass None to count sampling points")
    return table


def lr_power(lr_scaling: LRScaling) -> float:
    """Return the exponent of the batch growth in the learning-rate scale."""
    if not isinstance(lr_scaling, str) or lr_scaling not in _LR_POWER:
        raise ValueError(f"lr_scaling ({lr_scaling!r}) must be one of {', '.join(map(repr, _LR_POWER))}")
    return _LR_POWER[lr_scaling]


def by_position(name: str, values: Any) -> Sequence[Any]:
    """Return `values` so that item i is the one at position i, whatever they are looked up by where they come from."""
    if isinstance(values, (Mapping, Set)) or not isinstance(values, Iterable):
        raise TypeError(
            f"{name} is a {type(values).__name__} ({reprlib.repr(values)}); pass a list, an array or a column of a "
            "table, one for each file and in the files' order"
        )
    if hasattr(values, "to_numpy"):  # a table's column has an index of its own: labels[0] is not its first one
        values = values.to_numpy()
        values = values.tolist() if values.dtype == object else values
    if hasattr(values, "dtype") and hasattr(values, "shape"):
        if not values.shape:
            raise TypeError(f"{name} is a single value ({values!r}); pass one for each file")
        array: Sequence[Any] = values  # NumPy's and the frameworks' arrays count positions as they are
        return array
    return list(values)
