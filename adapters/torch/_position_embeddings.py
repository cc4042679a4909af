"""Position embeddings of a video transformer, interpolated to the shape of the step."""

from __future__ import annotations

import math
import operator
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pymultigrid import Shape, Step
from pymultigrid._patches import cut_off
from pymultigrid.torch._kinds import check_model
from pymultigrid.torch._stored_sizes import stored_sizes

# A class token and at most one more (distillation) come before the cells and are not interpolated.
_MOST_TOKENS = 2


class PositionEmbeddings:
    """Fits the position embeddings of a model that was built for the full shape to each step.

    A video transformer has one learned (or fixed) vector for every cell of T/p x H/p x W/p patches. `at` interpolates
    these tables to the step's cells while the model runs, and undoes it on exit. Parameters, `state_dict` and optimizer
    do not change, and the gradient reaches the full table.

    >>> import torch
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import PositionEmbeddings
    >>> class Patches(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.patches = torch.nn.Conv3d(3, 8, kernel_size=(2, 16, 16), stride=(2, 16, 16))
    ...         self.pos_embed = torch.nn.Parameter(torch.zeros(1, 8 * 14 * 14, 8))
    ...
    ...     def forward(self, clips):
    ...         return self.patches(clips).flatten(2).transpose(1, 2) + self.pos_embed
    >>> model = Patches()
    >>> schedule = Schedule(Shape(8, 16, 224, 224), samples=1000, epochs=10, multiple_of=16)
    >>> embeddings = PositionEmbeddings(model, schedule.shape, patch=(2, 16, 16))
    >>> embeddings
    PositionEmbeddings(pos_embed: t 8 x h 14 x w 14)
    >>> str(schedule[0].shape)
    '64x4x160x160'
    >>> with embeddings.at(schedule[0]):
    ...     model(torch.zeros(1, 3, 4, 160, 160)).shape  # 2 x 10 x 10 cells
    torch.Size([1, 200, 8])

    Tables are the tensors (parameters, buffers or plain attributes) of 1 x N x C or N x C whose own name has ``pos`` in
    it, or ``time``, ``temporal`` or ``spatial`` before ``emb``, and whose N is the number of cells: of t x h x w or
    h x w, or of t for time and temporal, after at most two tokens without a position (class, distillation), which stay.
    Pass tables with other names as `tables`. The interpolation is linear in each axis and antialiased, so that every
    vector of the full table contributes to the step and gets a gradient; in two axes it is
    ``F.interpolate(mode="bilinear", antialias=True)``.

    Sizes that a model was built for and computes with are fitted too, if they are those of the full shape: attributes
    of its modules and their ``config`` named ``image_size``, ``img_size``, ``crop_size``, ``num_frames`` or
    ``frames_per_clip`` in pixels and frames, ``grid_size``, ``grid_depth``, ``spatial_size``, ``temporal_size`` and the
    like in patches, and ``num_patches``. A model with rotary or relative positions has nothing else to fit.

    Parameters
    ----------
    model
        The model, plain or wrapped. An EMA copy needs its own, if it is run at small shapes at all.
    full
        The shape that the model was built for, ``schedule.shape``.
    patch
        Frames, rows and columns of a patch (the tubelet).
    tables
        The tables by their dotted name, with their axes: ``{"encoder.place": "hw", "encoder.when": "t"}``.

    Raises
    ------
    ValueError
        The model has neither a table nor such a size, a table in `tables` is missing or has another number of cells, or
        a step is smaller than a patch.
    TypeError
        `full` is not a Shape, `patch` does not hold whole numbers, or a step is not a Step.

    Warns
    -----
    RuntimeWarning
        A step's sizes are not whole patches, so the rest of each clip is cut off.

    Notes
    -----
    The interpolation runs in a forward hook of the module that holds the table, so that optimizers, EMA copies, DDP,
    FSDP and ``torch.compile(dynamic=False)`` see the full parameter.
    """

    def __init__(
        self, model: nn.Module, full: Shape, *, patch: tuple[int, int, int], tables: Mapping[str, str] | None = None
    ) -> None:
        if not isinstance(full, Shape):
            raise TypeError(f"full ({type(full).__name__}) must be a Shape; pass schedule.shape")
        check_model(model)
        if not isinstance(tables, (Mapping, type(None))):
            raise TypeError(f'tables ({tables!r}) must map names to axes, as in {{"encoder.pos": "thw"}}')
        self._patch = _patch(patch)
        self._cells = _per_axis(full, self._patch)
        self._tables = list(_found(model, self._cells) if tables is None else _named(model, self._cells, tables))
        self._sizes = list(stored_sizes(model, _per_axis(full), self._cells))
        if not self._tables and not self._sizes:
            raise ValueError(
                f"model ({type(model).__name__}) has no position embeddings of {_drawn('thw', self._cells)} cells, nor "
                f"of their h x w or t, and keeps no such sizes; check full ({full}) and patch {self._patch}, name the "
                "tensors in tables=, and leave this out for a model that computes positions from its input's shape"
            )
        self._inside = False
        self._told: set[tuple[int, ...]] = set()

    def __repr__(self) -> str:
        tables = [f"{table.name}: {_drawn(table.axes, self._cells)}" for table in self._tables]
        return f"PositionEmbeddings({', '.join(tables + [size.name for size in self._sizes])})"

    @contextmanager
    def at(self, step: Step) -> Iterator[None]:
        """Fit the model to ``step.shape`` inside the ``with``; call ``backward()`` inside it, as for `sub_batches`."""
        if not isinstance(step, Step):
            raise TypeError(f"step ({step!r}) must be a Step; take it from the loop: for step, batch in loader")
        if self._inside:
            raise RuntimeError("the model is fitted to a step already; leave that `with` first")
        cells = _per_axis(step.shape, self._patch)
        if min(cells.values()) < 1:
            raise ValueError(
                f"step.shape ({step.shape}) is smaller than a patch of {self._patch}; keep whole patches with "
                "multiple_of= and frames_multiple_of= of the schedule"
            )
        self._tell_of_a_cut(step.shape)
        with ExitStack() as undo:
            self._inside = True
            undo.callback(setattr, self, "_inside", False)
            for size in self._sizes:
                undo.callback(setattr, size.owner, size.attribute, getattr(size.owner, size.attribute))
                setattr(size.owner, size.attribute, size.at(_per_axis(step.shape), cells))
            if cells != self._cells:
                for table in self._tables:
                    table.fit(self._cells, cells, undo)
            yield

    def _tell_of_a_cut(self, shape: Shape) -> None:
        """Warn, once per size, of a step that is not whole patches."""
        size = tuple(shape)[1:]
        if size not in self._told:
            self._told.add(size)
            text = cut_off([shape], self._patch)
            if text:
                warnings.warn(text, RuntimeWarning, stacklevel=4)


