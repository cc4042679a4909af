"""The callback that makes `model.fit` a multigrid training."""

from __future__ import annotations

import math
import operator
from typing import Any

import keras

from pymultigrid import Schedule, Step
from pymultigrid.keras._model import check_compiled, check_norms
from pymultigrid.keras._train_function import TrainFunction


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

    While a step is trained, the optimizer's learning rate (a number, or a Keras learning-rate schedule on the
    baseline's clock, see `ScaledLR`) is scaled for it, and every `SubBatchNormalization` of the model is split into
    ``max(1, step.base.b // base)`` sub-batches. Between steps both are as you left them: other callbacks read, set,
    reduce or save your own values, in any order of the list, and everything is restored when `fit` ends, raises or is
    interrupted. After the schedule's last step `fit` ends.

    The logs get ``b``, ``t``, ``h``, ``w`` and ``lr_scale`` of the last step, and at the end of an epoch its learning
    rate ``lr``. Progress bar, History, CSVLogger and TensorBoard show them if they are listed after this callback.

    Each step is checked against what was trained: mini-batches that are not the step's or were not made with this
    callback, and more than one update of the optimizer, are refused.

    An epoch of `fit` is a fixed number of steps, because Keras supports no other; any ``epochs`` with
    ``steps_per_epoch=math.ceil(len(schedule) / epochs)`` trains the whole schedule.

    Parameters
    ----------
    schedule
        The steps of the data, the whole schedule or a slice. Training is at the step ``optimizer.iterations``.
    base
        Clips of a sub-batch, with respect to the long cycle.

    Raises
    ------
    ValueError
        When `fit` begins: ``steps_per_execution`` is not 1, the optimizer accumulates gradients, a batch norm was not
        converted, `fit` would end before the schedule, ``optimizer.iterations`` is not a step of the schedule, or the
        learning rate is scaled for another schedule. In a step: it is not the schedule's.

    Warns
    -----
    UserWarning
        When `fit` begins: a batch norm's class has no sub-batches, or its momentum is for more steps than there are.
        After it: the optimizer is trained without multigrid, with the learning-rate schedule of this training.

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
        self._training: TrainFunction | None = None
        self._of: Any = None

    @property
    def _running(self) -> TrainFunction | None:
        """The training in progress, for the data made with this callback; None outside `fit`."""
        training = self._training
        return training if training is not None and training.running and training.index >= 0 else None

    # -- what Keras calls ----------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuse a model that cannot be trained; other callbacks may still restore it."""
        if self._training is not None and self._training.running and self._of is self.params:
            self._training = None
            raise ValueError("callbacks has the same MultigridCallback twice; list it once")
        self._training, self._of = None, self.params  # a dictionary of this fit's own
        check_compiled(self.model)
        check_norms(self.model, self.schedule, base=self.base)
        self._training = TrainFunction(self.model, self.schedule, base=self.base)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Find where training is, after every callback has restored its state."""
        assert self._training is not None
        if self._training.index < 0:
            self._training.index = self._trained(self._training.iterations())
            self._check_length(len(self._training.rest), epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Put this step's train function where `fit` looks for it."""
        assert self._training is not None
        self._training.announce()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Log the step, and end training after the last."""
        assert self._training is not None
        if logs is not None and self._training.last is not None:
            logs.update(_logged(self._training.last))
        if not len(self._training.rest):
            self._training.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the epoch's last step."""
        assert self._training is not None
        if logs is not None and self._training.last is not None:
            _ = self.model  # attaches JAX's state
            logs.update(_logged(self._training.last), lr=self._training.last_rate())

    def on_train_end(self, logs: Any = None) -> None:
        """Discard the traces."""
        assert self._training is not None
        self._training.end()

    # -- checks -----------------------------------------------------------------------------------------------

    def _trained(self, index: int) -> int:
        """Return the number of the optimizer's steps, which must be a step of the schedule."""
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


def _logged(step: Step) -> dict[str, float]:
    b, t, h, w = step.shape
    return {"b": float(b), "t": float(t), "h": float(h), "w": float(w), "lr_scale": step.lr_scale}
