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

_BETWEEN = 0.2  # seconds between drawings of the bar


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
    lr: Any
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
        self._last: _Now | None = None
        self._shown = 0.0  # when the bar was drawn last

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
                    self._finish()
                    self._draw(bar)
                    now = self._now = _Now(step, self._rate())
                now.began = perf_counter()
                now.waiting += now.began - asked
                now.apart, now.handed = 0.0, True
                yield step, batch
                asked = self._took()
        finally:
            self._took()
            self._finish()
            self._draw(bar, close=True)

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

    def values(self) -> dict[str, Any]:
        """Return what is known of the step that was trained last, as numbers: for TensorBoard, W&B, MLflow, self.log.

        ``step`` is multigrid's clock, ``baseline_iteration`` and ``baseline_epoch`` are the baseline's, and ``epoch``
        counts the videos that were seen. ``seconds`` of the step exclude ``seconds_waiting`` for its batch;
        ``seconds_left`` is of the whole run. Empty before the first step has ended.
        """
        if self._last is None:
            return {}
        step, schedule, seconds = self._last.step, self.schedule, self._last.seconds
        b, t, h, w = step.shape
        whole = seconds + self._last.waiting
        return {
            "step": step.index,
            "baseline_iteration": step.progress * schedule.baseline_iterations,
            "baseline_epoch": step.progress * schedule.baseline_epochs,
            "epoch": step.first / schedule.samples,
            **{"batch": b, "frames": t, "height": h, "width": w},
            **({} if self._last.lr is None else {"lr": float(self._last.lr)}),
            "lr_scale": step.lr_scale,
            "clips_per_second": b * schedule.processes / whole if whole else math.inf,
            "seconds": seconds,
            "seconds_waiting": self._last.waiting,
            "seconds_left": self._left(step.index + 1),
        }

    def report(self) -> RunReport:
        """Return what each shape took so far, over all that was resumed, and what the baseline would have taken."""
        if self._now is not None and self._now.step.index == self.schedule.stop - 1:
            self._took()  # some loops never ask for what comes after the last batch
            self._finish()
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

    def _rate(self) -> Any:
        # A tensor stays one until somebody asks: the program would wait for the GPU.
        return None if self._lr is None else self._lr.get_last_lr()[0]

    def _took(self) -> float:
        """Count the time since the batch was handed out to its step, once; return the time."""
        ended, now = perf_counter(), self._now
        if now is not None and now.handed:
            now.seconds += max(0.0, ended - now.began - now.apart)
            now.handed = False
        return ended

    def _finish(self) -> None:
        """Count the step that was trained, if there is one."""
        now, self._now = self._now, None
        if now is None:
            return
        key = now.step.shape, now.step.base.b
        spent = self._spent.setdefault(key, _Spent())
        spent.steps += 1
        spent.seconds += now.seconds
        spent.waiting += now.waiting
        if key not in self._seen:
            self._seen.add(key)
            spent.firsts += 1
            spent.first_seconds += now.seconds
        self._last = now

    def _draw(self, bar: Any, *, close: bool = False) -> None:
        """Draw the bar, now and then; what it says is worked out for that alone."""
        if bar is None:
            return
        if self._last is not None and (close or perf_counter() - self._shown > _BETWEEN):
            self._shown = perf_counter()
            bar.n = self._last.step.index + 1 - self.schedule.start
            bar.set_postfix_str(self._line(bar))
        if close:
            bar.close()

    def _left(self, index: int) -> float:
        """Return the seconds that the steps from `index` on will take."""
        measured = sum(spent.each() for spent in self._spent.values())
        scale = measured / sum(self._cost(shape) for shape, _ in self._spent)
        left = 0.0
        for stage in self.schedule.stages:
            for shape, _, count in uses(stage, index) if stage.stop > index else ():
                spent = self._spent.get((shape, stage.base.b))
                left += count * (spent.each() if spent else scale * self._cost(shape))
        return left

    def _cost(self, shape: Shape) -> float:
        b, t, h, w = shape
        if self._costs is None:
            return float(b * t * h * w)
        return b * self._costs.get((t, h, w), t * h * w / math.prod(tuple(self.schedule.shape)[1:]))

    def _line(self, bar: Any) -> str:
        values, seconds = self.values(), sum(spent.seconds + spent.waiting for spent in self._spent.values())
        waiting = sum(spent.waiting for spent in self._spent.values()) / seconds if seconds else 0.0
        shape = Shape(*(values[name] for name in ("batch", "frames", "height", "width")))
        lr = f" lr {values['lr']:.3g}" if "lr" in values else ""
        left = bar.format_interval(values["seconds_left"])
        return (
            f"epoch {values['baseline_epoch']:.1f}/{self.schedule.baseline_epochs:g} {shape}{lr} "
            f"{values['clips_per_second']:.0f} clips/s, {waiting:.0%} waiting, {left} left"
        )

    def _bar(self) -> Any:
        tqdm = _tqdm() if self._show else None
        if tqdm is None:
            return None
        # None: on a terminal only. tqdm's own time left is from the mean of the steps behind.
        layout = "{percentage:3.0f}%|{bar:16}| step {n}/{total} [{elapsed}]{postfix}"
        made = tqdm(total=len(self.schedule), disable=None, unit="step", bar_format=layout)
        return None if made.disable else made


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
