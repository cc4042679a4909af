"""The results: a table on the screen and as CSV, two plain sentences, and one picture."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from training import BASE_LR, Outcome

from pymultigrid.plot import draw_lr, draw_shapes

# Okabe and Ito's colours, told apart by colour-blind readers, and markers for those who print in grey.
LOOKS = {
    "baseline": ("#000000", "o"),
    "short": ("#E69F00", "v"),
    "long": ("#0072B2", "s"),
    "long+short": ("#D55E00", "D"),
}
LR_COLOUR = "#D55E00"

COLUMNS: dict[str, Callable[[Outcome, Outcome], str]] = {
    "schedule": lambda o, _: o.kind,
    "epochs": lambda o, _: f"{o.epochs:.2f}",
    "clips": lambda o, _: str(o.schedule.clips),
    "base_lr": lambda o, _: f"{BASE_LR[o.kind]:g}",
    "iterations": lambda o, _: str(len(o.schedule)),
    "compute": lambda o, full: f"{compute(o) / compute(full):.3f}",
    "accuracy": lambda o, _: f"{o.accuracy:.3f}",
    "std_error": lambda o, _: f"{o.standard_error:.3f}",
    "digit": lambda o, _: f"{o.digit_accuracy:.3f}",
    "motion": lambda o, _: f"{o.motion_accuracy:.3f}",
    "s_data": lambda o, _: f"{o.seconds_data:.1f}",
    "s_model": lambda o, _: f"{o.seconds_model:.1f}",
    "s_total": lambda o, _: f"{o.seconds:.1f}",
    "s_per_epoch": lambda o, _: f"{o.seconds / o.epochs:.2f}",
}


def compute(outcome: Outcome) -> float:
    """Return the sampling points (clips x T x H x W) that a run trained on."""
    return float(sum(stage.cells for stage in outcome.schedule.stages))


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Return the table, header first; compute is relative to the longest baseline."""
    full = longest(outcomes, "baseline")
    return [list(COLUMNS), *([cell(o, full) for cell in COLUMNS.values()] for o in outcomes)]


def longest(outcomes: Sequence[Outcome], kind: str) -> Outcome:
    return max((o for o in outcomes if o.kind == kind), key=compute)


def write_table(outcomes: Sequence[Outcome], path: Path) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows(outcomes))


def as_text(outcomes: Sequence[Outcome]) -> str:
    table = rows(outcomes)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in table)


def seconds_of_baseline(outcomes: Sequence[Outcome], accuracy: float) -> float | None:
    """Return how long the baseline trains to an accuracy, between its measured runs; None outside their range."""
    points = sorted((o.accuracy, o.seconds) for o in outcomes if o.kind == "baseline")
    reached, seconds = zip(*points, strict=True)
    if not reached[0] <= accuracy <= reached[-1]:
        return None
    return float(np.interp(accuracy, reached, seconds))


def summary(outcomes: Sequence[Outcome]) -> str:
    """Say what was measured, in two sentences."""
    base = longest(outcomes, "baseline")
    length = base.schedule.baseline_epochs
    multigrid = next(o for o in outcomes if o.kind == "long+short" and o.schedule.baseline_epochs == length)
    per_epoch = base.seconds / base.epochs / (multigrid.seconds / multigrid.epochs)
    in_compute = compute(base) / base.epochs / (compute(multigrid) / multigrid.epochs)
    waits, base_waits = (o.seconds_data / o.seconds for o in (multigrid, base))
    own = [o.seconds / o.epochs for o in outcomes if o.kind == "baseline"]
    first = (
        f"An epoch took {per_epoch:.1f}x less time with long+short than with the baseline ({in_compute:.1f}x less "
        f"compute); waiting for clips was {waits:.0%} of that time, of the baseline's {base_waits:.0%}. The baseline's "
        f"own epochs took {min(own):.1f} to {max(own):.1f} s: what other work on the machine does to such figures."
    )
    return f"{first}\n{equal_accuracy(outcomes)}"


