"""What the adapters' preflights share: the shapes to measure, and the smallest feature maps."""

from __future__ import annotations

import math

from pymultigrid._core import Shape, Step, uses
from pymultigrid._plans import Cycles
from pymultigrid._schedule import Schedule

Extents = tuple[int, ...]


def planned_steps(schedule: Schedule) -> dict[Shape, list[Step]]:
    """Return every planned shape, the most expensive first, with a step of each base that it is run under."""
    found: dict[Shape, dict[Shape, Step]] = {shape: {} for stage in schedule.stages for shape in stage.shapes}
    for stage in schedule.stages:
        for shape, first, count in uses(stage):
            if count:
                found[shape].setdefault(stage.base, schedule[first])
    order = sorted(found, key=lambda shape: (math.prod(shape), *shape), reverse=True)
    # A stage too short for its short cycle leaves shapes that no step has.
    return {shape: list(found[shape].values()) or [_alone(shape)] for shape in order}


def _alone(shape: Shape) -> Step:
    return Schedule(shape, iterations=1, plan=Cycles(long=None, short=None))[0]


def iterations(schedule: Schedule, shape: Shape) -> int:
    """Return how many steps of the schedule have this shape."""
    return sum(k for stage in schedule.stages for each, _, k in uses(stage) if each == shape)


def feature_maps(found: dict[Shape, dict[str, tuple[Extents, Extents]]]) -> dict[Shape, Extents | None]:
    """Return the fewest frames and the smallest height and width of each shape's feature maps.

    `found` has the extents that each layer was given and gave. Layers that are given the same extents at every shape
    come after pooling to a fixed size; they are left out. Where there is one shape alone, those are left out that give
    back what they got.
    """
    layers = next(iter(found.values()))
    kept = [
        layer
        for layer, (given, made) in layers.items()
        if len({maps[layer] for maps in found.values()}) > 1 or (len(found) == 1 and given != made)
    ]
    return {shape: _smallest([maps[layer][1] for layer in kept]) for shape, maps in found.items()}


def _smallest(extents: list[Extents]) -> Extents | None:
    if not extents:
        return None
    frames = [each[0] for each in extents if len(each) == 3]
    return (*([min(frames)] if frames else []), *min((each[-2:] for each in extents), key=math.prod))
