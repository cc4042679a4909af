"""Stages and measurements as text tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pymultigrid._core import Shape, Stage

_HEADER = (
    "stage",
    "iterations",
    "ends at epoch",
    "base shape",
    "short (b x size)",
    "lr x",
    "clips",
    "compute",
    "memory",
)


def stage_table(stages: Sequence[Stage], full: Shape) -> str:
    """Format stages as a text table.

    `compute` is a stage's share of the run, `memory` its most expensive step relative to the baseline's.
    """
    total = sum(stage.cells for stage in stages)
    rows = [
        (
            str(number),
            f"{stage.stop - stage.start:,}",
            f"{stage.end_epoch:.2f}",
            str(stage.base),
            " ".join(f"{s.b}x{s.h}" if s.h == s.w else f"{s.b}x{s.h}x{s.w}" for s in stage.shapes[:-1]) or "-",
            f"{stage.lr_scale:g}",
            f"{stage.clips:,}",
            f"{stage.cells / total:.1%}",
            f"{max(map(math.prod, stage.shapes)) / math.prod(full):.2f}",
        )
        for number, stage in enumerate(stages)
    ]
    return align([_HEADER, *rows])


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return one line per row, with the columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def milliseconds(seconds: float) -> str:
    """Return the time of a step."""
    return f"{seconds * 1e3:,.1f} ms"


def duration(seconds: float) -> str:
    """Return the time of a run, in the unit that suits it."""
    if not math.isfinite(seconds):
        return "unknown"
    if abs(seconds) < 60:
        return f"{seconds:.1f} s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if abs(minutes) < 60:
        return f"{minutes:.1f} min"
    return f"{hours:.1f} h" if abs(hours) < 48 else f"{days:.1f} days"
