"""Batch norms that `SubBatchNorm.convert` did not convert, and which of them a warning has named."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils.weak import WeakIdKeyDictionary

_NAMED = 3  # how many layers a message names at most

_told: WeakIdKeyDictionary = WeakIdKeyDictionary()  # the layers that a warning has named, or that were left by choice


def unconverted(model: nn.Module, kind: type[nn.Module]) -> dict[str, nn.Module]:
    """Return the batch norms in `model` that are not of `kind`, by name, scripted ones too; refuse lazy ones."""
    found: dict[str, nn.Module] = {
        name or type(module).__name__: module
        for name, module in model.named_modules()
        if (isinstance(module, _BatchNorm) and not isinstance(module, kind)) or _is_scripted(module)
    }
    lazy: dict[str, nn.Module] = {name: module for name, module in found.items() if isinstance(module, LazyModuleMixin)}
    if lazy:
        raise ValueError(
            f"{listed(lazy)} can't be converted before being built: a lazy layer takes its class and size from its "
            "first input; run one forward, then call SubBatchNorm.convert(model), and make the optimizer after that"
        )
    return found


def leave_out(norms: Mapping[str, nn.Module], chosen: tuple[type, ...] = ()) -> None:
    """Warn, once per layer, of batch norms that stay as they are, except those of the `chosen` classes."""
    new = {name: module for name, module in norms.items() if module not in _told}
    for module in new.values():
        _told[module] = True
    told = {name: module for name, module in new.items() if type(module) not in chosen}
    if told:
        warnings.warn(
            f"{listed(told)} not converted: the mini-batch is normalised as a whole there, which for a coarse step is "
            "not the baseline's batch norm. SubBatchNorm.convert(model) takes torch.nn.BatchNorm1d, 2d and 3d "
            "themselves, before they are parametrized, sharded or scripted; a subclass has a forward of its own, and "
            "SyncBatchNorm other processes' clips. Build the model with torch's plain classes, an activation beside "
            "the norm and not in it",
            RuntimeWarning,
            stacklevel=3,
        )


def listed(modules: Mapping[str, nn.Module]) -> str:
    """Return the names and classes of a few layers for a message, and how many more there are."""
    names = [f"{name} ({type(module).__name__})" for name, module in list(modules.items())[:_NAMED]]
    more = len(modules) - len(names)
    return f"batch norm{'s' * (len(modules) > 1)} {', '.join(names)}{f' and {more} more' if more else ''}"


def as_torch_fuses(
    classes: Mapping[type[nn.Module], type[nn.Module]], revert: Callable[[nn.Module], nn.Module]
) -> None:
    """Make ``torch.ao.quantization.fuse_modules`` treat our classes like torch's.

    It looks up the classes of the layers in a table before it calls any of their methods. The layers end up in the
    fused one, so they can be reverted.
    """
    table = getattr(torch.ao.quantization.fuser_method_mappings, "_DEFAULT_OP_LIST_TO_FUSER_METHOD", {})

    def reverting(fuse: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        return lambda is_qat, *layers: fuse(is_qat, *(revert(layer) for layer in layers))

    for layers, fuse in list(table.items()):
        if any(layer in classes for layer in layers):
            table[tuple(classes.get(layer, layer) for layer in layers)] = reverting(fuse)


def _is_scripted(module: nn.Module) -> bool:
    """Return whether it is a batch norm in a scripted or traced model, where its class is only ScriptModule."""
    return isinstance(module, torch.jit.ScriptModule) and "BatchNorm" in getattr(module, "original_name", "")
