"""The measured costs of a schedule's shapes, and the run that they predict."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pymultigrid._core import Shape, uses
from pymultigrid._patches import cut_off
from pymultigrid._schedule import Schedule
from pymultigrid._table import align, duration, milliseconds

_CELLS = 3.5  # cells along a side of the last feature map, below which accuracy was seen to suffer
_SHARE = 1.2  # a shape that costs more than this many times its share is reported


@dataclass(frozen=True)
class ShapeCost:
    """The measured cost of one mini-batch of `shape`.

    Parameters
    ----------
    shape
        The mini-batch, per process.
    iterations
        How many steps of the schedule have this shape.
    seconds
        Time of its forward and backward pass, or of what `Report.timed` says; the slowest process's.
    bytes
        Memory that its clips, forward and backward pass take at their peak, above `Report.resident`; None: it was not
        measured.
    fits
        How many of its clips fit into memory, found by halving. If that is fewer than all, `seconds` and `bytes` are
        scaled up from that number; if it is 0, they are NaN.
    feature_map
        The smallest (t, h, w) or (h, w) of a convolution's output before global pooling; None: there is no convolution.
    read_seconds
        Time in which one process, or thread, reads the mini-batch from the data set; None: no data set was given.
    first_seconds
        Time of the first one, in which a framework may trace and compile; None: it was not measured.
    """

    shape: Shape
    iterations: int
    seconds: float
    bytes: float | None
    fits: int
    feature_map: tuple[int, ...] | None = None
    read_seconds: float | None = None
    first_seconds: float | None = None

    def share(self, full: ShapeCost) -> float:
        """Return how expensive the mini-batch is relative to `full`: by its time, or its memory if that is more."""
        seconds = self.seconds / full.seconds
        return seconds if self.bytes is None or full.bytes is None else max(seconds, self.bytes / full.bytes)


@dataclass(frozen=True)
class Report:
    """The costs of a schedule's shapes, and the run they predict; ``print(report)`` is a table.

    `pymultigrid.torch.preflight` and `pymultigrid.keras.preflight` measure one, `pymultigrid.plot.draw_report` draws
    it. All predictions are of the whole schedule and count what was timed: on torch forward and backward passes, so
    that reading, the optimizer and logging come on top; on Keras whole training steps.

    >>> from pymultigrid import Cycles, Report, Schedule, Shape, ShapeCost
    >>> schedule = Schedule(Shape(8, 16, 64, 64), samples=1000, epochs=10, plan=Cycles(short=None))
    >>> rows = [ShapeCost(shape, 10, seconds=0.5 if shape == schedule.shape else 0.6, bytes=1e9, fits=shape.b)
    ...         for shape in schedule.shapes]
    >>> report = Report(schedule, "some GPU", 10**8, tuple(rows))
    >>> print(f"{schedule.speedup:.2f} {report.speedup:.2f}")
    2.20 1.95

    Parameters
    ----------
    schedule
        The whole schedule.
    device
        What it was measured on.
    resident
        Bytes that are taken before a pass: parameters, buffers and gradients, on a GPU whatever else is there. None:
        memory was not measured.
    rows
        A `ShapeCost` for every shape of the schedule's stages.
    notes
        Further findings of the measurement; part of `warnings`.
    patch
        Frames, rows and columns of a patch where the network does no more with its clips than cut them into patches, as
        a transformer does: then it has no last feature map that could be too coarse. None: it has feature maps.
    timed
        What `ShapeCost.seconds` is the time of.
    """

    schedule: Schedule
    device: str
    resident: int | None
    rows: tuple[ShapeCost, ...]
    notes: tuple[str, ...] = ()
    patch: tuple[int, int, int] | None = None
    timed: str = "forward and backward pass"

    def __getitem__(self, shape: Shape) -> ShapeCost:
        """Return the row of `shape`."""
        for row in self.rows:
            if row.shape == shape:
                return row
        raise KeyError(f"no shape {shape} in the report; report.rows has them all")

    @property
    def costs(self) -> dict[tuple[int, int, int], float]:
        """The cost of a clip of each (t, h, w) relative to the full clip: the larger of its time and its memory.

        Planned again with these, ``Schedule(..., costs=report.costs)``, each mini-batch is the largest that
        takes no more time and no more memory than the full shape's. Where memory was not measured, time alone counts.
        """
        full = self[self.schedule.shape]
        table: dict[tuple[int, int, int], float] = {}
        for row in self.rows:
            cost = row.share(full) * full.shape.b / row.shape.b
            clip = (row.shape.t, row.shape.h, row.shape.w)
            if cost == cost:  # not NaN
                table[clip] = max(cost, table.get(clip, 0.0))
        return table

    @property
    def stage_seconds(self) -> tuple[float, ...]:
        """The predicted time of each stage."""
        seconds = {row.shape: row.seconds for row in self.rows}
        return tuple(
            sum(count * seconds[shape] for shape, _, count in uses(stage) if count) for stage in self.schedule.stages
        )

    @property
    def stage_savings(self) -> tuple[tuple[float, float], ...]:
        """How many times cheaper than the baseline's each stage's clips are: (by sampling points, as measured)."""
        b, t, h, w = self.schedule.shape
        full = self[self.schedule.shape].seconds / (b * self.schedule.processes)
        return tuple(
            (stage.clips * t * h * w / stage.cells, stage.clips * full / seconds) if seconds else (math.nan, math.nan)
            for stage, seconds in zip(self.schedule.stages, self.stage_seconds, strict=True)
        )

    @property
    def seconds(self) -> float:
        """The predicted time of the schedule."""
        return sum(self.stage_seconds)

    @property
    def baseline_seconds(self) -> float:
        """The predicted time of training without multigrid: its iterations at the full shape's measured time."""
        return self.schedule.baseline_iterations * self[self.schedule.shape].seconds

    @property
    def speedup(self) -> float:
        """The measured speed-up over the baseline; `Schedule.speedup` is the nominal one."""
        return self.baseline_seconds / self.seconds

    @property
    def warnings(self) -> tuple[str, ...]:
        """What would go wrong, one sentence each; empty if nothing would."""
        cut = None if self.patch is None else cut_off((row.shape for row in self.rows), self.patch)
        coarse = self._too_coarse() if self.patch is None else ([cut] if cut else [])
        return (*self._out_of_memory(), *coarse, *self.notes)

    def _out_of_memory(self) -> Iterator[str]:
        full, stages = self[self.schedule.shape], self.schedule.stages
        for row in self.rows:
            if row.fits == row.shape.b or not row.iterations:
                continue
            number, first = next(
                (n, first) for n, stage in enumerate(stages) for s, first, k in uses(stage) if k and s == row.shape
            )
            known = row.fits and row.bytes is not None
            size = f"it needs about {_bytes((self.resident or 0) + (row.bytes or 0))}, and " if known else ""
            when = sum(self.stage_seconds[:number])
            after = f", {duration(when)} into the run" if when > 0 else ""
            if full.fits < full.shape.b:
                do = (
                    f"the baseline itself does not fit; take a batch of {full.fits} or fewer"
                    if full.fits
                    else ("not even one full clip fits; take a smaller shape or activation checkpointing")
                )
            else:
                do = "plan again with costs=report.costs, or with a smaller batch"
            yield (
                f"{row.shape} does not fit the memory of {self.device}: {size}{row.fits} of its {row.shape.b} clips "
                f"fit. Training would have failed at step {first:,}, in stage {number}{after}; {do}"
            )

    def _too_coarse(self) -> Iterator[str]:
        full = self[self.schedule.shape]
        maps = {row.shape: row.feature_map for row in self.rows if row.feature_map is not None and row is not full}
        small = [shape for shape, extents in maps.items() if min(extents[-2:]) < _CELLS]
        if small:
            least = min(small, key=lambda shape: min(maps[shape][-2:]))
            yield (
                f"the network is too coarse for {_listed(small)}: its last feature map is {_by(maps[least][-2:])} at "
                f"{least}, and below about {_CELLS} cells accuracy suffers; "
                "take larger factors in Cycles(long=, short=), or a network with less stride"
            )
        if full.feature_map is not None and len(full.feature_map) == 3:
            stride = full.shape.t / full.feature_map[0]
            short = [shape for shape in maps if shape.t < stride]
            if short:
                yield (
                    f"fewer frames than the network's temporal stride, {stride:g}: {_listed(short)}; "
                    "take larger temporal factors in Cycles(long=), or a network with less stride"
                )

    def _too_costly(self) -> Iterator[str]:
        full = self[self.schedule.shape]
        shares = {row.shape: row.share(full) for row in self.rows}
        costly = [shape for shape, share in shares.items() if share > _SHARE]
        if costly:
            worst = max(costly, key=lambda shape: shares[shape])
            yield (
                f"note: costing more than their share: {_listed(costly)}, up to {shares[worst]:.2f} times the full "
                f"mini-batch at {worst}; plan again with costs=report.costs"
            )

    def __str__(self) -> str:
        schedule, full = self.schedule, self[self.schedule.shape]
        lines = [
            f"one {self.timed} on {self.device}"
            + (
                "; memory was not measured"
                if self.resident is None
                else f", which holds {_bytes(self.resident)} before it"
            ),
            self._shape_table(),
            "",
            self._stage_table(),
            f"baseline {full.shape}: {schedule.baseline_iterations:,} iterations, {duration(self.baseline_seconds)}",
            f"this schedule: {schedule.stages[-1].stop:,} iterations, {duration(self.seconds)}: "
            f"{self.speedup:.2f}x faster (nominal {schedule.speedup:.2f}x)",
        ]
        workers = {row.shape: row.read_seconds / row.seconds for row in self.rows if row.read_seconds and row.fits}
        if workers:
            most = max(workers, key=lambda shape: workers[shape])
            lines.append(f"data: {math.ceil(workers[most])} workers keep up with every shape; {most} needs the most")
        return "\n".join([*lines, *self._too_costly(), *(f"warning: {text}" for text in self.warnings)])

    def _shape_table(self) -> str:
        """Return a row for each shape, without the columns that nothing is known of."""
        full = self[self.schedule.shape]
        columns = {
            "shape": [str(r.shape) if r.fits == r.shape.b else f"{r.shape} (fits {r.fits})" for r in self.rows],
            "iterations": [f"{r.iterations:,}" for r in self.rows],
            "nominal": [f"{math.prod(r.shape) / math.prod(full.shape):.2f}" for r in self.rows],
            "time": [milliseconds(r.seconds) for r in self.rows],
            "time x": [f"{r.seconds / full.seconds:.2f}" for r in self.rows],
        }
        if full.bytes is not None:
            sizes = [math.nan if r.bytes is None else r.bytes for r in self.rows]
            columns["memory"] = [_bytes(size) for size in sizes]
            columns["memory x"] = [f"{size / full.bytes:.2f}" for size in sizes]
        columns["last map"] = ["-" if r.feature_map is None else _by(r.feature_map) for r in self.rows]
        for name, times in (
            ("first one", [r.first_seconds for r in self.rows]),
            ("read by one", [r.read_seconds for r in self.rows]),
        ):
            if any(each is not None for each in times):
                columns[name] = ["-" if each is None else milliseconds(each) for each in times]
        return align([list(columns), *map(list, zip(*columns.values(), strict=True))])

    def _stage_table(self) -> str:
        header = ["stage", "iterations", "base shape", "time", "nominal saving", "measured", "ratio"]
        rows = [
            [
                str(number),
                f"{stage.stop - stage.start:,}",
                str(stage.base),
                duration(seconds),
                f"{nominal:.2f}x",
                f"{measured:.2f}x",
                f"{measured / nominal:.2f}",
            ]
            for number, (stage, seconds, (nominal, measured)) in enumerate(
                zip(self.schedule.stages, self.stage_seconds, self.stage_savings, strict=True)
            )
            if stage.start < stage.stop
        ]
        return align([header, *rows])


def _listed(shapes: list[Shape]) -> str:
    return ", ".join(map(str, shapes))


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
