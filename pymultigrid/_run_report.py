"""What a run took, shape by shape, and what the baseline would have taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pymultigrid._core import Shape
from pymultigrid._schedule import Schedule
from pymultigrid._table import align, duration, milliseconds


@dataclass(frozen=True)
class ShapeTime:
    """What the steps of one shape took.

    Parameters
    ----------
    shape
        The mini-batch, per process.
    base
        Clips of the long-cycle stage's mini-batch, which sub-mini-batch batch norm goes by.
    steps
        How many were trained.
    seconds
        Wall-clock time of all of them, without waiting for batches.
    waiting
        Seconds of waiting for their batches.
    each
        Seconds of one step with its waiting; the first of the shape is left out where there are others.
    """

    shape: Shape
    base: int
    steps: int
    seconds: float
    waiting: float
    each: float


@dataclass(frozen=True)
class RunReport:
    """What a run took, and what the baseline would have taken; ``print(report)`` is a table. `Progress` makes it.

    Parameters
    ----------
    schedule
        The whole schedule.
    rows
        A `ShapeTime` for each shape and stage's batch that was trained, the most expensive first.
    evaluation
        Seconds inside of ``with progress.apart()``.
    """

    schedule: Schedule
    rows: tuple[ShapeTime, ...]
    evaluation: float

    @property
    def steps(self) -> int:
        """Steps that were trained."""
        return sum(row.steps for row in self.rows)

    @property
    def seconds(self) -> float:
        """Wall-clock time of the training: its steps and waiting for their batches, without evaluation."""
        return sum(row.seconds + row.waiting for row in self.rows)

    @property
    def waiting(self) -> float:
        """Seconds of waiting for batches."""
        return sum(row.waiting for row in self.rows)

    @property
    def baseline_seconds(self) -> float | None:
        """What all iterations of the baseline would take, from steps at the full shape; None before there was one."""
        full = self._full_seconds()
        return None if full is None else full * self.schedule.baseline_iterations

    def _full_seconds(self) -> float | None:
        """Return how long a step at the full shape takes, at best."""
        return min((row.each for row in self.rows if row.shape == self.schedule.shape), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, JSON-ready."""
        rows = [{**vars(row), "shape": list(row.shape)} for row in self.rows]
        numbers = {
            name: getattr(self, name) for name in ("steps", "seconds", "waiting", "evaluation", "baseline_seconds")
        }
        return {**numbers, "rows": rows}

    def __str__(self) -> str:
        if not self.rows:
            return "no step was trained yet"
        header = ("shape", "stage's batch", "steps", "each", "measured", "planned", "waiting", "in all")
        full = self._full_seconds()
        lines: list[tuple[str, ...]] = [header]
        for row in self.rows:
            planned = math.prod(tuple(row.shape)) / math.prod(tuple(self.schedule.shape))
            measured = f"{row.each / full:.2f}" if full else "?"
            share = row.waiting / (row.seconds + row.waiting) if row.seconds + row.waiting else 0.0
            lines.append(
                (
                    str(row.shape),
                    str(row.base),
                    f"{row.steps:,}",
                    milliseconds(row.each),
                    measured,
                    f"{planned:.2f}",
                    f"{share:.0%}",
                    duration(row.seconds + row.waiting),
                )
            )
        return f"{align(lines)}\n{self._summary()}"

    def _summary(self) -> str:
        whole, baseline = self.schedule.stages[-1].stop, self.baseline_seconds
        waited = self.waiting / self.seconds if self.seconds else 0.0
        text = (
            f"trained {self.steps:,} of {whole:,} steps in {duration(self.seconds)}, of which {waited:.0%} waiting for "
            f"batches; evaluation {duration(self.evaluation)} apart\n"
        )
        if baseline is None:
            return text + "what the baseline would take is known after steps at the full shape"
        text += f"the baseline's {self.schedule.baseline_iterations:,} iterations would take {duration(baseline)}"
        if self.steps >= whole and self.seconds:
            text += f": {baseline / self.seconds:.2f}x as long, {duration(baseline - self.seconds)} saved"
        return text + "\nwhether both reach the same accuracy is another question: docs/curves.md, What a run saved"
