"""A schedule as a table that a person understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymultigrid._core import Shape
    from pymultigrid.schedule import Schedule


def draw(schedule: Schedule) -> str:
    """Return the stages of the whole schedule, their share of the compute and the saving against the baseline."""
    total = sum(stage.cells for stage in schedule.stages)
    full = _cost(schedule.shape)
    header = ("stage", "iterations", "ends at epoch", "base shape", "short cycle", "lr x", "clips", "compute", "memory")
    rows = [
        (
            str(number),
            f"{stage.stop - stage.start:,}",
            f"{stage.end_epoch:.2f}",
            str(stage.base),
            " ".join(f"{s.b}x{s.h}" if s.h == s.w else f"{s.b}x{s.h}x{s.w}" for s in stage.shapes[:-1]) or "-",
            f"{stage.lr_scale:g}",
            f"{stage.last - stage.first:,}",
            f"{stage.cells / total:.1%}",
            f"{max(map(_cost, stage.shapes)) / full:.2f}",
        )
        for number, stage in enumerate(schedule.stages)
    ]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    last = schedule.stages[-1]
    across = "" if schedule.processes == 1 else f" on {schedule.processes} processes"
    lines += [
        f"baseline {schedule.shape}{across}: {schedule.baseline_iterations:,} iterations, {schedule.epochs:g} epochs "
        f"of {schedule.samples:,} videos",
        f"this schedule: {last.stop:,} iterations, {last.end_epoch:g} epochs: "
        f"{schedule.baseline_iterations / last.stop:.2f}x fewer iterations, {schedule.speedup:.2f}x less compute",
    ]
    return "\n".join(lines)


def _cost(shape: Shape) -> int:
    b, t, h, w = shape
    return b * t * h * w
