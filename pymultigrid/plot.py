"""Drawings of a schedule, as in the paper's Figure 2, and of the measured costs of its shapes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymultigrid._core import Shape, Stage, Step
from pymultigrid._report import Report
from pymultigrid._schedule import Schedule

try:
    import matplotlib
    from matplotlib.colors import LogNorm, to_rgb
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("pymultigrid.plot needs Matplotlib, which is missing; pip install pymultigrid[plot]") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS_PER_INCH = 72
_LR_SAMPLES = 2000
_DARKEST = 16  # the paper's smallest clip has 1/16 of the baseline's cells; one scale makes schedules comparable


def draw_schedule(
    schedule: Schedule, path: str | os.PathLike[str] | None = None, *, lr: Callable[[Step], float] | None = None
) -> Figure:
    """Draw a schedule's mini-batch shapes and learning rate over training, and save the picture to `path` if given.

    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.plot import draw_schedule
    >>> schedule = Schedule(Shape(8, 32, 224, 224), samples=1000, epochs=90, lr_drops=(30, 60))
    >>> draw_schedule(schedule).axes[0].get_ylabel()
    'clips in a mini-batch'

    Parameters
    ----------
    schedule
        The schedule; for a slice, too, the whole schedule is drawn.
    path
        Where to save the picture; the suffix (png, svg, pdf) chooses the format.
    lr
        The learning rate of a step, for the lower panel. None: ``step.lr_scale``, times 0.1 for each LR drop passed.

    Raises
    ------
    ValueError
        Matplotlib does not write files of that suffix.

    Notes
    -----
    Source: Wu et al. 2020, Figure 2. An iteration costs about the same at every shape, so the horizontal axis is also
    compute. Stacked colours are a short cycle: its iterations alternate between these heights.
    """
    figure = Figure(figsize=(8, 4.2), dpi=150, layout="constrained")
    shapes, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    draw_shapes(shapes, schedule)
    draw_lr(rate, schedule, lr)
    shapes.set_title(
        f"{schedule.stages[-1].stop:,} iterations (baseline {schedule.baseline_iterations:,}), "
        f"{schedule.speedup:.2f}x less compute than the baseline",
        fontsize=10,
    )
    rate.set_xlabel("iteration")
    rate.xaxis.set_major_formatter(lambda iteration, _: f"{iteration:,.0f}")
    if path is not None:
        _save(figure, path)
    return figure


def draw_shapes(axes: Axes, schedule: Schedule, *, end: int | None = None) -> None:
    """Draw a schedule's mini-batches on `axes`: height is the batch, colour and label the clip, width the iterations.

    `end` is the iteration that the horizontal axis ends at; None: the schedule's last. Labels are left out where a
    stage is too narrow for them.
    """
    stages = [stage for stage in schedule.stages if stage.start < stage.stop]
    full = _cells(schedule.shape)
    shade = LogNorm(full / _DARKEST, full, clip=True)
    floor = min(shape.b for stage in stages for shape in stage.shapes) / 2
    top = max(shape.b for stage in stages for shape in stage.shapes)
    axes.set_xlim(0, stages[-1].stop if end is None else end)
    axes.set_yscale("log", base=2)
    axes.set_ylim(floor, top * 1.25)
    for stage in stages:
        _draw_stage(axes, stage, floor, shade)
    axes.yaxis.set_major_formatter(lambda batch, _: f"{batch:g}")
    axes.set_ylabel("clips in a mini-batch")
    axes.spines[["top", "right"]].set_visible(False)


def draw_lr(axes: Axes, schedule: Schedule, lr: Callable[[Step], float] | None = None, **line: Any) -> None:
    """Draw the learning rate of a schedule's steps on `axes`; `lr` as in `draw_schedule`, `line` as `Axes.plot`."""
    start, stop = schedule.stages[0].start, schedule.stages[-1].stop
    rate = _stepwise if lr is None else lr
    every = max(1, (stop - start) // _LR_SAMPLES)
    whole = schedule.whole
    steps = [whole[i] for i in sorted({*range(start, stop, every), *_edges(schedule)})]
    style = {"color": "black", "linewidth": 1.2, "drawstyle": "steps-post", **line}
    axes.plot([s.index for s in steps], [rate(s) for s in steps], **style)
    if lr is None and schedule.stages[-1].lr_stage > 0:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate" if lr else "learning rate,\nrelative")
    axes.spines[["top", "right"]].set_visible(False)


def draw_report(report: Report, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw the measured cost of each shape and each stage, and save the picture to `path` if given.

    >>> from pymultigrid import Report, Schedule, Shape, ShapeCost
    >>> from pymultigrid.plot import draw_report
    >>> schedule = Schedule(Shape(8, 16, 64, 64), samples=1000, epochs=10)
    >>> rows = [ShapeCost(shape, 1, seconds=0.5, bytes=1e9, fits=shape.b) for shape in schedule.shapes]
    >>> draw_report(Report(schedule, "some GPU", 10**8, tuple(rows))).axes[0].get_xlabel()
    'relative to the full mini-batch'

    Parameters
    ----------
    report
        What `pymultigrid.torch.preflight` or `pymultigrid.keras.preflight` returned.
    path
        Where to save the picture; the suffix (png, svg, pdf) chooses the format.

    Raises
    ------
    ValueError
        Matplotlib does not write files of that suffix.
    """
    stages = [i for i, stage in enumerate(report.schedule.stages) if stage.start < stage.stop]
    height = max(len(report.rows), len(stages))
    figure = Figure(figsize=(9, 1.4 + 0.3 * height), dpi=150, layout="constrained")
    shapes, savings = figure.subplots(1, 2)
    full = report[report.schedule.shape]
    bars = {
        "sampling points": [math.prod(row.shape) / math.prod(full.shape) for row in report.rows],
        "time": [row.seconds / full.seconds for row in report.rows],
    }
    if full.bytes is not None:
        bars["memory"] = [(math.nan if row.bytes is None else row.bytes) / full.bytes for row in report.rows]
    _draw_bars(shapes, [str(row.shape) for row in report.rows], bars)
    shapes.axvline(1, color="black", linewidth=0.8)
    shapes.set_xlabel("relative to the full mini-batch")
    bars = {
        "sampling points": [report.stage_savings[i][0] for i in stages],
        "time": [report.stage_savings[i][1] for i in stages],
    }
    _draw_bars(savings, [f"stage {i}" for i in stages], bars)
    savings.set_xlabel("times cheaper than the baseline's clips")
    figure.suptitle(
        f"{report.speedup:.2f}x faster than the baseline on {report.device}, by sampling points "
        f"{report.schedule.speedup:.2f}x",
        fontsize=10,
    )
    if path is not None:
        _save(figure, path)
    return figure


def _draw_bars(axes: Axes, names: list[str], bars: dict[str, list[float]]) -> None:
    """Draw a group of horizontal bars for each name, from the top down."""
    thick = 0.8 / len(bars)
    for i, (label, lengths) in enumerate(bars.items()):
        colour = matplotlib.colormaps["cividis"](0.15 + 0.35 * i)
        axes.barh([n + (i + 0.5) * thick - 0.4 for n in range(len(names))], lengths, thick, label=label, color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False, ncols=len(bars), loc="lower left", bbox_to_anchor=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)


def _draw_stage(axes: Axes, stage: Stage, floor: float, shade: LogNorm) -> None:
    """Draw one stage, the shapes of its short cycle stacked by batch."""
    bottom = floor
    for batch in sorted({shape.b for shape in stage.shapes}):
        alike = sorted({shape for shape in stage.shapes if shape.b == batch}, key=_cells)
        colour = matplotlib.colormaps["cividis"](shade(_cells(alike[-1])))
        axes.fill_between([stage.start, stage.stop], bottom, batch, facecolor=colour, edgecolor="white", linewidth=0.6)
        _label(axes, stage, (bottom, batch), alike, "black" if _bright(colour) else "white")
        bottom = batch


def _label(axes: Axes, stage: Stage, rise: tuple[float, float], shapes: list[Shape], colour: str) -> None:
    """Write the clips' T x H x W into their block, upright or lying, if there is room."""
    text = " ".join(f"{s.t}x{s.h}²" if s.h == s.w else f"{s.t}x{s.h}x{s.w}" for s in shapes)
    (left, low), (right, high) = axes.transData.transform([(stage.start, rise[0]), (stage.stop, rise[1])])
    scale = _POINTS_PER_INCH / axes.figure.dpi
    width, height = (right - left) * scale, (high - low) * scale
    size = 6.5
    long, thick = 0.6 * size * len(text), 1.15 * size
    if long < width and thick < height:
        rotation = 0
    elif long < height and thick < width:
        rotation = 90
    else:
        return
    middle = (stage.start + stage.stop) / 2, math.sqrt(rise[0] * rise[1])
    axes.text(*middle, text, rotation=rotation, color=colour, fontsize=size, ha="center", va="center")


def _edges(schedule: Schedule) -> set[int]:
    """Return the first and last step of each stage, so that no jump is missed."""
    edges: set[int] = set()
    for stage in schedule.stages:
        if stage.start < stage.stop:
            edges |= {stage.start, stage.stop - 1}
    return edges


def _stepwise(step: Step) -> float:
    return float(step.lr_scale * 0.1**step.lr_stage)


def _cells(shape: Shape) -> int:
    return shape.t * shape.h * shape.w


def _bright(colour: Any) -> bool:
    r, g, b = to_rgb(colour)
    return 0.3 * r + 0.59 * g + 0.11 * b > 0.5


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    kinds = figure.canvas.get_supported_filetypes()
    suffix = Path(path).suffix.lstrip(".").lower()
    if suffix not in kinds:
        raise ValueError(f"path ({os.fspath(path)}) must end in one of {', '.join(sorted(kinds))}; pass 'schedule.png'")
    figure.savefig(path)
