"""The schedule: which mini-batch shape, learning-rate scale and sampling grid at which iteration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, repeat
from typing import Any, final, overload

from pymultigrid import _core, arguments, table
from pymultigrid._core import Grid, Shape, Stage, Step
from pymultigrid.arguments import Costs, LRScaling

LONG_CYCLE: tuple[tuple[float, float], ...] = ((0.25, 0.5**0.5), (0.5, 0.5**0.5), (0.5, 1.0), (1.0, 1.0))
"""The paper's long cycle: (temporal, spatial) factors of the baseline, coarse to fine."""
SHORT_CYCLE: tuple[float, ...] = (0.5, 0.5**0.5)
"""The paper's short cycle: spatial factors of the baseline below the stage's base, which always comes last."""


_PUBLIC = ("epochs", "processes", "samples", "shape")


@final
class Schedule:
    """A multigrid schedule is to training what `range` is to a loop: immutable, sized, sliceable, item i computed.

    >>> from pymultigrid import Schedule, Shape
    >>> schedule = Schedule.from_epochs(Shape(8, 32, 224, 224), samples=240_436, epochs=239,
    ...                                 lr_drops=(94, 154, 196), processes=8)
    >>> len(schedule), schedule.baseline_iterations
    (262266, 897879)
    >>> print(schedule[2].shape, schedule[2].lr_scale, schedule[-1].shape)
    64x8x158x158 8.0 8x32x224x224
    >>> schedule[1000:][5] == schedule[1005]      # resuming is slicing
    True

    ``Schedule(shape, iterations=, ...)`` takes the baseline's length and drops in iterations, `from_epochs` in epochs,
    `from_phases` takes a list of your own, `progressive` ramps the size; all give the same kind of object.

    Parameters
    ----------
    shape
        The mini-batch of the training you have today, per process: the *baseline*. It is also the largest shape.
    iterations, epochs
        Length of the baseline's training.
    samples
        Videos in the data set. With `iterations` it may be left out, to plan: an epoch is one baseline iteration then,
        and which video is where in the stream (`sample`) is not known.
    lr_drops
        Where the baseline's learning rate drops, in the unit of its length. One long cycle runs before each drop,
        then fine-tuning. Without drops (cosine, one-cycle, ...) there are `cycles` equal long cycles over the first
        82 % of the baseline's length.
    epoch_factor
        Epochs of this schedule / epochs of the baseline. None: 1.5 with any cycle (as the paper), 1.0 with none.
    long_cycle
        (temporal, spatial) or (t, h, w) factors of the baseline, or None.
    short_cycle
        Spatial factors of the baseline below the stage's own base, which always comes last, or None.
    processes
        Number of processes that train together; `shape.b` stays per process.
    batch_growth
        How much of a coarse clip's saving goes into a larger batch: batch ~ (ratio of cells) ** batch_growth.
        1 as the paper; 0 keeps the batch, and coarse steps are cheaper instead.
    lr_scaling
        "linear" (the paper), "sqrt" or "none", in the batch of the long cycle.
    multiple_of, frames_multiple_of, batch_multiple_of
        Heights and widths, frames and batches are rounded to multiples of these (patch size, total stride).
    costs
        {(t, h, w): cost of a clip, in any unit} for every clip of the schedule, as `report.costs` of a preflight. Each
        batch is then the largest that costs no more than the baseline's. None: a clip costs its t x h x w.

    Raises
    ------
    ValueError
        A size, factor, length or drop is out of its range; the message says which and what to do.
    TypeError
        An argument is of the wrong kind.

    Notes
    -----
    Source: Wu et al., "A Multigrid Method for Efficiently Training Video Models", CVPR 2020, section 3.
    """

    __slots__ = ("__weakref__", "_counted", "_laid", "_plan", "_range", "_stages", *_PUBLIC)

    shape: Shape
    epochs: float
    samples: int
    processes: int
    _plan: _core.Plan
    _laid: _core.Schedule
    _range: range
    _stages: tuple[Stage, ...]
    _counted: bool

    def __init__(
        self,
        shape: Shape,
        *,
        iterations: int,
        lr_drops: Sequence[float] = (),
        samples: int | None = None,
        epoch_factor: float | None = None,
        cycles: int = 3,
        long_cycle: Sequence[Sequence[float]] | None = LONG_CYCLE,
        short_cycle: Sequence[float] | None = SHORT_CYCLE,
        processes: int = 1,
        batch_growth: float = 1.0,
        lr_scaling: LRScaling = "linear",
        multiple_of: int = 1,
        frames_multiple_of: int = 1,
        batch_multiple_of: int = 1,
        costs: Costs | None = None,
    ) -> None:
        batch = arguments.baseline(shape).b * arguments.count("processes", processes)
        videos = batch if samples is None else arguments.count("samples", samples)
        length = arguments.count("iterations", iterations)
        drops = arguments.numbers("lr_drops", lr_drops)
        if drops != sorted(set(drops)) or not all(0 < drop < length for drop in drops):
            raise ValueError(
                f"lr_drops {tuple(drops)} must increase, above 0 and below iterations ({length}): "
                "they count the baseline's iterations; Schedule.from_epochs takes epochs"
            )
        epochs = length * batch / videos
        rules = arguments.rules(
            shape,
            epochs,
            [drop * batch / videos for drop in drops],
            short_cycle,
            batch_growth,
            lr_scaling,
            (frames_multiple_of, multiple_of, batch_multiple_of),
            costs,
        )
        plan = arguments.cycles_plan(rules, long_cycle, short_cycle, cycles, epoch_factor)
        self._lay(shape, epochs, videos, processes, plan, counted=samples is not None)

    @classmethod
    def from_epochs(
        cls,
        shape: Shape,
        *,
        samples: int,
        epochs: float,
        lr_drops: Sequence[float] = (),
        epoch_factor: float | None = None,
        cycles: int = 3,
        long_cycle: Sequence[Sequence[float]] | None = LONG_CYCLE,
        short_cycle: Sequence[float] | None = SHORT_CYCLE,
        processes: int = 1,
        batch_growth: float = 1.0,
        lr_scaling: LRScaling = "linear",
        multiple_of: int = 1,
        frames_multiple_of: int = 1,
        batch_multiple_of: int = 1,
        costs: Costs | None = None,
    ) -> Schedule:
        """Plan from the baseline's length and drops in epochs; the parameters are the class's.

        >>> schedule = Schedule.from_epochs(Shape(64, 32, 224, 224), samples=240_436, epochs=239,
        ...                                 lr_drops=(94, 154, 196))
        >>> [round(stage.end_epoch) for stage in schedule.stages]
        [73, 110, 142, 158, 205, 228, 248, 259, 291, 308, 322, 329, 358]
        """
        rules = arguments.rules(
            arguments.baseline(shape),
            float(epochs),
            lr_drops,
            short_cycle,
            batch_growth,
            lr_scaling,
            (frames_multiple_of, multiple_of, batch_multiple_of),
            costs,
        )
        plan = arguments.cycles_plan(rules, long_cycle, short_cycle, cycles, epoch_factor)
        return cls.__new__(cls)._lay(shape, float(epochs), samples, processes, plan)

    @classmethod
    def from_phases(
        cls,
        shape: Shape,
        phases: Sequence[tuple[float, Shape | Sequence[float]]],
        *,
        samples: int,
        lr_drops: Sequence[float] = (),
        short_cycle: Sequence[float] | None = None,
        processes: int = 1,
        batch_growth: float = 1.0,
        lr_scaling: LRScaling = "linear",
        multiple_of: int = 1,
        frames_multiple_of: int = 1,
        batch_multiple_of: int = 1,
        costs: Costs | None = None,
    ) -> Schedule:
        """Plan a list of your own: (epochs, shape) or (epochs, (t, h, w)), whose batch then grows by the rule.

        The baseline is `shape`, trained for the sum of the epochs; `lr_drops` count in the same epochs.

        A long phase at low resolution, then a short cool-down at full resolution with longer clips, as V-JEPA 2 does:

        >>> schedule = Schedule.from_phases(Shape(8, 64, 384, 384), [(90, (16, 256, 256)), (10, (64, 384, 384))],
        ...                                 samples=100_000, multiple_of=16)
        >>> [str(stage.base) for stage in schedule.stages]
        ['72x16x256x256', '8x64x384x384']
        """
        if not len(phases):
            raise ValueError("phases is empty; pass at least one (epochs, shape)")
        rows = [arguments.phase(item) for item in phases]
        length = sum(row[0] for row in rows)
        rules = arguments.rules(
            arguments.baseline(shape),
            length,
            lr_drops,
            short_cycle,
            batch_growth,
            lr_scaling,
            (frames_multiple_of, multiple_of, batch_multiple_of),
            costs,
        )
        return cls.__new__(cls)._lay(shape, length, samples, processes, _core.plan_phases(rules, rows))

    @classmethod
    def progressive(
        cls,
        shape: Shape,
        *,
        samples: int,
        epochs: float,
        start: Sequence[float] = (1.0, 0.5),
        stages: int = 4,
        full_from: float | None = None,
        lr_drops: Sequence[float] = (),
        processes: int = 1,
        batch_growth: float = 1.0,
        lr_scaling: LRScaling = "linear",
        multiple_of: int = 1,
        frames_multiple_of: int = 1,
        batch_multiple_of: int = 1,
        costs: Costs | None = None,
    ) -> Schedule:
        """Plan progressive resizing: sizes rise linearly from `start` (a long-cycle factor) to the full shape.

        `stages` equal stages, the last at the full shape from the share `full_from` of the training on (default: as
        long as the others). Four stages are EfficientNetV2's; as many stages as epochs make fastai's and FFCV's ramp.

        >>> schedule = Schedule.progressive(Shape(8, 16, 224, 224), samples=1000, epochs=16, multiple_of=16)
        >>> [str(stage.base) for stage in schedule.stages]
        ['32x16x112x112', '19x16x144x144', '11x16x192x192', '8x16x224x224']
        """
        arguments.baseline(shape)
        n = arguments.count("stages", stages)
        if n < 2:
            raise ValueError(f"stages ({stages}) must be at least 2: the first at start, the last at the full shape")
        share = (n - 1) / n if full_from is None else float(full_from)
        if not 0 < share < 1:
            raise ValueError(f"full_from ({full_from}) must lie in (0, 1): the share of training before the full shape")
        first = arguments.factor("start", start)
        if not all(0 < f <= 1 for f in first):
            raise ValueError(f"start ({tuple(start)}) must be fractions of the full shape, in (0, 1]")
        full = (shape.t, shape.h, shape.w)
        ramps = ([(f + (1 - f) * i / (n - 1)) * size for i in range(n)] for f, size in zip(first, full, strict=True))
        ends = [share * float(epochs) * i / (n - 1) for i in range(n)] + [float(epochs)]
        lengths = [until - since for since, until in pairwise(ends)]
        rules = arguments.rules(
            shape,
            sum(lengths),
            lr_drops,
            None,
            batch_growth,
            lr_scaling,
            (frames_multiple_of, multiple_of, batch_multiple_of),
            costs,
        )
        rows = list(zip(lengths, repeat(0.0, n), *ramps, strict=True))  # a batch of 0 stands for the rule
        return cls.__new__(cls)._lay(shape, sum(lengths), samples, processes, _core.plan_phases(rules, rows))

    def _lay(
        self, shape: Shape, epochs: float, samples: int, processes: int, plan: _core.Plan, *, counted: bool = True
    ) -> Schedule:
        """Lay the plan over the stream of clips: every constructor ends here."""
        videos, ranks = arguments.count("samples", samples), arguments.count("processes", processes)
        laid = _core.Schedule(
            baseline=shape, epochs=epochs, samples=videos, processes=ranks, stages=plan[0], clock=plan[1]
        )
        values = (counted, laid, plan, range(len(laid)), laid.stages, epochs, ranks, videos, shape)
        for name, value in zip(self.__slots__[1:], values, strict=True):
            object.__setattr__(self, name, value)
        return self

    def _window(self, window: range) -> Schedule:
        part = Schedule.__new__(Schedule)
        for name in self.__slots__[1:]:
            object.__setattr__(part, name, getattr(self, name))
        object.__setattr__(part, "_range", range(window.start, max(window.start, window.stop)))
        return part

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Schedule is frozen: {name} cannot be set; make another Schedule")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Schedule is frozen: {name} cannot be deleted")

    # -- the sequence of steps -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._range)

    def __iter__(self) -> Iterator[Step]:
        return self._laid.steps(self._range.start, self._range.stop)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> Schedule: ...
    def __getitem__(self, index: int | slice) -> Step | Schedule:
        if not isinstance(index, slice):
            try:
                return self._laid.at(self._range[index])
            except IndexError:
                raise IndexError(f"step {index} of a schedule of {len(self)} steps") from None
        window = self._range[index]
        if window.step != 1:
            raise ValueError(f"a schedule is sliced with step 1, not {window.step}: training takes every iteration")
        return self._window(window)

    def epoch(self, number: int) -> Schedule:
        """Return the steps whose first clip lies in epoch `number`, from 0, for loops that think in epochs.

        >>> schedule = Schedule.from_epochs(Shape(4, 8, 32, 32), samples=100, epochs=10, lr_drops=(5,))
        >>> sum(len(schedule.epoch(e)) for e in range(schedule.num_epochs)) == len(schedule)
        True
        """
        if number not in range(self.num_epochs):
            raise ValueError(f"number ({number!r}) must be an epoch of the schedule, in range({self.num_epochs})")
        start, stop = (self._laid.find((number + k) * self.samples) for k in (0, 1))
        start, stop = (min(max(i, self._range.start), self._range.stop) for i in (start, stop))
        return self._window(range(start, stop))

    def sample(self, position: int, *, seed: int) -> int:
        """Return which of the `samples` videos is at `position` of the stream of clips.

        Each epoch is another permutation: ``position // samples`` is the epoch, and every video is seen once in it.
        """
        if not self._counted:
            raise ValueError("the schedule was made without samples=; pass the number of videos to know which is where")
        return _core.shuffled(position, self.samples, seed)

    @property
    def start(self) -> int:
        """The index of the first step."""
        return self._range.start

    @property
    def stop(self) -> int:
        """The index after the last step: ``range(start, stop)`` are the steps."""
        return self._range.stop

    @property
    def whole(self) -> Schedule:
        """The whole schedule that this is a slice of."""
        return self._window(range(len(self._laid)))

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the whole schedule, also of a slice."""
        return self._stages

    @property
    def clips(self) -> int:
        """Clips that these steps read, over all processes."""
        start, stop = (
            self._laid.clips if i == len(self._laid) else self._laid.at(i).first
            for i in (self._range.start, self._range.stop)
        )
        return stop - start

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every distinct mini-batch shape of the whole schedule, the most expensive first."""
        distinct = {shape for stage in self.stages if stage.start < stage.stop for shape in stage.shapes}
        return tuple(sorted(distinct, key=lambda s: (s.b * s.t * s.h * s.w, tuple(s)), reverse=True))

    @property
    def lr_drops(self) -> tuple[float, ...]:
        """Where the baseline's learning rate drops, in its epochs."""
        clock = self._plan[1]
        return tuple(clock[k][1] for k in range(len(clock) - 1) if clock[k][2] < clock[k + 1][2])

    @property
    def num_epochs(self) -> int:
        """Epochs of `samples` videos that the whole schedule touches: the range of `epoch`."""
        return self._laid.at(len(self._laid) - 1).first // self.samples + 1

    @property
    def baseline_iterations(self) -> int:
        """Iterations of training without multigrid."""
        clips = _core.clips_by(self.epochs, self.samples)
        return -(-clips // (self.shape.b * self.processes))

    @property
    def speedup(self) -> float:
        """Baseline compute / compute of the whole schedule, in sampling points (clips x T x H x W)."""
        b, t, h, w = self.shape
        baseline = self.baseline_iterations * self.processes * b * t * h * w
        return baseline / sum(stage.cells for stage in self.stages)

    def views(
        self,
        extent: Sequence[int],
        *,
        clips: int = 1,
        crops: int = 1,
        stride: int = 1,
        size: Sequence[int] | None = None,
        segments: bool = False,
        short: str = "error",
    ) -> list[Grid]:
        """Return the evaluation grids of a video of `extent` (frames, height, width): `clips` x `crops` of them.

        Deterministic and always at the full shape unless `size` (t, h, w) is given: `clips` spread evenly over time,
        `crops` (the largest box of the clip's aspect) over the longer side; one of either is the centre. `segments`
        reads one frame from the middle of each of t equal parts, for models trained so.

        >>> schedule = Schedule.from_epochs(Shape(8, 32, 224, 224), samples=1000, epochs=10)
        >>> [grid.w.start for grid in schedule.views((300, 256, 340), crops=3)]
        [0.0, 42.0, 84.0]
        """
        full = (self.shape.t, self.shape.h, self.shape.w) if size is None else tuple(size)
        if len(full) != 3:
            raise ValueError(f"size ({full}) must be (t, h, w)")
        shape = Shape(self.shape.b, *full)
        clips, crops = arguments.count("clips", clips), arguments.count("crops", crops)
        return _core.view_grids(shape, extent, clips, crops, arguments.count("stride", stride), segments, short)

    def __str__(self) -> str:
        last, baseline = self.stages[-1], self.baseline_iterations
        across = "" if self.processes == 1 else f" on {self.processes} processes"
        return (
            f"{table.draw(self.stages, self.shape)}\n"
            f"baseline {self.shape}{across}: {baseline:,} iterations, {self.epochs:g} epochs "
            f"of {self.samples:,} videos\n"
            f"this schedule: {last.stop:,} iterations, {last.end_epoch:g} epochs: "
            f"{_times(baseline / last.stop, 'fewer', 'more')} iterations, "
            f"{_times(self.speedup, 'less', 'more')} compute{self._too_short()}"
        )

    def _too_short(self) -> str:
        empty = sum(stage.start == stage.stop for stage in self.stages)
        if not empty:
            return ""
        return (
            f"\ntoo short: {empty} of {len(self.stages)} stages have no step; train longer, or with fewer long cycles"
        )

    def __repr__(self) -> str:
        window = "" if len(self) == len(self._laid) else f"[{self._range.start}:{self._range.stop}]"
        saving = _times(self.speedup, "less", "more")
        return f"<Schedule{window}: {self.shape}, {len(self)} steps in {len(self.stages)} stages, {saving} compute>"

    # -- values --------------------------------------------------------------------------------------------------------

    def _key(self) -> tuple[Any, ...]:
        window = self._range.start, self._range.stop
        return (self.shape, self.epochs, self.samples, self._counted, self.processes, self._plan, window)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Schedule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[Any, ...]:
        return Schedule.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """Return the schedule as JSON-ready numbers: the plan itself, so no later release changes a run that resumes.

        >>> schedule = Schedule.from_epochs(Shape(4, 8, 32, 32), samples=100, epochs=10)
        >>> Schedule.from_dict(schedule.to_dict()) == schedule
        True
        """
        stages, clock = self._plan
        return {
            "version": 1,
            "shape": list(self.shape),
            "epochs": self.epochs,
            "samples": self.samples if self._counted else None,
            "processes": self.processes,
            "stages": [
                {"shapes": [list(s) for s in shapes], "end_epoch": end_epoch, "lr_scale": lr_scale, "long": position}
                for shapes, end_epoch, lr_scale, position in stages
            ],
            "clock": [list(stretch) for stretch in clock],
            "steps": [self._range.start, self._range.stop],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Schedule:
        """Make the schedule that `to_dict` described."""
        if state.get("version") != 1:
            raise ValueError(f"state has version {state.get('version')!r}; this pymultigrid reads 1: update it")
        try:
            stages = tuple(
                (tuple(Shape(*shape) for shape in s["shapes"]), s["end_epoch"], s["lr_scale"], s["long"])
                for s in state["stages"]
            )
            plan = (stages, tuple((e, b, k) for e, b, k in state["clock"]))
            shape, samples, processes = Shape(*state["shape"]), state["samples"], state["processes"]
            epochs, (start, stop) = state["epochs"], state["steps"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"state is damaged ({error!r}); pass what Schedule.to_dict returned") from error
        videos = shape.b * processes if samples is None else samples
        whole = cls.__new__(cls)._lay(shape, epochs, videos, processes, plan, counted=samples is not None)
        if not 0 <= start <= stop <= len(whole):
            raise ValueError(f"state is damaged: its steps {start} to {stop} are not in a schedule of {len(whole)}")
        return whole._window(range(start, stop))

    def with_processes(self, processes: int) -> Schedule:
        """Return the same global batches over another number of processes: b becomes b x old / new.

        >>> schedule = Schedule.from_epochs(Shape(4, 8, 32, 32), samples=100, epochs=10, processes=2)
        >>> print(schedule.with_processes(4).shape)
        2x8x32x32
        """
        count = arguments.count("processes", processes)

        batches = {shape.b * self.processes for stage in self.stages for shape in stage.shapes}
        common = math.gcd(self.shape.b * self.processes, *batches)
        if common % count:
            raise ValueError(
                f"processes ({count}) must divide every global batch ({', '.join(map(str, sorted(batches)))}); "
                f"go on with a divisor of {common}"
            )

        def share(shape: Shape) -> Shape:
            return Shape(shape.b * self.processes // count, shape.t, shape.h, shape.w)

        stages, clock = self._plan
        plan = (tuple((tuple(map(share, s[0])), s[1], s[2], s[3]) for s in stages), clock)
        whole = Schedule.__new__(Schedule)._lay(
            share(self.shape), self.epochs, self.samples, count, plan, counted=self._counted
        )
        return whole._window(self._range)


def _times(ratio: float, above: str, below: str) -> str:
    return f"{ratio:.2f}x {above}" if ratio >= 1 else f"{1 / ratio:.2f}x {below}"
