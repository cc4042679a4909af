"""Sizes of the full shape that a model stores in attributes of its modules and of their `config`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

# The unit of an attribute, by its name: pixels (or frames) of the clip, or cells, which are patches.
_NAMES = (
    (re.compile(r"_?(num_frames|frames_per_clip)"), "pixels", ("t",)),
    (re.compile(r"_?(image|img|crop|input)_size"), "pixels", ("hw", "thw")),
    (re.compile(r"_?(grid_(depth|t)|temporal_(size|grid))"), "cells", ("t",)),
    (
        re.compile(r"_?(\w*grid(_size|_shape)?|spatial_size|patches_resolution|patch_embed_shape)"),
        "cells",
        ("hw", "thw"),
    ),
    (re.compile(r"_?num_patches"), "count", ("thw", "hw")),
)


@dataclass(frozen=True)
class StoredSize:
    """An attribute of `owner` that holds the full shape's size along `axes`."""

    name: str
    owner: Any
    attribute: str
    unit: str
    axes: str

    def at(self, pixels: dict[str, int], cells: dict[str, int]) -> Any:
        """Return the value that the attribute has in a model that is built for these sizes."""
        value = getattr(self.owner, self.attribute)
        sizes = [(pixels if self.unit == "pixels" else cells)[axis] for axis in self.axes]
        if self.unit == "count":
            return math.prod(sizes)
        return sizes[0] if isinstance(value, int) else type(value)(sizes)


def stored_sizes(model: nn.Module, pixels: dict[str, int], cells: dict[str, int]) -> Iterator[StoredSize]:
    """Yield the attributes with a known name that hold the full shape's sizes, each once."""
    seen = set()
    for path, module in model.named_modules():
        for prefix, owner in ((path, module), (f"{path}.config", module.__dict__.get("config"))):
            for attribute, value in list(getattr(owner, "__dict__", {}).items()):
                found = _meaning(attribute, value, pixels, cells)
                if found and (id(owner), attribute) not in seen:
                    seen.add((id(owner), attribute))
                    yield StoredSize(f"{prefix}.{attribute}".lstrip("."), owner, attribute, *found)


def _meaning(attribute: str, value: Any, pixels: dict[str, int], cells: dict[str, int]) -> tuple[str, str] | None:
    """Return the unit and axes of an attribute's value; None if it is not such a size."""
    if not isinstance(value, (int, tuple, list)) or isinstance(value, bool) or hasattr(value, "_fields"):
        return None
    for name, unit, choices in _NAMES:
        if name.fullmatch(attribute):
            for axes in choices:
                if _fits(value, unit, [(pixels if unit == "pixels" else cells)[axis] for axis in axes]):
                    return unit, axes
    return None


def _fits(value: Any, unit: str, sizes: list[int]) -> bool:
    if unit == "count":
        return bool(value == math.prod(sizes))
    if isinstance(value, int):
        return len(sizes) < 3 and set(sizes) == {value}
    return list(value) == sizes