def equal_accuracy(outcomes: Sequence[Outcome]) -> str:
    """Say how each multigrid run compares with the baseline trained to the same accuracy."""
    ratios = []
    for outcome in outcomes:
        needed = seconds_of_baseline(outcomes, outcome.accuracy)
        if outcome.kind != "baseline" and needed is not None:
            ratios.append((needed / outcome.seconds, outcome))
    if not ratios:
        return "No multigrid run ended between the accuracies of the baselines: the time to equal accuracy is open."
    (worst, slow), (best, fast) = min(ratios, key=lambda r: r[0]), max(ratios, key=lambda r: r[0])
    tried = sum(o.kind != "baseline" for o in outcomes)
    return (
        f"At equal accuracy multigrid was {worst:.1f}x ({slow.kind}, {slow.accuracy:.1%}) to {best:.1f}x ({fast.kind}, "
        f"{fast.accuracy:.1%}) as fast as the baseline, over the {len(ratios)} of {tried} multigrid runs that ended "
        f"between baselines; one seed, and +-{max(o.standard_error for o in outcomes):.1%} on each accuracy from "
        f"{outcomes[0].test_videos} test videos."
    )


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw mini-batch shapes and learning rate, accuracy against time, and the cost of an epoch."""
    figure = Figure(figsize=(8, 8.6), dpi=200, layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=(1.45, 1))
    top, bottom = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    full = longest(outcomes, "baseline").schedule.baseline_epochs
    alike = [o for o in outcomes if o.schedule.baseline_epochs == full]  # one of each kind
    draw_schedules(top.subplots(len(alike), 1, sharex=True), alike)
    top.suptitle("(a) Mini-batches (frames x size², darker is coarser) and learning rate over training", fontsize=10)
    accuracy, cost = bottom.subplots(1, 2, width_ratios=(1.5, 1))
    draw_accuracy(accuracy, outcomes)
    draw_cost(cost, alike)
    figure.savefig(path)


def draw_schedules(panels: Sequence[Axes], outcomes: Sequence[Outcome]) -> None:
    """Draw a strip for each schedule, all on the same scale of iterations."""
    end = max(len(o.schedule) for o in outcomes)
    for axes, outcome in zip(panels, outcomes, strict=True):
        draw_shapes(axes, outcome.schedule, end=end)
        for label in list(axes.texts):
            if label.get_rotation():  # the line of the learning rate would cross it
                label.remove()
        axes.set_ylabel(outcome.kind, fontsize=9)
        rate = axes.twinx()
        outline = [withStroke(linewidth=2.4, foreground="white")]
        draw_lr(rate, outcome.schedule, outcome.lr, color=LR_COLOUR, linewidth=1.3, path_effects=outline)
        rate.set_ylabel("learning rate", color=LR_COLOUR, fontsize=8)
        rate.tick_params(axis="y", colors=LR_COLOUR, labelsize=8)
        rate.set_xlim(0, end)
        axes.tick_params(labelsize=8)
    panels[-1].set_xlabel("iteration (all cost about the same); height: clips in a mini-batch", fontsize=9)


def draw_accuracy(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Draw accuracy against training time, a line for each kind of schedule over its budgets."""
    for kind, (colour, marker) in LOOKS.items():
        runs = sorted((o for o in outcomes if o.kind == kind), key=lambda o: o.seconds)
        axes.errorbar(
            [o.seconds for o in runs],
            [100 * o.accuracy for o in runs],
            [100 * o.standard_error for o in runs],
            label=kind,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.3,
            elinewidth=0.8,
            capsize=2,
        )
    axes.set_title("(b) Accuracy against training time, as measured", fontsize=10)
    axes.set_xlabel("training time (s)", fontsize=9)
    axes.set_ylabel("held-out videos, digit and motion right (%)", fontsize=8)
    axes.set_xlim(left=0)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw_cost(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Draw the seconds of an epoch, in the model and waiting for clips."""
    kinds = [o.kind for o in outcomes]
    model = np.array([o.seconds_model / o.epochs for o in outcomes])
    data = np.array([o.seconds_data / o.epochs for o in outcomes])
    axes.bar(kinds, model, color="#0072B2", label="model", width=0.65)
    axes.bar(kinds, data, bottom=model, color="#F0E442", edgecolor="#0072B2", linewidth=0.6, label="data", width=0.65)
    for place, total in enumerate(model + data):
        axes.text(place, total, f" {total:.1f}\n{(model + data)[0] / total:.1f}x", ha="center", va="bottom", fontsize=8)
    axes.set_ylim(0, 1.25 * (model + data).max())
    axes.set_title("(c) Time for one epoch", fontsize=10)
    axes.set_ylabel("seconds; ratio to the baseline", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
