"""A model's train function that runs with the step's learning rate and sub-batches in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from pymultigrid import Schedule, Shape, Step
from pymultigrid.keras._batch_norm import SubBatchNormalization
from pymultigrid.keras._scaled_lr import ScaledLR

Function = Callable[..., Any]
# The key under which a train step returns the mini-batch's shapes, as the model saw them.
_SHAPES = "pymultigrid_shapes"


class TrainFunction:
    """Replaces the model's own train function in each step; there is one for each `fit`.

    While a step is trained, the optimizer's learning rate is scaled and every `SubBatchNormalization` is split; between
    steps both are the user's. The number of sub-batches is a constant in what Keras traces, so there is a Keras train
    function for each number. A call without `announce` comes from training without multigrid, and gets the model's own
    train function.
    """

    index = -1
    """The step that is trained next; -1 before the first epoch."""
    last: Step | None = None
    """The step that was trained last."""
    read = -1
    """The last step that the callback's data have read."""
    error: Exception | None = None
    """The error that ended the data, if any, because TensorFlow would replace it with its own."""

    def __init__(self, model: Any, schedule: Schedule, *, base: int) -> None:
        self.schedule = schedule
        self.norms = [layer for layer in model._flatten_layers() if isinstance(layer, SubBatchNormalization)]
        # Mixed precision wraps the optimizer that has the learning rate and counts the iterations.
        self.optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        self.model = model
        # With keras.distribution batch norm, and the train step, see the clips of all devices.
        self._sees = schedule.processes if keras.distribution.distribution() is not None else 1
        self._base = base
        self._fit = getattr(model, "history", None)  # each fit has a History of its own
        self._announced = self._ended = False
        self._functions: dict[int, Function] = {}
        self._scale(self.optimizer._learning_rate)

    @property
    def running(self) -> bool:
        """Whether the `fit` that this function was made for is running; an exception may have ended it unnoticed."""
        return not self._ended and getattr(self.model, "history", None) is self._fit

    @property
    def rest(self) -> Schedule:
        """The steps that are not trained yet."""
        return self.schedule[self.index - self.schedule[0].index :]

    def announce(self) -> None:
        """Install this as the model's train function; the next call trains the next step."""
        if not len(self.rest):
            raise RuntimeError(
                "the schedule is over but fit continues, because a callback has set stop_training to False; leave it"
            )
        self._announced = True
        self.model.train_function = self

    def end(self) -> None:
        """Discard the traces; later calls are training without multigrid."""
        self._announced, self._ended = False, True
        self._functions.clear()

    def last_rate(self) -> float:
        """Return the learning rate of the step that was trained last."""
        assert self.last is not None
        return float(ops.copy(self._scaled(self.last.index)))

    def iterations(self, state: Any = None) -> int:
        """Return the optimizer's count of steps; on JAX, in the middle of an epoch, it is in `state`."""
        return int(float(ops.copy(self.optimizer.iterations if state is None else state[2][self._counter()])))

    def __call__(self, *args: Any) -> Any:
        """Train the next step."""
        announced, self._announced = self._announced, False
        if not announced or not self.running:
            return self._plain(*args)
        on_jax = keras.backend.backend() == "jax"
        step, state = self.rest[0], args[0] if on_jax else None
        try:
            self._check_counter(step, self.iterations(state))
            logs, state, shapes = self.run(step, *args)
            self._check_data(step)
            self.check_shapes(step, shapes)
            state = self._counted(step, state)
        except BaseException:
            attach(self.model, state)
            raise
        self.index, self.last = step.index + 1, step
        return (logs, state) if on_jax else logs

    def run(self, step: Step, *args: Any) -> tuple[Any, Any, Any]:
        """Train a step; return the logs, JAX's state, and the shapes of the clips that the model saw."""
        on_jax = keras.backend.backend() == "jax"
        with self._in_place(step, args[0] if on_jax else None) as function:
            done = self._told(function, *args)
        logs, state = done if on_jax else (done, None)
        shapes = None
        if isinstance(logs, dict) and _SHAPES in logs:
            logs = dict(logs)
            shapes = np.asarray(ops.convert_to_numpy(logs.pop(_SHAPES)))
        return logs, state, shapes

    # -- in place ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _in_place(self, step: Step, state: Any) -> Iterator[Function]:
        """Scale the learning rate and split batch norm for a step; yield the function that is traced with both."""
        # Bypasses the optimizer's __setattr__, which would track the temporary value.
        attributes = vars(self.optimizer)
        if attributes["_learning_rate"] is not self._own:
            self._functions.clear()  # the user has set another one, and the traces have the previous one
            self._scale(attributes["_learning_rate"])
        splits = self.splits(step)
        try:
            attributes["_learning_rate"] = self._scaled
            for layer in self.norms:
                layer.splits = splits
            with _noting_shapes(self.model), self._alone():
                first = splits not in self._functions
                if first:
                    self._functions[splits] = self._made(state)
                yield self._watched(self._functions[splits]) if first else self._functions[splits]
        finally:
            attributes["_learning_rate"] = self._own
            for layer in self.norms:
                layer.splits = 1

    def splits(self, step: Step) -> int:
        """Return the sub-batches of a step, which are a constant of what is traced."""
        return max(1, step.base.b // self._base) * self._sees if self.norms else 1

    def _made(self, state: Any) -> Function:
        """Have Keras make a train function; on several devices it looks at the model's values for that."""
        attach(self.model, state)
        self.model.make_train_function(force=True)
        if state is not None:
            self.model._jax_state_synced = False  # the values belong to `fit` again
        function: Function = self.model.train_function
        return function

    def _scale(self, own: Any) -> None:
        """Make the scaled learning rate from the optimizer's `own`."""
        if isinstance(own, ScaledLR) and own.schedule != self.schedule.whole:
            raise ValueError(
                f"the optimizer's learning rate is scaled for another schedule, {own.schedule!r}, not for "
                f"{self.schedule.whole!r}; compile with the learning-rate schedule inside it, or with a ScaledLR of "
                "this one"
            )
        self._own = own
        self._scaled = own if isinstance(own, ScaledLR) else ScaledLR(own, self.schedule)

    def _plain(self, *args: Any) -> Any:
        """Train without multigrid, as `fit` would without this function."""
        self.end()
        model = self.model
        model.train_function = None
        model.make_train_function()
        if isinstance(self.optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            warnings.warn(
                "this training has no MultigridCallback, and reads the optimizer's learning-rate schedule at "
                f"optimizer.iterations ({self.iterations(args[0] if keras.backend.backend() == 'jax' else None)}), "
                "the multigrid steps made so far; it was written for the baseline's "
                f"{self.schedule.baseline_iterations} iterations. Compile with an optimizer for what you train now",
                stacklevel=2,
            )
        return model.train_function(*args)

    # -- checks -----------------------------------------------------------------------------------------------

    def _told(self, function: Function, *args: Any) -> Any:
        """Call a train function; if the data ended with an error, raise that error."""
        try:
            return function(*args)
        except Exception:
            if self.error is not None:
                raise self.error from None
            raise

    def _watched(self, function: Function) -> Function:
        """Return a train function for its first call, which refuses a layer that keeps an older trace."""

        def first_call(*args: Any) -> Any:
            before = [layer.traced for layer in self.norms]
            for layer in self.norms:
                layer.traced = 0
            done = function(*args)
            kept = [layer for layer, splits in zip(self.norms, before, strict=True) if splits and not layer.traced]
            if self.norms and not any(layer.traced for layer in self.norms):
                kept = self.norms
            if kept:
                raise ValueError(
                    f"{kept[0].name} keeps the sub-batches that it was traced with; take @tf.function (or jax.jit) off "
                    "the model's train_step and off the call of its layers: Keras traces the train step itself"
                )
            return done

        return first_call

    def _check_counter(self, step: Step, found: int) -> None:
        if found != step.index:
            raise ValueError(
                f"optimizer.iterations ({found}) must be {step.index}, the schedule's next step: a callback has "
                "trained, or loaded the optimizer, in between; call fit again with what it has loaded"
            )

    def _check_data(self, step: Step) -> None:
        if self.read < step.index:
            raise ValueError(
                f"step {step.index} was trained on data that were not made of this callback; pass fit "
                "batches(multigrid, read) or dataset.training(multigrid), of the MultigridCallback in its callbacks"
            )

    def check_shapes(self, step: Step, shapes: Any) -> None:
        """Refuse a mini-batch that is not the step's, by the `shapes` that `run` returned."""
        if shapes is None:
            return
        b, t, h, w = step.shape
        wanted = (b * self._sees, t, h, w)
        found = [tuple(map(float, shape)) for shape in shapes]
        if wanted not in found:
            raise ValueError(
                f"step {step.index} has a mini-batch of {Shape(*wanted)} and was trained on "
                f"{' and '.join('x'.join(f'{size:g}' for size in shape) for shape in found)}; pass fit what "
                "batches(multigrid, read) or dataset.training(multigrid) returned, in its order, and a schedule whose "
                "processes= are the devices"
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse the update of any other optimizer, whose learning rate nobody scales; on its way to Keras' own."""
        base = next(each for each in keras.optimizers.Optimizer.__mro__ if "apply" in vars(each))
        apply = vars(base)["apply"]

        def checked(optimizer: Any, *args: Any, **options: Any) -> Any:
            if optimizer is not self.optimizer:
                raise ValueError(
                    f"the model's train_step updates {optimizer.name} ({type(optimizer).__name__}) besides, or inside "
                    f"of, the optimizer of compile, {self.optimizer.name} ({type(self.optimizer).__name__}), whose "
                    "learning rate alone is scaled; train several optimizers in a loop of your own over "
                    "batches(schedule, read), with a ScaledLR in each"
                )
            return apply(optimizer, *args, **options)

        base.apply = checked
        try:
            yield
        finally:
            base.apply = apply

    def _counted(self, step: Step, state: Any) -> Any:
        """Ensure that the step is counted once; return JAX's state with the count."""
        made = self.iterations(state) - step.index
        if made == 1:
            return state
        if made == 0 and self.model.optimizer is self.optimizer and self.model.trainable_variables:
            raise ValueError(
                f"the model's train_step has not updated the optimizer of compile, {self.optimizer.name} "
                f"({type(self.optimizer).__name__}), whose learning rate is scaled, in step {step.index}; train with "
                "it, by self.optimizer.apply"
            )
        if made != 0:
            raise ValueError(
                f"the model's train_step has counted {made} updates of the optimizer in step {step.index}, and "
                "optimizer.iterations, which says what step training is at, must count one; call optimizer.apply once "
                "in a train_step"
            )
        # LossScaleOptimizer has skipped gradients that overflowed, but the clips have been read.
        if state is None:
            self.optimizer.iterations.assign(step.index + 1)
            return state
        variables, place = list(state[2]), self._counter()
        variables[place] = variables[place] + 1
        return (*state[:2], variables, *state[3:])

    def _counter(self) -> int:
        """Return the index of the optimizer's counter in the state that JAX passes from step to step."""
        places = enumerate(self.model.optimizer.variables)
        return next(place for place, variable in places if variable is self.optimizer._iterations)


def attach(model: Any, state: Any) -> None:
    """Give the model its values back, which on JAX pass from step to step outside of it, and would be lost."""
    if state is None or any(value.is_deleted() for value in keras.tree.flatten(state)):
        return
    names = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
    model._jax_state = dict(zip(names, state, strict=True))
    model._jax_state_synced = False
    model.jax_state_sync()


@contextmanager
def _noting_shapes(model: Any) -> Iterator[None]:
    """Make the model's train step record the shapes it sees; the user's own may be on the class or the object."""
    attributes = vars(model)
    own, train_step = attributes.get("train_step"), model.train_step
    # A new function each time: JAX looks up traces by it, and would find those of other splits under model.train_step.
    attributes["train_step"] = lambda *args: _noted(train_step(*args), args[-1])
    try:
        yield
    finally:
        if own is None:
            del attributes["train_step"]
        else:
            attributes["train_step"] = own


def _noted(done: Any, data: Any) -> Any:
    """Add to what a train step returns the B, T, H, W of its clips: of each array that has five axes."""
    backend = keras.backend.backend()
    logs = done[0] if backend == "jax" else done
    clips = [x for x in keras.tree.flatten(keras.utils.unpack_x_y_sample_weight(data)[0]) if len(x.shape) == 5]
    if not clips or not isinstance(logs, dict):
        return done
    axes = (0, 1, 2, 3) if keras.config.image_data_format() == "channels_last" else (0, 2, 3, 4)
    shapes: Any = [[ops.shape(x)[axis] for axis in axes] for x in clips]
    if backend == "tensorflow":  # open axes are tensors there; tf.distribute takes their mean
        shapes = ops.cast(ops.convert_to_tensor(shapes), "float32")
    else:
        shapes = np.array(shapes, "float32")
    logs = {**logs, _SHAPES: shapes}
    return (logs, *done[1:]) if backend == "jax" else logs
