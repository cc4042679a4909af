"""Which learning rates drive a model."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from pymultigrid import Step

if TYPE_CHECKING:
    from pymultigrid.torch._scaled_lr import ScaledLR

_live: weakref.WeakKeyDictionary[ScaledLR, int] = weakref.WeakKeyDictionary()
_numbers = count()  # an id() may be reused
# By model: which ScaledLRs are live, with how many parameters, and which of them drive the model. Cached because a
# search through a model's parameters takes as long as the rest of a step's bookkeeping.
_driving: WeakIdKeyDictionary = WeakIdKeyDictionary()


def announce(lr: ScaledLR) -> None:
    """Register a ScaledLR for `check_rates` for as long as it lives."""
    _live[lr] = next(_numbers)


def scaling(lrs: Sequence[float | Tensor], optimizer: object) -> ScaledLR | None:
    """Return the ScaledLR that has scaled the optimizer's rates to `lrs`, if there is one."""
    for lr in _live:
        scaled = lr.current.lr_scale != 1 and lr.last_epoch < lr.schedule.stop
        if scaled and lr.optimizer is optimizer and [float(x) for x in lrs] == [float(x) for x in lr.get_last_lr()]:
            return lr
    return None


def any_live() -> bool:
    """Return whether there is any ScaledLR in this process."""
    return len(_live) > 0


def check_rates(model: nn.Module, step: Step) -> None:
    """Let every ScaledLR that drives parameters of `model` check that it is at `step`."""
    live = {
        number: (sum(len(group["params"]) for group in lr.optimizer.param_groups), lr) for lr, number in _live.items()
    }
    key = tuple((number, size) for number, (size, _) in live.items())
    known = _driving.get(model)
    if known is None or known[0] != key:
        parameters = {id(p) for p in model.parameters()}
        drives = [
            number
            for number, (_, lr) in live.items()
            if any(id(p) in parameters for group in lr.optimizer.param_groups for p in group["params"])
        ]
        known = _driving[model] = key, drives
    for number in known[1]:
        live[number][1].meet(step)
