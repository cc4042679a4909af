"""The learning rate: any Keras policy on the baseline's clock, times the schedule's scale."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers import schedules

from pymultigrid import Schedule
from pymultigrid._clock import Clock


@keras.saving.register_keras_serializable("pymultigrid")
class ScaledLR(schedules.LearningRateSchedule):
    """Adapts a Keras learning-rate schedule that was written for the baseline to a multigrid schedule.

    `MultigridCallback` puts it around the optimizer's own schedule, or number, while a step is trained. You can use it
    in your own loops, too.

    >>> import keras
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.keras import ScaledLR
    >>> schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=20, lr_drops=(10, 15))
    >>> cosine = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=schedule.baseline_iterations)
    >>> optimizer = keras.optimizers.SGD(ScaledLR(cosine, schedule), momentum=0.9)
    >>> schedule[0].lr_scale, round(float(optimizer.learning_rate), 6)
    (8.0, 0.8)

    With s the schedule's step i, N the length of the baseline in iterations and f the policy,

        lr(i) = f(floor(s.progress * N)) * s.lr_scale

    where i is ``optimizer.iterations``, so a run that resumes needs nothing else. At a learning-rate drop of the
    schedule the clock is exact: the first step of the new LR stage is at the baseline's first iteration that begins at
    or after it, ``ceil(e * samples / global batch)`` for a drop at epoch e. (Keras' PiecewiseConstantDecay drops
    *after* its boundary: pass it that number minus 1.) After the last step the learning rate stays.

    Parameters
    ----------
    policy
        Any Keras learning-rate schedule that counts iterations; or a number, a variable or a function without
        arguments, as Keras' optimizers have.
    schedule
        The steps that will be trained; a slice counts as its whole schedule.

    Raises
    ------
    TypeError
        `policy` is neither, or `schedule` is not a Schedule.
    ValueError
        `policy` is already scaled.

    Warns
    -----
    UserWarning
        `policy` decays over another number of iterations than the baseline's.

    Notes
    -----
    Source: Wu et al. 2020, section 3 (linear scaling rule, Goyal et al. 2017) on the long cycle's batch only. Two
    numbers per step are kept in memory and in a traced graph.
    """

    def __init__(self, policy: Any, schedule: Schedule) -> None:
        if isinstance(policy, ScaledLR):
            raise ValueError("policy is a ScaledLR already; pass the learning-rate schedule inside it, policy.policy")
        if not (callable(policy) or isinstance(policy, (int, float, keras.Variable))):
            raise TypeError(f"policy ({policy!r}) must be a Keras LearningRateSchedule or a number")
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule")
        _check_length(policy, schedule)
        self.policy = policy
        self.schedule = schedule.whole
        clock = Clock(self.schedule)
        self._baseline = np.array([clock(step) for step in self.schedule], np.int32)
        self._scale = np.array([step.lr_scale for step in self.schedule], np.float32)

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of the schedule's step with this index."""
        index = ops.clip(ops.cast(step, "int32"), 0, len(self._scale) - 1)
        at = ops.take(ops.convert_to_tensor(self._baseline), index)
        rate: Any = self.policy
        if isinstance(rate, schedules.LearningRateSchedule):
            rate = rate(at)
        elif callable(rate):
            rate = rate()
        return rate * ops.take(ops.convert_to_tensor(self._scale), index)

    def get_config(self) -> dict[str, Any]:
        """Return the policy's configuration and the schedule's numbers, for a saved model."""
        policy: Any = self.policy
        if isinstance(policy, keras.Variable):
            policy = float(ops.copy(policy))
        elif callable(policy):
            policy = keras.saving.serialize_keras_object(policy)
        return {"policy": policy, "schedule": self.schedule.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ScaledLR:
        """Build it from what `get_config` returned."""
        policy = config["policy"]
        if isinstance(policy, dict):
            policy = keras.saving.deserialize_keras_object(policy)
        return cls(policy, Schedule.from_dict(config["schedule"]))


def _check_length(policy: Any, schedule: Schedule) -> None:
    """Warn of a policy that is written for another clock: that of multigrid's steps, or of epochs."""
    baseline = schedule.baseline_iterations
    name, about = type(policy).__name__, "a policy is read on the clock of the baseline"
    if type(policy) is schedules.PiecewiseConstantDecay:
        last, epochs = max(policy.boundaries, default=baseline), schedule.baseline_epochs
        if last <= epochs and 2 * epochs < baseline:
            warnings.warn(
                f"{name} has its last boundary at iteration {last:g}, and {about}, which has {baseline} iterations in "
                f"{epochs:g} epochs; boundaries count iterations: epoch e begins at e * schedule.baseline_iterations / "
                f"{epochs:g}",
                stacklevel=3,
            )
        return
    if type(policy) is schedules.CosineDecay:
        length = policy.decay_steps + policy.warmup_steps
    elif type(policy) is schedules.PolynomialDecay and not policy.cycle:
        length = policy.decay_steps
    else:
        return
    if abs(length - baseline) > 0.05 * baseline:
        warnings.warn(
            f"{name} decays over {length:g} iterations, and {about}, which has {baseline} iterations (and multigrid "
            f"{len(schedule.whole)} steps); write it for schedule.baseline_iterations",
            stacklevel=3,
        )
