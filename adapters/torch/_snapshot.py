"""Saves everything of a model that forward and backward passes may change, and restores it bit for bit."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils._pytree import tree_leaves

# These include a module's own containers of parameters, buffers, modules and hooks.
_CONTAINERS = (dict, list, set, deque)


@contextmanager
def as_it_was(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Train inside, starting with gradients of zero, and restore everything afterwards.

    That is parameters, gradients, buffers and other tensors of the modules, their attributes, hooks and generators, and
    the random state of torch, NumPy and Python. Values are kept in main memory, so that they do not count in a GPU's
    memory. Hooks that run after a parameter has its gradient are disabled inside, because they step an optimizer.
    """
    _refuse(model)
    parameters = list(model.parameters())
    back: list[Callable[[], object]] = [
        *(_attributes(module) for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)),
        *_values(model),
        *(partial(_put_back, parameter, parameter.grad, parameter.requires_grad) for parameter in parameters),
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),  # noqa: NPY002, the global one
    ]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), _without_hooks(parameters):
            if not model.training:
                model.train()
            for parameter in parameters:
                # A loop holds them between steps, so they belong to its peak.
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
            yield
    finally:
        for put_back in back:
            put_back()


def _refuse(model: nn.Module) -> None:
    """Refuse a model that can't be saved or restored."""
    for name, module in model.named_modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            raise ValueError(
                f"model ({type(model).__name__}) is not built yet, layer {name or 'model'} ({type(module).__name__}): "
                "a lazy layer takes its size from its first input; run one forward at the full shape, then preflight"
            )
    for name, parameter in model.named_parameters():
        if getattr(parameter, "_in_backward_optimizers", None):
            raise ValueError(
                f"parameter {name} has an optimizer that steps inside backward(), from "
                "_apply_optimizer_in_backward: preflight would train it; call preflight before that"
            )


def _attributes(module: nn.Module) -> Callable[[], None]:
    """Return a function that restores the attributes of a module and the contents of its containers."""
    attributes = dict(vars(module))
    held = [(value, copy.copy(value)) for value in attributes.values() if isinstance(value, _CONTAINERS)]

    def put_back() -> None:
        vars(module).clear()
        vars(module).update(attributes)
        for container, values in held:
            container.clear()
            if isinstance(container, (list, deque)):
                container.extend(values)
            else:
                container.update(values)

    return put_back


def _values(model: nn.Module) -> Iterator[Callable[[], object]]:
    """Yield functions that restore the values of each tensor and the state of each generator in the modules."""
    seen = set()
    for module in model.modules():
        for value in (*module.parameters(False), *module.buffers(False), *tree_leaves(dict(vars(module)))):
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, Tensor):
                local = (
                    value.to_local() if hasattr(value, "to_local") else value
                )  # this process's part of a sharded one
                yield partial(local.data.copy_, local.detach().to("cpu", copy=True))
            elif isinstance(value, torch.Generator):
                yield partial(value.set_state, value.get_state())
            elif isinstance(value, np.random.Generator):
                yield partial(setattr, value.bit_generator, "state", copy.deepcopy(value.bit_generator.state))
            elif isinstance(value, random.Random):
                yield partial(value.setstate, value.getstate())


def _put_back(parameter: nn.Parameter, grad: Tensor | None, requires_grad: bool) -> None:
    parameter.requires_grad_(requires_grad)
    parameter.grad = grad


@contextmanager
def _without_hooks(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Remove the hooks that run after a parameter has its gradient, from the dict that torch iterates over."""
    hooks = [(own, dict(own)) for own in (p._post_accumulate_grad_hooks for p in parameters) if own]
    for own, _ in hooks:
        own.clear()
    try:
        yield
    finally:
        for own, before in hooks:
            own.update(before)