def _patch(patch: tuple[int, int, int]) -> tuple[int, ...]:
    """Return `patch`, three sizes."""
    rule = f"patch ({patch!r}) must be three sizes: frames, rows and columns, each at least 1; write (2, 16, 16)"
    try:
        sizes = tuple(operator.index(size) for size in patch)
    except TypeError:
        raise TypeError(rule) from None
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(rule)
    return sizes


@dataclass(frozen=True)
class _Table:
    name: str
    owner: nn.Module
    axes: str

    def fit(self, full: dict[str, int], cells: dict[str, int], undo: ExitStack) -> None:
        """Replace the full table with the interpolated one whenever its module runs."""
        attribute = self.name.rpartition(".")[2]
        kept: list[Tensor] = []

        def before(module: nn.Module, _: Any) -> None:
            if module is not self.owner:
                return  # a copy that was made inside the step
            kept.append(getattr(module, attribute))
            _put(module, attribute, self._interpolated(kept[-1], full, cells))

        def after(module: nn.Module, *_: Any) -> None:
            if kept and module is self.owner:
                _put(module, attribute, kept.pop())

        undo.callback(self.owner.register_forward_pre_hook(before).remove)
        undo.callback(self.owner.register_forward_hook(after, always_call=True).remove)

    def _interpolated(self, table: Tensor, full: dict[str, int], cells: dict[str, int]) -> Tensor:
        before = [full[axis] for axis in self.axes]
        tokens = table.shape[-2] - math.prod(before)
        places = table[..., tokens:, :].reshape(*before, -1)
        with torch.autocast(table.device.type, enabled=False):
            for dim, axis in enumerate(self.axes):
                places = torch.tensordot(_weights(full[axis], cells[axis], table), places, ([1], [dim])).movedim(0, dim)
        fitted = places.reshape(*table.shape[:-2], -1, table.shape[-1])
        return torch.cat([table[..., :tokens, :], fitted], -2)


def _weights(before: int, after: int, like: Tensor) -> Tensor:
    """Return after x before weights: a triangle of one new cell each side of each new centre, cut at the border."""
    stride = before / after
    old, new = (torch.arange(n, dtype=torch.float32, device=like.device) + 0.5 for n in (before, after))
    weights = (1 - (old - stride * new[:, None]).abs() / max(stride, 1.0)).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(like.dtype)


