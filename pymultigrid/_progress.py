"""A loop that is watched: its progress bar, its values for a logger, and the report at its end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

from pymultigrid import _arguments
from pymultigrid._core import Shape, Step, uses
from pymultigrid._run_report import RunReport, ShapeTime
from pymultigrid._schedule import Schedule

Item = TypeVar("Item")


@dataclass
class _Spent:
    """What the steps of one shape, with one number of sub-batches, took."""

    steps: int = 0
    seconds: float = 0.0
    waiting: float = 0.0
    firsts: int = 0  # the first step of each process that trained it, which compiles and tunes
    first_seconds: float = 0.0

    def each(self) -> float:
        """Return the seconds of a step, waiting included, without first ones where there are others."""
        others = self.steps - self.firsts
        own = (self.seconds - self.first_seconds) / others if others else self.seconds / self.steps
        return own + self.waiting / self.steps


@dataclass
class _Now:
    """The step that is trained."""

    step: Step
    lr: float | None
    began: float = 0.0  # when its batch was handed out
    seconds: float = 0.0
    waiting: float = 0.0
    apart: float = 0.0
    handed: bool = False


class Progress(Iterable[tuple[Step, Any]]):
    """The batches of a loader, watched: a progress bar, values for a logger, and a report at the end.

    >>> from pymultigrid import Progress, Schedule, Shape
    >>> schedule = Schedule(Shape(4, 8, 32, 32), samples=100, epochs=10)
    >>> class Loader:  # pymultigrid.torch.Loader, or anything that gives (step, batch)
    ...     def __init__(self, schedule):
    ...         self.schedule = schedule
    ...     def __iter__(self):
    ...         return ((step, None) for step in self.schedule)
    >>> progress = Progress(Loader(schedule))
    >>> for step, batch in progress:
    ...     values = progress.values()  # of the step before this one: for a logger, where there is one
    >>> sorted(progress.values())[:5]
    ['baseline_epoch', 'baseline_iteration', 'batch', 'clips_per_second', 'epoch']
    >>> progress.report().steps == len(schedule)
    True

    The bar shows step, baseline's epoch, shape, learning rate, clips per second, the share of the time that was spent
    waiting for batches, and the time left. That is counted from what the shapes to come take: as measured where they
    were trained before, else in proportion to `costs`. It goes to stderr, on the first process and a terminal (or a
    notebook) alone, and needs tqdm; without tqdm there is no bar, and all else is there.

    Time is wall-clock time. A step lasts from the moment its batch is handed out to the moment the next one is asked
    for; what is done inside of ``with progress.apart()`` is counted as evaluation. On a GPU, which works behind the
    program, single steps are inexact and sums are right.

    Parameters
    ----------
    loader
        Gives (step, batch) and has a ``schedule``, as `pymultigrid.torch.Loader` does.
    lr
        The `ScaledLR` (anything with ``get_last_lr()``), to show the learning rate.
    costs
        ``report.costs`` of a preflight: what a clip of (t, h, w) costs relative to the full one. None: its points.
    show
        Whether there is a bar at all.

    Raises
    ------
    TypeError
        `loader` has no schedule, or `lr` no ``get_last_lr``.
    """

    def __init__(
        self,
        loader: Any,
        lr: Any = None,
        *,
        costs: Mapping[tuple[int, int, int], float] | None = None,
        show: bool = True,
    ) -> None:
        if not isinstance(getattr(loader, "schedule", None), Schedule):
            raise TypeError(
                f"loader is a {type(loader).__name__} without a schedule; pass what gives (step, batch) and has the "
                "schedule, a pymultigrid.torch.Loader"
            )
        if lr is not None and not callable(getattr(lr, "get_last_lr", None)):
            raise TypeError(f"lr is a {type(lr).__name__} without get_last_lr(); pass the ScaledLR")
        _arguments.flag("show", show)
        self.loader = loader
        self.schedule: Schedule = loader.schedule
        self._lr = lr
        self._costs = None if costs is None else _arguments.clip_costs(costs)
        self._show = show and getattr(loader, "rank", 0) == 0
        self._spent: dict[tuple[Shape, int], _Spent] = {}
        self._seen: set[tuple[Shape, int]] = set()  # in this process
        self._apart = 0.0
        self._apart_depth = 0
        self._now: _Now | None = None
        self._values: dict[str, float] = {}

    def __len__(self) -> int:
        """Return the loader's length."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Step, Any]]:
        bar = self._bar()
        try:
            asked = perf_counter()
            for step, batch in self.loader:
                now = self._now
                if now is None or now.step.index != step.index:  # else another micro-batch of the same step
                    self._finish(bar)
                    now = self._now = _Now(step, self._rate())
                now.began = perf_counter()
                now.waiting += now.began - asked
                now.apart, now.handed = 0.0, True
                yield step, batch
                asked = self._took()
        finally:
            self._took()
            self._finish(bar)
            if bar is not None:
                bar.close()

    def __getattr__(self, name: str) -> Any:
        # A trainer that asks the loader for its state or its sampler gets the loader's.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.loader, name)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Count what is done inside as evaluation, and not to the step that is trained."""
        began = perf_counter()
        self._apart_depth += 1
        try:
            yield
        finally:
            self._apart_depth -= 1
            if not self._apart_depth:
                seconds = perf_counter() - began
                self._apart += seconds
                if self._now is not None:
                    self._now.apart += seconds

    def values(self) -> dict[str, float]:
        """Return what is known of the step that was trained last, as numbers: for TensorBoard, W&B, MLflow, self.log.

        ``step`` is multigrid's clock, ``baseline_iteration`` and ``baseline_epoch`` are the baseline's, and ``epoch``
        counts the videos that were seen. ``seconds`` of the step exclude ``seconds_waiting`` for its batch;
        ``seconds_left`` is of the whole run. Empty before the first step has ended.
        """
        return dict(self._values)

    def report(self) -> RunReport:
        """Return what each shape took so far, over all that was resumed, and what the baseline would have taken."""
        if self._now is not None and self._now.step.index == self.schedule.stop - 1:
            self._took()  # some loops never ask for what comes after the last batch
            self._finish(None)
        rows = [
            ShapeTime(shape, base, spent.steps, spent.seconds, spent.waiting, spent.each())
            for (shape, base), spent in self._spent.items()
        ]
        return RunReport(self.schedule.whole, tuple(sorted(rows, key=_by_cost)), self._apart)

    def timing(self) -> dict[str, Any]:
        """Return what was measured, JSON-ready, to keep in a checkpoint beside the others' states."""
        rows = [
            [list(shape), base, spent.steps, spent.seconds, spent.waiting, spent.firsts, spent.first_seconds]
            for (shape, base), spent in self._spent.items()
        ]
        return {"rows": rows, "apart": self._apart}

    def load_timing(self, timing: Mapping[str, Any]) -> None:
        """Go on from what `timing` gave, so that the report is of the whole run."""
        try:
            spent = {(Shape(*shape), base): _Spent(steps, *seconds) for shape, base, steps, *seconds in timing["rows"]}
            apart = float(timing["apart"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"timing must be what Progress.timing() gave ({error})") from error
        self._spent, self._apart = spent, apart

    # -- inside --------------------------------------------------------------------------------------------------------

    def _rate(self) -> float | None:
        return None if self._lr is None else float(self._lr.get_last_lr()[0])

    def _took(self) -> float:
        """Count the time since the batch was handed out to its step, once; return the time."""
        ended, now = perf_counter(), self._now
        if now is not None and now.handed:
            now.seconds += max(0.0, ended - now.began - now.apart)
            now.handed = False
        return ended

    def _finish(self, bar: Any) -> None:
        """Count the step that was trained, if there is one, and show it."""
        now, self._now = self._now, None
        if now is None:
            return
        step, schedule, seconds = now.step, self.schedule, now.seconds
        key = step.shape, step.base.b
        spent = self._spent.setdefault(key, _Spent())
        spent.steps += 1
        spent.seconds += seconds
        spent.waiting += now.waiting
        if key not in self._seen:
            self._seen.add(key)
            spent.firsts += 1
            spent.first_seconds += seconds
        b, t, h, w = step.shape
        self._values = {
            "step": step.index,
            "baseline_iteration": step.progress * schedule.baseline_iterations,
            "baseline_epoch": step.progress * schedule.baseline_epochs,
            "epoch": step.first / schedule.samples,
            **dict(zip(("batch", "frames", "height", "width"), (b, t, h, w), strict=True)),
            **({} if now.lr is None else {"lr": now.lr}),
            "lr_scale": step.lr_scale,
            "clips_per_second": b * schedule.processes / (seconds + now.waiting) if seconds + now.waiting else math.inf,
            "seconds": seconds,
            "seconds_waiting": now.waiting,
            "seconds_left": self._left(step.index + 1),
        }
        if bar is not None:
            bar.set_postfix_str(self._line(), refresh=False)
            bar.update(step.index + 1 - schedule.start - bar.n)

    def _left(self, index: int) -> float:
        """Return the seconds that the steps from `index` on will take."""
        measured = sum(spent.each() for spent in self._spent.values())
        scale = measured / sum(self._cost(shape) for shape, _ in self._spent)
        left = 0.0
        for stage in self.schedule.stages:
            for shape, _, count in uses(stage, index):
                spent = self._spent.get((shape, stage.base.b))
                left += count * (spent.each() if spent else scale * self._cost(shape))
        return left

    def _cost(self, shape: Shape) -> float:
        b, t, h, w = shape
        if self._costs is None:
            return float(b * t * h * w)
        return b * self._costs.get((t, h, w), t * h * w / math.prod(tuple(self.schedule.shape)[1:]))

    def _line(self) -> str:
        values, seconds = self._values, sum(spent.seconds + spent.waiting for spent in self._spent.values())
        waiting = sum(spent.waiting for spent in self._spent.values()) / seconds if seconds else 0.0
        shape = Shape(*(int(values[name]) for name in ("batch", "frames", "height", "width")))
        lr = f" lr {values['lr']:.3g}" if "lr" in values else ""
        return (
            f"epoch {values['baseline_epoch']:.1f}/{self.schedule.baseline_epochs:g} {shape}{lr} "
            f"{values['clips_per_second']:.0f} clips/s, {waiting:.0%} waiting, {clock(values['seconds_left'])} left"
        )

    def _bar(self) -> Any:
        tqdm = _tqdm() if self._show else None
        # None: on a terminal only. tqdm's own time left is from the mean of the steps behind.
        layout = "{percentage:3.0f}%|{bar:16}| step {n}/{total} [{elapsed}]{postfix}"
        return tqdm and tqdm(total=len(self.schedule), disable=None, unit="step", mininterval=0.2, bar_format=layout)


def bar(items: Iterable[Item], show: bool, **options: Any) -> Iterable[Item]:
    """Return `items`, with a bar that moves with them where tqdm is installed; `options` are tqdm's."""
    tqdm = _tqdm() if show else None
    return items if tqdm is None else tqdm(items, **options)


def _tqdm() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm


def _by_cost(row: ShapeTime) -> tuple[int, ...]:
    return (-math.prod(row.shape), *row.shape, row.base)


def clock(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
