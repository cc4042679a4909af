"""The learning rate: any torch scheduler on the baseline's clock, times the schedule's scale."""

from __future__ import annotations

import math
import reprlib
import warnings
from typing import Any, Literal

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pymultigrid import Schedule, Step
from pymultigrid._clock import Clock
from pymultigrid.torch._adaptive import scaled_linearly
from pymultigrid.torch._driving import announce, scaling
from pymultigrid.torch._horizon import first_rates, off_the_clock
from pymultigrid.torch._rates import Mark, copies, marks, rewritten, write
from pymultigrid.torch._states import check_state, of_one_process
from pymultigrid.torch._updates import Updates

_WHOLE_TRAINING = (
    "the training is complete: save the model. The loader yields all epochs, so no loop over epochs goes around it; to "
    "stop after each epoch, iterate over Loader(dataset, schedule.epoch(e)) for e in range(schedule.num_epochs)"
)


class ScaledLR(LRScheduler):
    """Adapts a torch scheduler that was written for the baseline to a multigrid schedule.

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

    N is ``schedule.baseline_iterations``, or ``schedule.baseline_epochs`` for a scheduler that counts epochs. At a
    learning-rate drop of the schedule the clock is exact: the first step of the new LR stage is at the drop's epoch e,
    or at the baseline's first iteration that begins at or after it, ceil(e * samples / global batch). A milestone in
    iterations should be that number, or the one before. For a schedule with both cycles off this is the plain
    scheduler.

    Only the learning rate is scaled; a momentum that the scheduler cycles (OneCycleLR) stays as the scheduler sets it.
    After the last step the learning rate stays. Add later parameter groups by `add_param_group`; schedulers with one
    function per group (LambdaLR) refuse them.

    Nothing else may write the learning rate: make a warm-up part of the scheduler (``SequentialLR``).

    For a function of the baseline's iteration use ``torch.optim.lr_scheduler.LambdaLR(optimizer, function)``.

    The state holds the step's index, so a run that resumes may build this on the whole schedule or on
    ``schedule[start:]``, and with ``load_state_dict`` the order of building and loading does not matter either.
    Without it, ``ScaledLR(scheduler, schedule[start:])`` with a fresh scheduler advances to the same learning rate by
    itself; load the optimizer after that, as torch requires for every scheduler.

    Parameters
    ----------
    scheduler
        Any torch scheduler, fresh; this object steps it from now on.
    schedule
        The steps that will be trained, whole or a slice.
    per
        What a step of `scheduler` is in the baseline: an ``"iteration"`` or an ``"epoch"``.
    steps
        How many steps the trainer will make, if it counts them itself (``num_training_steps`` of Hugging Face's
        Trainer, ``len(schedule) * self.trainer.max_epochs`` for Lightning's). More than the schedule has is an error.

    Raises
    ------
    TypeError
        `scheduler` is not a torch scheduler, or is ReduceLROnPlateau, which follows a metric and has no clock.
    ValueError
        `per` is neither, `scheduler` is already scaled, or `steps` exceeds the schedule's; a state belongs to another
        schedule, or to a step outside this one.
    RuntimeError
        At the next step: something else has written the learning rate or stepped `scheduler`; or the optimizer's state
        was loaded before `scheduler` was built, and the state of this object was not loaded.

    Warns
    -----
    RuntimeWarning
        `scheduler` is made for another length than the baseline's; the optimizer is of Adam's family and the schedule
        scales rates linearly, which is SGD's rule; ``step()`` is called after the schedule's end, or while gradients
        wait for the optimizer; the optimizer steps three times without it.

    Notes
    -----
    Source: Wu et al. 2020, section 3 (linear scaling rule, Goyal et al. 2017) on the long cycle's batch only.
    """

    def __init__(
        self,
        scheduler: LRScheduler,
        schedule: Schedule,
        *,
        per: Literal["iteration", "epoch"] = "iteration",
        steps: float | None = None,
    ) -> None:
        _check(scheduler, schedule)
        _check_steps(steps, schedule)
        self.scheduler = scheduler
        self.schedule = schedule
        self._clock = Clock(schedule, per=per)
        self._per = per
        self._start = schedule[0].index
        for odd in (off_the_clock(scheduler, schedule, per), scaled_linearly(scheduler.optimizer, schedule)):
            if odd:
                warnings.warn(odd, RuntimeWarning, stacklevel=2)
        # From the scheduler's own record, because the rates in the groups may already be scaled.
        self._unscaled = copies(scheduler.get_last_lr())
        self._scheduler_steps = max(0, getattr(scheduler, "last_epoch", 0))
        other = scaling(self._unscaled, scheduler.optimizer)
        if other is not None:
            rate = float(self._unscaled[0])
            raise ValueError(
                f"scheduler begins at {rate:g}, to which another ScaledLR has scaled the optimizer's rate by "
                f"{other.current.lr_scale:g}, and it would be scaled once more; build a new optimizer, or set the "
                "baseline's rate in its groups before the scheduler is built"
            )
        self._loaded_too_early = self._rates_of_a_loaded_optimizer()
        self._written: list[Mark] = []
        self._updates = Updates(scheduler.optimizer)
        self._entered: int | None = None  # the step that `meet` let in last
        self._told = False
        super().__init__(scheduler.optimizer, self._start - 1)
        announce(self)

    def step(self, epoch: int | None = None) -> None:
        """Advance to the next step's learning rate; call it once an iteration, after ``optimizer.step()``."""
        if self.last_epoch == self._start + len(self.schedule):
            warnings.warn(
                f"lr.step() after the schedule's last step, {self.last_epoch - 1}: {_WHOLE_TRAINING}",
                RuntimeWarning,
                stacklevel=2,
            )
        if self._written:
            self._check_rates()
        skipped = self._entered == self.last_epoch and not self._updates.count
        if skipped and not self._told and self._updates.gradients_wait():
            self._told = True
            warnings.warn(
                f"lr.step() at step {self.last_epoch}, whose gradients wait for optimizer.step(): call it after "
                "that. If gradients are accumulated over several batches, make the schedule for processes=n * k, "
                "pass accumulate=k to the loader, and call both once for k batches (docs/data.md, Gradient "
                "accumulation). If you left out the step on purpose, ignore this",
                RuntimeWarning,
                stacklevel=2,
            )
        self._updates.begin()
        super().step(epoch)
        self._note()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, whose ``"lr"`` is the baseline's, to the optimizer, and scale it like the others.

        For a tenth of the current rate pass ``{"params": ..., "lr": lr.scheduler.get_last_lr()[0] / 10}``.
        """
        self._check_rates()
        self.optimizer.add_param_group(param_group)
        group = self.optimizer.param_groups[-1]
        self._unscaled += copies([group["lr"]])
        write([group], [self._unscaled[-1] * self.current.lr_scale])
        self._last_lr = copies([group["lr"] for group in self.optimizer.param_groups])
        self._note()

    def _note(self) -> None:
        """Record what was written, and the position of the scheduler inside."""
        self._written = marks(self.optimizer.param_groups)
        self._inner = getattr(self.scheduler, "last_epoch", None)

    def _check_rates(self) -> None:
        """Refuse learning rates that something else has written."""
        groups, scale = self.optimizer.param_groups, self.current.lr_scale
        if self._loaded_too_early:
            raise RuntimeError(self._loaded_too_early)
        wrong = rewritten(groups, self._last_lr, self._written)
        if wrong is not None:
            found, wrote, own = (float(x) for x in (groups[wrong]["lr"], self._last_lr[wrong], self._unscaled[wrong]))
            raise RuntimeError(
                f"parameter group {wrong} has the learning rate {found:g}, and ScaledLR wrote {wrote:g} for step "
                f"{self.last_epoch} ({own:g} of its scheduler x {scale:g}): something else writes it, a warm-up, a "
                "finder or another scheduler. Put everything that changes the rate into the scheduler that ScaledLR "
                "gets (SequentialLR, LambdaLR), and step only ScaledLR"
            )
        inner = getattr(self.scheduler, "last_epoch", None)
        if inner != self._inner:
            raise RuntimeError(
                f"the scheduler inside is at its step {inner}, and ScaledLR left it at {self._inner}: something else "
                "has stepped or loaded it; call only lr.step() and lr.load_state_dict()"
            )
        if len(groups) > len(self._unscaled) and scale != 1:
            number, rate = len(self._unscaled), float(groups[len(self._unscaled)]["lr"])
            raise RuntimeError(
                f"parameter group {number} joined the optimizer with the learning rate {rate:g} while rates are scaled "
                f"by {scale:g}, and that rate may already be scaled; call lr.add_param_group(group) with the "
                f'baseline\'s rate as its "lr": {rate:g}, or {rate / scale:g} if it was a share of the current one'
            )

    def _rates_of_a_loaded_optimizer(self) -> str:
        """Return an error message if a fresh scheduler for a slice took a checkpoint's rate as its first, else ''."""
        first = first_rates(self.scheduler)
        if not self._start or self._scheduler_steps or first is None:
            return ""
        for found, want in zip(self._unscaled, first, strict=True):
            if not math.isclose(found, want, rel_tol=1e-6):
                return (
                    f"the scheduler was built on an optimizer whose learning rate was {float(found):g}, that of a "
                    f"checkpoint, and begins there; its own is {want:g}. Load the state of the ScaledLR too, or load "
                    "the optimizer after the ScaledLR is built"
                )
        return ""

    @property
    def current(self) -> Step:
        """The step whose learning rate the optimizer has; the last one after training."""
        return self.schedule[min(self.last_epoch - self._start, len(self.schedule) - 1)]

    def get_lr(self) -> list[float | Tensor]:
        """Advance the scheduler to this step on the baseline's clock and return its scaled learning rates."""
        step = self.current
        # Groups that were added while the scale was 1.
        self._unscaled += copies([group["lr"] for group in self.optimizer.param_groups[len(self._unscaled) :]])
        self._advance(self._clock(step))
        return [lr * step.lr_scale for lr in self._unscaled]

    def _advance(self, target: int) -> None:
        if target < self._scheduler_steps:
            raise ValueError(
                f"the scheduler has made {self._scheduler_steps} steps and step {self.last_epoch} of the schedule is "
                f"at baseline step {target}: schedulers only go forward; build both again, or load their state"
            )
        if target == self._scheduler_steps:
            return
        # Chainable schedulers read the groups, so restore the rates that they wrote.
        write(self.optimizer.param_groups, self._unscaled)
        # Advancing to where a run resumes must not raise torch's warning about a step before optimizer.step(); our
        # step() reports a user's own.
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
        self._unscaled = copies(self.scheduler.get_last_lr())

    def meet(self, step: Step) -> None:
        """Refuse a step that is not the learning rate's; `sub_batches` calls it."""
        behind = step.index - self.last_epoch
        if behind == 1 and self._entered == self.last_epoch and not self._updates.count:
            self._go_past_a_skipped_step()
        elif behind:
            raise RuntimeError(self._apart(step))
        self._check_rates()
        mine = self.current
        if (step.lr_scale, step.progress) != (mine.lr_scale, mine.progress):
            raise RuntimeError(
                f"step {step.index} of the loop and of the ScaledLR are of different schedules: the learning rate is "
                f"scaled by {step.lr_scale:g} at {step.progress:.4f} of the training there, by {mine.lr_scale:g} at "
                f"{mine.progress:.4f} here; give both the same schedule"
            )
        self._entered = step.index

    def _go_past_a_skipped_step(self) -> None:
        """Make the step that a trainer skipped because a GradScaler had skipped the optimizer's."""
        if self._updates.gradients_wait():
            raise RuntimeError(
                f"step {self.last_epoch + 1} begins while the gradients of step {self.last_epoch} wait for an "
                "optimizer step: gradients are accumulated, and the schedule does not know of it; make it for "
                "processes=n * k and pass accumulate=k to the loader (docs/data.md, Gradient accumulation)"
            )
        self.step()

    def _apart(self, step: Step) -> str:
        start, stop = self._start, self._start + len(self.schedule)
        where = f"the loop trains step {step.index}, and the learning rate stands at step {self.last_epoch}"
        if self._entered == self.last_epoch == step.index - 1:
            return (
                f"{where}: call lr.step() once for each step, after optimizer.step(); Lightning does where "
                'configure_optimizers returns [optimizer], [{"scheduler": lr, "interval": "step"}]'
            )
        if self._entered in (step.index, step.index - 1) and step.index == self.last_epoch - 1:
            return f"{where}: lr.step() was called twice, or before the step was over; call it once for each step"
        if self.last_epoch == stop:
            return f"{where}, after the last one: {_WHOLE_TRAINING}"
        if not start <= step.index < stop:
            return f"{where}; it has the steps {start} to {stop}: pass it the loader's schedule"
        return (
            f"{where}: one of them was not resumed, or they are not from one checkpoint; load the state of the loader "
            "and of the ScaledLR, or build both on the same slice of the schedule"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state: plain numbers, which ``torch.load(weights_only=True)`` accepts, and the scheduler's own."""
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": copies(self.base_lrs),
            "unscaled": copies(self._unscaled),
            "scheduler_steps": self._scheduler_steps,
            "scheduler": self.scheduler.state_dict(),
            "kind": type(self.scheduler).__name__,
            "per": self._per,
            "schedule": of_one_process(self.schedule),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of `state_dict` and write its learning rates to the optimizer.

        Raises
        ------
        ValueError
            The state is of another schedule or scheduler, or of a step that is not in the schedule here.
        """
        names = ("last_epoch", "base_lrs", "unscaled", "scheduler_steps", "scheduler", "kind", "per")
        check_state(state_dict, "ScaledLR", names, self.schedule)
        for name, mine in (("kind", type(self.scheduler).__name__), ("per", self._per)):
            if state_dict[name] != mine:
                raise ValueError(
                    f"the state is of a scheduler whose {name} is {state_dict[name]!r}, here it is {mine!r}; build the "
                    "same one"
                )
        groups = len(self.optimizer.param_groups)
        if len(state_dict["unscaled"]) != groups:
            raise ValueError(
                f"the state is of {len(state_dict['unscaled'])} parameter groups, the optimizer here has {groups}; add "
                "those that joined later before loading"
            )
        index, stop = state_dict["last_epoch"], self._start + len(self.schedule)
        if not self._start <= index <= stop:
            raise ValueError(
                f"the state is at step {index}, the schedule here has the steps {self._start} to {stop}; "
                "pass the whole schedule, or the slice from that step on"
            )
        self.last_epoch = index
        self.base_lrs = copies(state_dict["base_lrs"])
        self._unscaled = copies(state_dict["unscaled"])
        self._scheduler_steps = state_dict["scheduler_steps"]
        self.scheduler.load_state_dict(state_dict["scheduler"])
        self._last_lr = [lr * self.current.lr_scale for lr in self._unscaled]
        write(self.optimizer.param_groups, self._last_lr)
        self._loaded_too_early = ""
        self._note()


def _check(scheduler: LRScheduler, schedule: Schedule) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TypeError(
            "scheduler is ReduceLROnPlateau, which follows a metric and has no clock to scale; pass a scheduler of "
            "steps, or one that reads a factor which ReduceLROnPlateau steps (docs/torch.md, The learning rate)"
        )
    if isinstance(scheduler, ScaledLR):
        raise ValueError("scheduler is a ScaledLR already; pass the scheduler inside it, freshly built")
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(
            f"scheduler ({reprlib.repr(scheduler)}) must be a torch LRScheduler; LambdaLR makes one from a function"
        )
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule")
    if not len(schedule):
        raise ValueError("schedule has no steps; there is nothing left to train")


def _check_steps(steps: float | None, schedule: Schedule) -> None:
    if steps is None:
        return
    if not isinstance(steps, (int, float)):
        raise TypeError(f"steps ({reprlib.repr(steps)}) must be a number: the steps that the trainer will make")
    if steps > len(schedule.whole):
        raise ValueError(
            f"steps ({steps:g}) is more than the schedule's {len(schedule.whole)}, which is the whole training: set "
            "the trainer's epochs to 1 (num_train_epochs=1, max_epochs=1), or its max_steps"
        )
