"""Leaving a Keras model as it was, whatever a training does to it meanwhile."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

_GLOBAL_SEEDS = "global_seed_generator"


class Snapshot:
    """What a training of a built model changes, kept in main memory: `restore` puts it back, to the bit.

    These are the variables of the model, its optimizer and its metrics with their seed generators; the attributes of
    the model and its layers; on PyTorch gradients and buffers; the random states of Python, NumPy and Keras.
    """

    def __init__(self, model: Any) -> None:
        if keras.backend.backend() == "jax":
            model.jax_state_sync()
        self._model = model
        self._attributes = [(vars(part), dict(vars(part))) for part in _parts(model)]
        self._seeds = global_state.get_global_attribute(_GLOBAL_SEEDS)
        variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        if self._seeds is not None:
            variables.append(self._seeds.state)
        self._values = [(v, copied(v.value)) for v in {id(v): v for v in variables}.values()]
        self._gradients: list[tuple[Any, Any]] = []
        self._buffers: list[tuple[Any, Any]] = []
        if keras.backend.backend() == "torch":
            self._gradients = [(p, p.grad) for p in model.parameters()]
            self._buffers = [(b, b.detach().clone()) for b in model.buffers()]
        self._random = random.getstate(), np.random.get_state()  # noqa: NPY002 (the one that layers may use)

    def restore(self) -> None:
        """Put everything back."""
        for now, before in self._attributes:
            for name in now.keys() - before.keys():
                del now[name]
            now.update(before)
        # Keras builds metrics and their variables when they are first needed.
        self._model.reset_metrics()
        for variable, value in self._values:
            variable.assign(value)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        for buffer, value in self._buffers:
            buffer.data.copy_(value)
        global_state.set_global_attribute(_GLOBAL_SEEDS, self._seeds)
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])  # noqa: NPY002


def _parts(model: Any) -> list[Any]:
    """Return the model and its layers, on PyTorch also modules inside of them that are not Keras'."""
    modules = model.modules() if keras.backend.backend() == "torch" else ()
    return list({id(part): part for part in (model, *model._flatten_layers(), *modules)}.values())


def copied(value: Any) -> Any:
    """Return a copy of a variable's value in main memory."""
    # NumPy warns of PyTorch's tensors, which Keras gives it.
    on_torch = keras.backend.backend() == "torch"
    return value.detach().cpu().clone() if on_torch else np.array(ops.convert_to_numpy(ops.copy(value)))
