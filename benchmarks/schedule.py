"""Time and size of the schedule core.

The targets are 1 s for a million steps, and 1 ms and 10 kB for a schedule of ten million.
"""

from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Callable

from pymultigrid import Progressive, Schedule, Shape

MILLION = 1_000_000


def median_seconds(run: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def kinetics(iterations: int) -> Schedule:
    """Plan a Kinetics-like run whose own length is about `iterations`."""
    baseline = round(iterations * 3.42)
    drops = tuple(round(baseline * drop / 239) for drop in (94, 154, 196))
    return Schedule(Shape(8, 32, 224, 224), iterations=baseline, lr_drops=drops, samples=240_436)


def iterate(schedule: Schedule) -> None:
    for _ in schedule:
        pass


def main() -> None:
    million, ten_million = kinetics(MILLION), kinetics(10 * MILLION)
    per_million = median_seconds(lambda: iterate(million)) * MILLION / len(million)
    access = median_seconds(lambda: [ten_million[i * 100] for i in range(10_000)]) / 10_000
    step, extent = million[0], (300, 256, 340)
    draws = median_seconds(lambda: [step.grid(extent, seed=0, sample=i, flip=0.5) for i in range(10_000)]) / 10_000
    order = median_seconds(lambda: [million.sample(i, seed=0) for i in range(10_000)]) / 10_000
    print(f"a million steps               {per_million:.2f} s")
    print(f"build {len(ten_million):,} iterations   {median_seconds(lambda: kinetics(10 * MILLION)) * 1e3:.3f} ms")
    print(f"pickled                       {len(pickle.dumps(ten_million)):,} bytes")
    plan = Progressive(stages=300)
    ramp = median_seconds(lambda: Schedule(Shape(8, 16, 224, 224), samples=10_000, epochs=300, plan=plan))
    print(f"build a ramp of 300 stages    {ramp * 1e3:.3f} ms")
    print(f"schedule[i]                   {access * 1e6:.2f} us")
    print(f"step.grid(...)                {draws * 1e6:.2f} us")
    print(f"schedule.sample(position)     {order * 1e6:.2f} us")


if __name__ == "__main__":
    main()
