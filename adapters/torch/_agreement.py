"""Whether a batch has the shape of its step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils._pytree import tree_leaves

from pymultigrid import Step


def disagreement(batch: Any, step: Step) -> str | None:
    """Return how the clips of `batch` differ from ``step.shape``; None if they agree or no clips are found.

    All tensors of four axes and more in tuples, lists and dicts count as clips. One that has the step's number of clips
    first and its frames, height and width after that is enough, because pathways with fewer frames, masks and the like
    may accompany it. If there are none (features, token ids), nothing is compared.
    """
    shapes = list(_shapes(batch))
    if not shapes or any(_fits(shape, step) for shape in shapes):
        return None
    b, t, h, w = step.shape
    found = ", ".join("x".join(map(str, shape)) for shape in shapes)
    return (
        f"step {step.index} trains on {step.shape} (clips x frames x height x width), and the batch has {found}: "
        f"no tensor has {b} clips of {t} frames of {h} x {w}"
    )


def _shapes(batch: Any) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of tensors and arrays with four axes and more, and of clips that are not yet resampled."""
    for leaf in tree_leaves(batch):
        shape = getattr(leaf, "shape", None)
        if isinstance(shape, tuple) and len(shape) >= 4:
            yield tuple(shape)


def _fits(shape: tuple[int, ...], step: Step) -> bool:
    b, t, h, w = step.shape
    rest = shape[1:]
    side_by_side = any(rest[i : i + 2] == (h, w) for i in range(len(rest) - 1))
    if len(shape) == 4:  # B x T x H x W without channels, or the frames of all clips one after the other
        return side_by_side and (shape[0] == b * t or (shape[0] == b and t in (1, rest[0], rest[-1])))
    return side_by_side and shape[0] == b and t in rest
