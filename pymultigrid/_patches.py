"""Sizes that are not whole patches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pymultigrid._core import Shape

_NAMED = 3  # how many shapes a message names at most


def cut_off(shapes: Iterable[Shape], patch: Sequence[int], option: str = "{}={}") -> str | None:
    """Return a warning about shapes that are not whole patches (frames, rows, columns), or None if all are.

    `option` is the format in which the caller writes an option, of its name and value.
    """
    frames, rows, columns = patch
    cut = [shape for shape in shapes if shape.t % frames or shape.h % rows or shape.w % columns]
    if not cut:
        return None
    options = []
    if any(shape.h % rows or shape.w % columns for shape in cut):
        options.append(option.format("multiple_of", math.lcm(rows, columns)))
    if any(shape.t % frames for shape in cut):
        options.append(option.format("frames_multiple_of", frames))
    more = f" and {len(cut) - _NAMED} more" if len(cut) > _NAMED else ""
    return (
        f"not whole patches of {'x'.join(map(str, patch))}: {', '.join(map(str, cut[:_NAMED]))}{more}. The rest of "
        f"each clip is cut off, always at its end, its right and its lower side; plan with {' and '.join(options)}"
    )
