"""The callback that makes `model.fit` a multigrid training."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, cast

import keras
from keras.optimizers.schedules import LearningRateSchedule

from pymultigrid import Schedule, Step
from pymultigrid.keras.batch_norm import SubBatchNormalization
from pymultigrid.keras.scaled_lr import ScaledLR


class MultigridCallback(keras.callbacks.Callback):
    """Train a schedule with ``model.fit``: learning rate, sub-batches of batch norm, logs and the end of training.

    >>> import keras, numpy as np
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.keras import MultigridCallback, batches
    >>> schedule = Schedule(Shape(2, 4, 8, 8), samples=10, epochs=4)
    >>> def read(samples):
    ...     b, t, h, w = samples[0].step.shape
    ...     return np.zeros((len(samples), t, h, w, 3), "float32"), np.zeros(len(samples))
    >>> model = keras.Sequential(
    ...     [keras.Input((None, None, None, 3)), keras.layers.GlobalAveragePooling3D(), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> multigrid = MultigridCallback(schedule)
    >>> history = model.fit(batches(multigrid, read), epochs=3, steps_per_epoch=-(-len(schedule) // 3), shuffle=False,
    ...                     callbacks=[multigrid], verbose=0)
    >>> int(model.optimizer.iterations) == len(schedule), history.history["lr_scale"][-1]
    (True, 1.0)

    List it first. While `fit` runs, the optimizer's learning rate is

    - a Keras learning-rate schedule, read on the baseline's clock and scaled (`ScaledLR`), or
    - a number, scaled for the time of each step. Between steps it is unscaled, so that what other callbacks read,
      reduce (ReduceLROnPlateau) or save is your number.

    Every `SubBatchNormalization` of the model is split as the step asks: ``max(1, step.base.b // base)`` sub-batches.
    The logs get ``b``, ``t``, ``h``, ``w`` and ``lr_scale`` of the last step: progress bar, History, CSVLogger and
    TensorBoard show them. After the schedule's last step `fit` ends, and the optimizer is as it was before; so it is
    when a step raises or is interrupted.

    An epoch of `fit` is a fixed number of steps, since Keras knows no other; any ``epochs`` with
    ``steps_per_epoch=math.ceil(len(schedule) / epochs)`` trains the whole schedule.

    Parameters
    ----------
    schedule
        The steps that the data has, whole or a slice. Training is at the step ``optimizer.iterations``.
    base
        Clips of a sub-batch, with respect to the long cycle.

    Raises
    ------
    ValueError
        When `fit` begins: ``steps_per_execution`` is not 1, `fit` would end before the schedule,
        ``optimizer.iterations`` is no step of the schedule, or the learning rate is scaled for another schedule.

    Notes
    -----
    Source: Wu et al. 2020, sections 3 (linear scaling rule) and 3.1 (batch normalization).
    """

    def __init__(self, schedule: Schedule, *, base: int = 8) -> None:
        super().__init__()
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule; write Schedule(shape, ...)")
        if not len(schedule):
            raise ValueError("schedule has no steps; there is nothing left to train")
        if operator.index(base) < 1:
            raise ValueError(f"base ({base}) must be at least 1: the clips of a sub-batch")
        self.schedule = schedule
        self.base = base
        self._index: int | None = None

    @property
    def rest(self) -> Schedule:
        """The steps that are not trained yet; all of them as long as no `fit` has begun."""
        return self.schedule if self._index is None else self.schedule[self._index - self.schedule[0].index :]

    # -- what Keras calls ----------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Put the learning rate on the baseline's clock; other callbacks may still restore the model."""
        model = self.model
        if model.steps_per_execution != 1:
            raise ValueError(
                f"steps_per_execution ({model.steps_per_execution}) must be 1: Keras calls no callback between the "
                "steps of an execution; leave it out of compile"
            )
        # Mixed precision wraps the optimizer that has the learning rate and the iterations.
        self._optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        self._norms = [layer for layer in model._flatten_layers() if isinstance(layer, SubBatchNormalization)]
        self._index = None
        self._unscaled: float | None = None
        self._policy = self._scale_policy()
        self._splits = 1
        self._functions: dict[int, Callable[..., Any]] = {}
        self._split(1)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Find where training is, once every callback has restored what it restores."""
        if self._index is None:
            try:
                self._index = self._trained()
                self._check_length(len(self.rest), epoch)
            except ValueError:
                self._undo()
                raise

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set what is of this step: the splits, and the scale of a plain learning rate."""
        step = self._step
        if step is None:  # with data of unknown length Keras calls once more
            return
        sees = self.schedule.processes if keras.distribution.distribution() is not None else 1
        splits = max(1, step.base.b // self.base) * sees
        if splits != self._splits and self._norms:
            self._split(splits)
        if not self._is_policy and step.lr_scale != 1:
            optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)  # attaches JAX's state
            self._unscaled = _number(optimizer.learning_rate)
            optimizer.learning_rate = self._unscaled * step.lr_scale

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take back the scale, log the step, and end training after the last."""
        step = self._step
        assert step is not None
        assert self._index is not None
        self._unscale()
        if logs is not None:
            logs.update(_logged(step))
        self._last = step
        self._index += 1
        if self._step is None:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the epoch's last step."""
        if logs is not None:
            logs.update(_logged(self._last))

    def on_train_end(self, logs: Any = None) -> None:
        """Give the optimizer and the layers back as they were."""
        self._undo()

    # -- what it does --------------------------------------------------------------------------------------------------

    @property
    def _step(self) -> Step | None:
        """The step that is trained; None after the last."""
        rest = self.rest
        return rest[0] if len(rest) else None

    @property
    def _is_policy(self) -> bool:
        return isinstance(self._optimizer._learning_rate, LearningRateSchedule)

    def _scale_policy(self) -> LearningRateSchedule | None:
        """Scale a learning-rate schedule, and return the user's."""
        policy = self._optimizer._learning_rate
        if not isinstance(policy, LearningRateSchedule):
            return None
        if not isinstance(policy, ScaledLR):
            self._optimizer.learning_rate = ScaledLR(policy, self.schedule)
            return policy
        if policy.schedule != self.schedule.whole:
            raise ValueError(
                f"the optimizer's learning rate is scaled for another schedule, {policy.schedule!r}, not for "
                f"{self.schedule.whole!r}; compile with the learning-rate schedule inside it, or with a ScaledLR of "
                "this one"
            )
        return None

    def _trained(self) -> int:
        """Return how many steps the optimizer has made, which must be a step of the schedule."""
        index = int(_number(self.model.optimizer.iterations))
        first, last = self.schedule[0].index, self.schedule[-1].index
        if index > last:
            raise ValueError(
                f"optimizer.iterations ({index}) is past the schedule's last step ({last}): its training is over; for "
                "another one build the optimizer anew and compile"
            )
        if index < first:
            raise ValueError(
                f"optimizer.iterations ({index}) is before the schedule's first step ({first}); pass the whole "
                f"schedule, or restore the optimizer (optimizer.iterations.assign({first}) where only weights were "
                "kept)"
            )
        return index

    def _check_length(self, steps: int, epoch: int) -> None:
        epochs, per_epoch = self.params["epochs"] - epoch, self.params["steps"]
        enough = f"pass steps_per_epoch=math.ceil({len(self.schedule)} / epochs)"
        if per_epoch is None and epochs > 1:
            raise ValueError(f"steps_per_epoch is missing: the first of {epochs} epochs would take all steps; {enough}")
        if per_epoch is not None and epochs * per_epoch < steps:
            raise ValueError(
                f"fit would end after {epochs} epochs x {per_epoch} steps, before the {steps} steps of the schedule; "
                f"{enough} = {math.ceil(len(self.schedule) / self.params['epochs'])}, or a slice of the schedule"
            )

    def _split(self, splits: int) -> None:
        """Set the splits, a constant of what Keras traces: a train function of its own for each number."""
        model = self.model
        for layer in self._norms:
            layer.splits = splits
        if splits not in self._functions:
            self._functions[splits] = self._undoing(_new_train_function(model))
        model.train_function = self._functions[splits]
        self._splits = splits

    def _undoing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a train function that leaves nothing scaled behind when it fails or is interrupted."""

        def train(*args: Any) -> Any:
            try:
                return function(*args)
            except StopIteration:  # the end of the data
                raise
            except BaseException:
                self._undo()
                raise

        return train

    def _unscale(self) -> None:
        if self._unscaled is not None:
            _ = self.model  # attaches JAX's state
            self._optimizer.learning_rate = self._unscaled
            self._unscaled = None

    def _undo(self) -> None:
        self._unscale()
        if self._policy is not None:
            self._optimizer.learning_rate = self._policy
            self._policy = None
        for layer in self._norms:
            layer.splits = 1
        self.model.train_function = None  # what is traced has this schedule's learning rate and splits in it


def _new_train_function(model: Any) -> Callable[..., Any]:
    """Return a train function that shares no trace with those before it."""
    train_step = model.train_step
    # JAX looks traces up by the function and its arguments: model.train_step would bring back those of other splits.
    model.train_step = lambda *args: train_step(*args)
    try:
        model.make_train_function(force=True)
    finally:
        del model.train_step
    return cast(Callable[..., Any], model.train_function)


def _number(variable: Any) -> float:
    # Under tf.distribute there is a variable on each device, which float() does not take.
    return float(keras.ops.copy(variable))


def _logged(step: Step) -> dict[str, float]:
    b, t, h, w = step.shape
    return {"b": float(b), "t": float(t), "h": float(h), "w": float(w), "lr_scale": step.lr_scale}
