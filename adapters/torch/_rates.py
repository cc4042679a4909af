"""The learning rates that an optimizer's parameter groups hold: numbers, or tensors that stay the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

Group = dict[str, Any]
Rate = float | Tensor
# Which tensor a rate is and how often it was written to; None for a number.
Mark = tuple[int, int] | None


def copies(rates: Sequence[Rate]) -> list[Rate]:
    """Return the rates apart from the tensors that optimizers write to."""
    return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]


def write(groups: Sequence[Group], rates: Sequence[Rate]) -> None:
    """Give each group its rate."""
    for group, rate in zip(groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)  # capturable optimizers keep the tensor
        else:
            group["lr"] = rate


def marks(groups: Sequence[Group]) -> list[Mark]:
    """Return what `rewritten` tells a later writing by."""
    return [_mark(group["lr"]) for group in groups]


def rewritten(groups: Sequence[Group], rates: Sequence[Rate], before: Sequence[Mark]) -> int | None:
    """Return the first group whose rate is not the one that was written to it; None where all are."""
    for number, (group, rate, mark) in enumerate(zip(groups, rates, before, strict=False)):
        found = group["lr"]
        # A tensor that nobody wrote to is not looked at: the host would wait for the device.
        untouched = mark is not None and _mark(found) == mark
        if not untouched and not math.isclose(found, rate, rel_tol=1e-6):
            return number
    return None


def _mark(rate: Rate) -> Mark:
    return (id(rate), rate._version) if isinstance(rate, Tensor) else None