def _per_axis(shape: Shape, patch: tuple[int, ...] = (1, 1, 1)) -> dict[str, int]:
    return {axis: size // part for axis, size, part in zip("thw", tuple(shape)[1:], patch, strict=True)}


def _drawn(axes: str, cells: dict[str, int]) -> str:
    return " x ".join(f"{axis} {cells[axis]}" for axis in axes)


def _put(module: nn.Module, attribute: str, tensor: Tensor) -> None:
    """Set a tensor without nn.Module.__setattr__, which accepts only a Parameter for a parameter."""
    kinds: tuple[dict[str, Any], ...] = (module._parameters, module._buffers, module.__dict__)
    for tensors in kinds:
        if attribute in tensors:
            tensors[attribute] = tensor


def _found(model: nn.Module, cells: dict[str, int]) -> Iterator[_Table]:
    for path, module in model.named_modules():
        for attribute, tensor in {**module.__dict__, **module._parameters, **module._buffers}.items():
            if not isinstance(tensor, Tensor):
                continue
            # An embedding's table is its weight, so the name of the embedding says what it is for.
            label = path.rpartition(".")[2] if isinstance(module, nn.Embedding) else attribute
            if re.search("(time|temporal).*emb|temporal.*pos|pos.*temporal", label):
                choices = ["t"]
            elif re.search("pos|spatial.*emb", label):
                choices = ["thw", "hw"]
            else:
                continue
            name = f"{path}.{attribute}".lstrip(".")
            yield from [_Table(name, module, axes) for axes in choices if _holds(tensor, axes, cells)][:1]


def _holds(tensor: Tensor, axes: str, cells: dict[str, int]) -> bool:
    rows = tensor.dim() == 2 or (tensor.dim() == 3 and len(tensor) == 1)
    return rows and 0 <= tensor.shape[-2] - math.prod(cells[axis] for axis in axes) <= _MOST_TOKENS


def _named(model: nn.Module, cells: dict[str, int], tables: Mapping[str, str]) -> Iterator[_Table]:
    for name, axes in tables.items():
        if axes not in ("thw", "hw", "t"):
            raise ValueError(f'tables ({{{name!r}: {axes!r}}}) must give the axes of a table: "thw", "hw" or "t"')
        path, _, attribute = name.rpartition(".")
        try:
            owner = model.get_submodule(path)
            tensor = getattr(owner, attribute)
        except AttributeError as error:
            raise ValueError(f"tables names {name}, which model ({type(model).__name__}) does not have") from error
        if not isinstance(tensor, Tensor) or not _holds(tensor, axes, cells):
            raise ValueError(
                f"tables names {name}, of shape {tuple(getattr(tensor, 'shape', ()))}, as {_drawn(axes, cells)} cells "
                f"after at most {_MOST_TOKENS} tokens; check full and patch"
            )
        yield _Table(name, owner, axes)


def fixed_positions(model: nn.Module, full: Shape) -> list[str]:
    """Return the names of a model's tables and sizes that are of the full shape's patches, for its layers' patches."""
    found: dict[str, None] = {}
    for patch in _patches_of(model):
        cells = _per_axis(full, patch)
        if min(cells.values()) and cells["h"] * cells["w"] > 1:
            tables = (*_found(model, cells), *_unnamed(model, cells))
            sizes = [size.name for size in stored_sizes(model, _per_axis(full), cells) if size.unit == "cells"]
            found |= dict.fromkeys([*(table.name for table in tables), *sizes])
    return list(found)


def _patches_of(model: nn.Module) -> set[tuple[int, ...]]:
    """Return the patches that a model may cut its clips into: strides of convolutions, and sizes named as patches."""
    patches: set[tuple[int, ...]] = set()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            patches.add((1, *module.stride)[-3:])
        for owner in (module, module.__dict__.get("config")):
            frames, size = (_numbers(getattr(owner, name, None)) for name in ("tubelet_size", "patch_size"))
            size = size * 2 if len(size) == 1 else size
            patches |= {patch for patch in (frames, size, (*(frames or (1,)), *size)) if len(patch) == 3}
    return {patch for patch in patches if min(patch) > 0 and max(patch) > 1}


def _numbers(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, (tuple, list)) else [value]
    return tuple(values) if all(isinstance(number, int) for number in values) else ()


def _unnamed(model: nn.Module, cells: dict[str, int]) -> Iterator[_Table]:
    """Yield the parameters of a model's own classes, of any name, with as many rows as the full shape has patches."""
    for path, module in model.named_modules():
        if not type(module).__module__.startswith("torch.nn."):
            for attribute, tensor in module._parameters.items():
                if tensor is not None and any(_holds(tensor, axes, cells) for axes in ("thw", "hw")):
                    yield _Table(f"{path}.{attribute}".lstrip("."), module, "thw")
