"""The learning rate: any torch scheduler on the baseline's clock, times the schedule's scale."""

from __future__ import annotations

import reprlib
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

from pymultigrid import Schedule, Step
from pymultigrid.clock import Clock
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class ScaledLR(LRScheduler):
    """A torch scheduler written for the baseline, made right for a multigrid schedule.

    >>> import torch
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import ScaledLR
    >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=20, lr_drops=(10, 15))
    >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
    >>> cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=schedule.baseline_iterations)
    >>> lr = ScaledLR(cosine, schedule)
    >>> schedule[0].lr_scale, lr.get_last_lr()
    (8.0, [0.8])
    >>> for step in schedule:
    ...     optimizer.step()
    ...     lr.step()

    With s the schedule's step i, N the length of the baseline and f the scheduler's learning rate after k steps,

        lr_i = f(floor(s.progress * N)) * s.lr_scale

    N is ``schedule.baseline_iterations``, or ``schedule.epochs`` for a scheduler that counts epochs. At a learning-rate
    drop of the schedule the clock is exact: the first step of the new LR stage reads the drop's epoch e, or the
    baseline's first iteration that begins at or after it, ceil(e * samples / global batch). That number, or the one
    before, is what a milestone in iterations should be. Over a schedule with both cycles off it is the plain scheduler.

    Only the learning rate is scaled; a momentum that the scheduler cycles (OneCycleLR) is left as it sets it. After the
    last step the learning rate stays. A parameter group that is added later comes with the baseline's learning rate,
    and is scaled from the next ``lr.step()`` on; schedulers with one function per group (LambdaLR) refuse it.

    For a function of the baseline's iteration there is ``torch.optim.lr_scheduler.LambdaLR(optimizer, function)``.

    The state holds the step's index, so it does not matter whether a run that resumes builds this on the schedule or
    on ``schedule[start:]``, and with ``load_state_dict`` the order of building and loading does not matter either.
    Without it, ``ScaledLR(scheduler, schedule[start:])`` with a fresh scheduler goes to the same learning rate by
    itself; load the optimizer after that, as torch asks for every scheduler.

    Parameters
    ----------
    scheduler
        Any torch scheduler, fresh; this object steps it from now on.
    schedule
        The steps that will be trained, whole or a slice.
    per
        What a step of `scheduler` is for the baseline: an ``"iteration"`` or an ``"epoch"``.

    Raises
    ------
    TypeError
        `scheduler` is no torch scheduler, or is ReduceLROnPlateau, which follows a metric and has no clock.
    ValueError
        `per` is another word, `scheduler` is scaled already, or a state belongs to a step outside the schedule.

    Warns
    -----
    RuntimeWarning
        ``step()`` is called after the schedule's end, or the optimizer steps three times without it.

    Notes
    -----
    Source: Wu et al. 2020, section 3 (linear scaling rule, Goyal et al. 2017) on the long cycle's batch only.
    """

    def __init__(
        self, scheduler: LRScheduler, schedule: Schedule, *, per: Literal["iteration", "epoch"] = "iteration"
    ) -> None:
        _check(scheduler, schedule)
        self.scheduler = scheduler
        self.schedule = schedule
        self._clock = Clock(schedule, per=per)
        self._start = schedule[0].index
        # The scheduler's own record, not the groups: another scale may already be in those.
        self._unscaled = _copies(scheduler.get_last_lr())
        self._scheduler_steps = max(0, getattr(scheduler, "last_epoch", 0))
        super().__init__(scheduler.optimizer, self._start - 1)
        self._updates, mine = 0, weakref.ref(self)
        with suppress(AttributeError):  # Accelerate's wrapper is an Optimizer without hooks
            scheduler.optimizer.register_step_post_hook(lambda *_: _updated(mine()))

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next step's learning rate: once an iteration, after ``optimizer.step()``."""
        if self.last_epoch == self._start + len(self.schedule):
            warnings.warn(
                f"lr.step() after the schedule's last step, {self.last_epoch - 1}: zip(schedule, loader) is the whole "
                "training, take the loop over epochs around it away; schedule.epoch(e) has the steps of one epoch",
                RuntimeWarning,
                stacklevel=2,
            )
        self._updates = 0
        super().step(epoch)

    @property
    def current(self) -> Step:
        """The step whose learning rate the optimizer holds; the last one when training is over."""
        return self.schedule[min(self.last_epoch - self._start, len(self.schedule) - 1)]

    def get_lr(self) -> list[float | Tensor]:
        """Advance the scheduler to this step's place on the baseline's clock and return its learning rates, scaled."""
        step = self.current
        # A group that was added since comes with the baseline's learning rate.
        self._unscaled += _copies([group["lr"] for group in self.optimizer.param_groups[len(self._unscaled) :]])
        self._advance(self._clock(step))
        return [lr * step.lr_scale for lr in self._unscaled]

    def _advance(self, target: int) -> None:
        if target < self._scheduler_steps:
            raise ValueError(
                f"the scheduler has made {self._scheduler_steps} steps and step {self.last_epoch} of the schedule is "
                f"at baseline step {target}: schedulers only go forward; build both anew, or load their state"
            )
        if target == self._scheduler_steps:
            return
        # Chainable schedulers read the groups: give them back what they left there.
        _write(self.optimizer.param_groups, self._unscaled)
        # Going to where a run resumes is no step before optimizer.step(); a user's own is reported by our step().
        quiet = not getattr(self.optimizer, "_opt_called", False)
        if quiet:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)`")
                self._step_scheduler(target)
        else:
            self._step_scheduler(target)

    def _step_scheduler(self, target: int) -> None:
        while self._scheduler_steps < target:
            self.scheduler.step()
            self._scheduler_steps += 1
        self._unscaled = _copies(self.scheduler.get_last_lr())

    def state_dict(self) -> dict[str, Any]:
        """Return the state, plain numbers and the scheduler's own: ``torch.load(weights_only=True)`` takes it."""
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": _copies(self.base_lrs),
            "unscaled": _copies(self._unscaled),
            "scheduler_steps": self._scheduler_steps,
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state of `state_dict` and write its learning rates to the optimizer."""
        index, stop = state_dict["last_epoch"], self._start + len(self.schedule)
        if not self._start <= index <= stop:
            raise ValueError(
                f"the state is at step {index}, the schedule here has the steps {self._start} to {stop}; "
                "pass the whole schedule, or the slice from that step on"
            )
        self.last_epoch = index
        self.base_lrs = _copies(state_dict["base_lrs"])
        self._unscaled = _copies(state_dict["unscaled"])
        self._scheduler_steps = state_dict["scheduler_steps"]
        self.scheduler.load_state_dict(state_dict["scheduler"])
        self._last_lr = [lr * self.current.lr_scale for lr in self._unscaled]
        _write(self.optimizer.param_groups, self._last_lr)


def _updated(lr: ScaledLR | None) -> None:
    """Count the optimizer's steps since the last `ScaledLR.step`, and say at the third what is forgotten.

    Not at the second: torch's distributed checkpoints make a step of a fresh optimizer to see its state.
    """
    if lr is not None:
        lr._updates += 1
        if lr._updates == 3:
            warnings.warn(
                "optimizer.step() was called three times without lr.step(): it belongs to every iteration, also where "
                'the scheduler inside counts epochs (per="epoch")',
                RuntimeWarning,
                stacklevel=3,
            )


def _check(scheduler: LRScheduler, schedule: Schedule) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TypeError(
            "scheduler is ReduceLROnPlateau, which follows a metric and has no clock to scale; pass a scheduler of "
            "steps, or multiply by step.lr_scale in your loop"
        )
    if isinstance(scheduler, ScaledLR):
        raise ValueError("scheduler is a ScaledLR already; pass the scheduler inside it, freshly built")
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(
            f"scheduler ({reprlib.repr(scheduler)}) must be a torch LRScheduler; LambdaLR makes one of a function"
        )
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule")
    if not len(schedule):
        raise ValueError("schedule has no steps; there is nothing left to train")


def _copies(lrs: Sequence[float | Tensor]) -> list[float | Tensor]:
    return [lr.clone() if isinstance(lr, Tensor) else lr for lr in lrs]


def _write(groups: list[dict[str, Any]], lrs: Sequence[float | Tensor]) -> None:
    for group, lr in zip(groups, lrs, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)  # capturable optimizers keep the tensor
        else:
            group["lr"] = lr
