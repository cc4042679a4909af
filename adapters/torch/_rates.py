"""The learning rates in an optimizer's parameter groups: numbers, or tensors that are written in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

Group = dict[str, Any]
Rate = float | Tensor
# The identity of a tensor and how often it was written to; None for a number.
Mark = tuple[int, int] | None


def copies(rates: Sequence[Rate]) -> list[Rate]:
    """Return copies of the rates that do not share memory with the optimizer's tensors."""
    return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]


def write(groups: Sequence[Group], rates: Sequence[Rate]) -> None:
    """Set the rate of each group."""
    for group, rate in zip(groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)  # capturable optimizers keep the tensor
        else:
            group["lr"] = rate


def marks(groups: Sequence[Group]) -> list[Mark]:
    """Return the marks by which `rewritten` detects a later write."""
    return [_mark(group["lr"]) for group in groups]


def rewritten(groups: Sequence[Group], rates: Sequence[Rate], before: Sequence[Mark]) -> int | None:
    """Return the first group whose rate is no longer the one that was written, or None."""
    for number, (group, rate, mark) in enumerate(zip(groups, rates, before, strict=False)):
        found = group["lr"]
        # A tensor that nobody wrote to is not read, because the host would wait for the device.
        untouched = mark is not None and _mark(found) == mark
        if not untouched and not math.isclose(found, rate, rel_tol=1e-6):
            return number
    return None


def _mark(rate: Rate) -> Mark:
    return (id(rate), rate._version) if isinstance(rate, Tensor) else None
