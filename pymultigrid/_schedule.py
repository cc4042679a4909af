"""The schedule: the mini-batch shape, learning-rate scale and sampling grid of each iteration."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, final, overload

from pymultigrid import _arguments, _core, _table
from pymultigrid._arguments import Costs, LRScaling
from pymultigrid._core import ClockStretch, Plan, PlannedStage, Rules, Shape, Stage, Step
from pymultigrid._plans import Cycles, Phases, Progressive, baseline_length

_PAPER = Cycles()
_VERSION = 2  # of to_dict
_PUBLIC = ("baseline_epochs", "processes", "samples", "shape")


@final
class Schedule:
    """A sequence of training steps, as `range` is one of numbers: immutable, sized, sliceable; item i is computed.

    >>> from pymultigrid import Schedule, Shape
    >>> schedule = Schedule(Shape(8, 32, 224, 224), samples=240_436, epochs=239, lr_drops=(94, 154, 196), processes=8)
    >>> len(schedule), schedule.baseline_iterations
    (262266, 897879)
    >>> print(schedule[2].shape, schedule[2].lr_scale, schedule[-1].shape)
    64x8x158x158 8.0 8x32x224x224
    >>> schedule[1000:][5] == schedule[1005]      # resuming is slicing
    True

    Parameters
    ----------
    shape
        The mini-batch of the training you have today, per process: the *baseline*. It is also the largest shape.
    samples
        Number of videos in the data set. With `iterations` it may be left out for planning: an epoch is then one
        iteration of the baseline, and `sample` can't say which video is where in the stream.
    epochs, iterations
        Length of the baseline's training; pass one of the two. `Phases` bring their own length.
    lr_drops
        Where the baseline's learning rate drops, in the unit of its length.
    processes
        Number of processes that train together; `shape.b` is per process.
    plan
        How the shape varies: `Cycles` (the paper's), `Phases` (a list of your own) or `Progressive` (resizing).
    batch_growth
        How much of a coarse clip's saving goes into a larger batch: batch ~ (ratio of cells) ** batch_growth.
        1 as in the paper; 0 keeps the batch, which makes coarse steps cheaper instead.
    lr_scaling
        How the learning rate follows the batch of the long cycle: "linear" (as in the paper), "sqrt" or "none".
    multiple_of, frames_multiple_of, batch_multiple_of
        Heights and widths, frames, and batches are rounded to multiples of these (patch size, total stride).
    costs
        {(t, h, w): cost of a clip, in any unit} for every clip size of the schedule, such as a preflight's
        `report.costs`. Each batch is then the largest that costs no more than the baseline's. None: a clip costs
        t x h x w.

    Raises
    ------
    ValueError
        A size, length or drop is out of its range, or arguments conflict; the message says what to do.
    TypeError
        An argument is of the wrong kind.

    Notes
    -----
    Source: Wu et al., "A Multigrid Method for Efficiently Training Video Models", CVPR 2020, section 3.
    """

    __slots__ = ("__weakref__", "_counted", "_laid", "_plan", "_range", "_stages", *_PUBLIC)

    shape: Shape
    baseline_epochs: float
    samples: int
    processes: int
    _plan: Plan
    _laid: _core.Schedule
    _range: range
    _stages: tuple[Stage, ...]
    _counted: bool

    def __init__(
        self,
        shape: Shape,
        *,
        samples: int | None = None,
        epochs: float | None = None,
        iterations: int | None = None,
        lr_drops: Sequence[float] = (),
        processes: int = 1,
        plan: Cycles | Phases | Progressive = _PAPER,
        batch_growth: float = 1.0,
        lr_scaling: LRScaling = "linear",
        multiple_of: int = 1,
        frames_multiple_of: int = 1,
        batch_multiple_of: int = 1,
        costs: Costs | None = None,
    ) -> None:
        if not isinstance(plan, (Cycles, Phases, Progressive)):
            raise TypeError(f"plan ({plan!r}) must be Cycles(...), Phases([...]) or Progressive(...)")
        batch = _arguments.shape(shape).b * _arguments.count("processes", processes)
        videos = batch if samples is None else _arguments.count("samples", samples)
        drops = _arguments.numbers("lr_drops", lr_drops)
        length, drops = baseline_length(plan, batch, samples, epochs, iterations, drops)
        rules = Rules(
            baseline=shape,
            baseline_epochs=length,
            lr_drops=drops,
            batch_growth=_arguments.number("batch_growth", batch_growth),
            lr_power=_arguments.lr_power(lr_scaling),
            frames_multiple_of=_arguments.count("frames_multiple_of", frames_multiple_of),
            multiple_of=_arguments.count("multiple_of", multiple_of),
            batch_multiple_of=_arguments.count("batch_multiple_of", batch_multiple_of),
            costs={} if costs is None else _arguments.clip_costs(costs),
        )
        self._lay(shape, length, videos, processes, plan._plan(rules), counted=samples is not None)

    def _lay(
        self, shape: Shape, baseline_epochs: float, samples: int, processes: int, plan: Plan, *, counted: bool
    ) -> Schedule:
        """Lay the plan over the stream of clips."""
        videos, ranks = _arguments.count("samples", samples), _arguments.count("processes", processes)
        laid = _core.Schedule(
            baseline=shape, baseline_epochs=baseline_epochs, samples=videos, processes=ranks, plan=plan
        )
        values = (counted, laid, plan, range(len(laid)), laid.stages, baseline_epochs, ranks, videos, shape)
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
        """Return the steps whose first clip lies in epoch `number`, counted from 0, for loops over epochs.

        >>> schedule = Schedule(Shape(4, 8, 32, 32), samples=100, epochs=10, lr_drops=(5,))
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

        Each epoch (``position // samples``) is its own permutation, in which every video appears once.
        """
        if not self._counted:
            raise ValueError("the schedule was made without samples=; pass the number of videos to look one up")
        return _core.shuffled(position, self.samples, seed)

    @property
    def start(self) -> int:
        """The index of the first step."""
        return self._range.start

    @property
    def stop(self) -> int:
        """The index after the last step: the steps are ``range(start, stop)``."""
        return self._range.stop

    @property
    def whole(self) -> Schedule:
        """The whole schedule that this is a slice of."""
        return self._window(range(len(self._laid)))

    def without_multigrid(self) -> Schedule:
        """Return the schedule of training without multigrid, at the full shape throughout.

        Use it as the baseline to compare with, or to read clips of the full shape, as `pymultigrid.torch.precise_bn`
        needs.

        >>> schedule = Schedule(Shape(4, 8, 32, 32), samples=100, epochs=10)
        >>> baseline = schedule.without_multigrid()
        >>> len(baseline) == schedule.baseline_iterations, {str(step.shape) for step in baseline}
        (True, {'4x8x32x32'})
        """
        counted = {"samples": self.samples, "epochs": self.baseline_epochs}
        length: dict[str, Any] = counted if self._counted else {"iterations": self.baseline_iterations}
        plan = Cycles(long=None, short=None)
        return Schedule(self.shape, **length, lr_drops=self.lr_drops, processes=self.processes, plan=plan)

    # -- properties ----------------------------------------------------------------------------------------------------

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the whole schedule, also for a slice."""
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
        """Where the baseline's learning rate drops, in the baseline's epochs."""
        clock = self._plan.clock
        return tuple(a.baseline_epoch for a, b in pairwise(clock) if a.lr_stage < b.lr_stage)

    @property
    def num_epochs(self) -> int:
        """Number of epochs of `samples` videos, complete or not, in the whole schedule: the range of `epoch`."""
        return self._laid.at(len(self._laid) - 1).first // self.samples + 1

    @property
    def baseline_iterations(self) -> int:
        """Iterations of training without multigrid."""
        clips = _core.clips_by(self.baseline_epochs, self.samples)
        return -(-clips // (self.shape.b * self.processes))

    @property
    def speedup(self) -> float:
        """Baseline compute / compute of the whole schedule, in sampling points (clips x T x H x W)."""
        b, t, h, w = self.shape
        baseline = self.baseline_iterations * self.processes * b * t * h * w
        return baseline / sum(stage.cells for stage in self.stages)

    def __str__(self) -> str:
        last, baseline = self.stages[-1], self.baseline_iterations
        across = "" if self.processes == 1 else f" on {self.processes} processes"
        return (
            f"{_table.stage_table(self.stages, self.shape)}\n"
            f"baseline {self.shape}{across}: {baseline:,} iterations, {self.baseline_epochs:g} epochs "
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
        return (self.shape, self.baseline_epochs, self.samples, self._counted, self.processes, self._plan, window)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Schedule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[Any, ...]:
        return Schedule.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """Return the schedule as JSON-ready values: the plan itself, so that no later release changes a resumed run.

        >>> schedule = Schedule(Shape(4, 8, 32, 32), samples=100, epochs=10)
        >>> Schedule.from_dict(schedule.to_dict()) == schedule
        True
        """
        return {
            "version": _VERSION,
            "shape": list(self.shape),
            "samples": self.samples if self._counted else None,
            "baseline_epochs": self.baseline_epochs,
            "processes": self.processes,
            "stages": [
                {
                    "shapes": [list(s) for s in p.shapes],
                    "end_epoch": p.end_epoch,
                    "lr_scale": p.lr_scale,
                    "long": p.long,
                }
                for p in self._plan.stages
            ],
            "clock": [
                {"end_epoch": c.end_epoch, "baseline_epoch": c.baseline_epoch, "lr_stage": c.lr_stage}
                for c in self._plan.clock
            ],
            "start": self._range.start,
            "stop": self._range.stop,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Schedule:
        """Make the schedule from the dict of `to_dict`; raise ValueError if that is damaged or of another version."""
        if not isinstance(state, Mapping):
            raise TypeError(f"state ({reprlib.repr(state)}) must be what Schedule.to_dict returned")
        if "version" not in state:
            raise ValueError("state has no 'version'; it must be what Schedule.to_dict returned")
        version = state["version"]
        if version != _VERSION:
            move = "it is from before the first release; plan again" if version == 1 else "update it"
            raise ValueError(f"state has version {version!r}; this pymultigrid reads {_VERSION}: {move}")
        try:
            return cls._restored(**{name: value for name, value in state.items() if name != "version"})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"state is damaged ({error}); pass what Schedule.to_dict returned") from error

    @classmethod
    def _restored(
        cls,
        *,
        shape: Sequence[int],
        samples: int | None,
        baseline_epochs: float,
        processes: int,
        stages: Sequence[Mapping[str, Any]],
        clock: Sequence[Mapping[str, Any]],
        start: int,
        stop: int,
    ) -> Schedule:
        """Make a schedule from the items of its dict."""
        plan = Plan(
            stages=[PlannedStage(**{**stage, "shapes": [Shape(*s) for s in stage["shapes"]]}) for stage in stages],
            clock=[ClockStretch(**stretch) for stretch in clock],
        )
        baseline = Shape(*shape)
        videos = baseline.b * _arguments.count("processes", processes) if samples is None else samples
        whole = cls.__new__(cls)._lay(baseline, baseline_epochs, videos, processes, plan, counted=samples is not None)
        if not 0 <= _arguments.whole("start", start) <= _arguments.whole("stop", stop) <= len(whole):
            raise ValueError(f"its steps {start} to {stop} are not in a schedule of {len(whole)}")
        return whole._window(range(start, stop))

    def with_processes(self, processes: int) -> Schedule:
        """Return a schedule with the same global batches on another number of processes: b becomes b x old / new.

        >>> schedule = Schedule(Shape(4, 8, 32, 32), samples=100, epochs=10, processes=2)
        >>> print(schedule.with_processes(4).shape)
        2x8x32x32
        """
        count = _arguments.count("processes", processes)

        batches = {shape.b * self.processes for stage in self.stages for shape in stage.shapes}
        common = math.gcd(self.shape.b * self.processes, *batches)
        if common % count:
            raise ValueError(
                f"processes ({count}) must divide every global batch ({', '.join(map(str, sorted(batches)))}); "
                f"go on with a divisor of {common}"
            )

        def share(shape: Shape) -> Shape:
            return Shape(shape.b * self.processes // count, shape.t, shape.h, shape.w)

        stages = [
            PlannedStage(shapes=[share(s) for s in p.shapes], end_epoch=p.end_epoch, lr_scale=p.lr_scale, long=p.long)
            for p in self._plan.stages
        ]
        whole = Schedule.__new__(Schedule)._lay(
            share(self.shape),
            self.baseline_epochs,
            self.samples,
            count,
            Plan(stages=stages, clock=self._plan.clock),
            counted=self._counted,
        )
        return whole._window(self._range)


def _times(ratio: float, above: str, below: str) -> str:
    return f"{ratio:.2f}x {above}" if ratio >= 1 else f"{1 / ratio:.2f}x {below}"
