import math
import re

import pytest

from pymultigrid import Cycles, Schedule, Shape
from pymultigrid._clock import Clock

SCHEDULES = [
    Schedule(Shape(4, 16, 112, 112), samples=103, epochs=20, lr_drops=(10, 15)),
    Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=10),
    Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=4, plan=Cycles(long=None, short=None)),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_runs_over_the_baseline_once_and_drops_where_it_drops(schedule):
    clock = Clock(schedule)
    readings = [clock(step) for step in schedule]
    assert readings == sorted(readings)
    assert readings[0] == 0
    assert readings[-1] < schedule.baseline_iterations
    for k, drop in enumerate(schedule.lr_drops, start=1):
        first = next(i for i, step in enumerate(schedule) if step.lr_stage == k)
        iteration = math.ceil(drop * schedule.samples / schedule.shape.b)
        assert readings[first - 1] < iteration <= readings[first]
    assert Clock(schedule[5:])(schedule[7]) == readings[7]


def test_without_cycles_it_is_the_iteration():
    schedule = SCHEDULES[-1]
    assert [Clock(schedule)(step) for step in schedule] == list(range(len(schedule)))


def test_another_word_is_refused():
    with pytest.raises(ValueError, match=re.escape('per (\'step\') must be "iteration" or "epoch"')):
        Clock(SCHEDULES[0], per="step")
