"""The steps that an optimizer makes, and whether gradients wait for one."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.weak import TensorWeakRef


class Updates:
    """Counts the steps of an optimizer since the last `begin`; at the third it warns that lr.step() is missing.

    Not at the second, because torch's distributed checkpoints step a fresh optimizer to get its state.
    """

    count = 0

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._used: tuple[TensorWeakRef, int] | None = None  # a gradient that the optimizer has used, as it was then
        mine = weakref.ref(self)
        # Accelerate's wrapper is an Optimizer without hooks around one that has them.
        inner = getattr(optimizer, "optimizer", optimizer)
        inner.register_step_post_hook(lambda *_: _made(mine()))

    def begin(self) -> None:
        """Count from here."""
        self.count = 0

    def gradients_wait(self) -> bool:
        """Return whether gradients wait for a step: not those it has used, nor those a GradScaler finds infinite.

        Of sharded gradients each rank would see its own, and ranks would answer differently: they count as used.
        """
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        if any(hasattr(g, "to_local") for g in gradients):
            return False
        if gradients and self._used is not None:
            gradient, version = self._used[0](), self._used[1]
            if gradient is gradients[0] and gradient._version == version:
                return False
        values = [g._values() if g.is_sparse else g for g in gradients]
        return any(bool(v.any()) for v in values) and all(bool(v.isfinite().all()) for v in values)

    def _parameters(self) -> Iterator[Tensor]:
        return (p for group in self._optimizer.param_groups for p in group["params"])


def _made(updates: Updates | None) -> None:
    if updates is None:
        return
    updates.count += 1
    gradient = next((p.grad for p in updates._parameters() if p.grad is not None), None)
    updates._used = None if gradient is None else (TensorWeakRef(gradient), gradient._version)
    if updates.count == 3:
        warnings.warn(
            "optimizer.step() was called three times without lr.step(): call it in every iteration, even if "
            'the scheduler inside counts epochs (per="epoch")',
            RuntimeWarning,
            stacklevel=4,
        )
