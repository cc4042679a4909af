import re

import pytest

from pymultigrid import Schedule, Shape, mini_batch

SCHEDULE = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10, lr_drops=(5,), processes=2)


def test_the_mini_batches_are_the_stream():
    positions = [sample.position for step in SCHEDULE for sample in mini_batch(SCHEDULE, step, seed=3)]
    assert positions == list(range(SCHEDULE.clips))
    first = [sample.index for step in SCHEDULE.epoch(0) for sample in mini_batch(SCHEDULE, step, seed=3)]
    assert sorted(first[:100]) == list(range(100))


def test_ranks_divide_a_mini_batch():
    for step in SCHEDULE:
        whole = mini_batch(SCHEDULE, step, seed=0)
        assert [s for rank in (0, 1) for s in mini_batch(SCHEDULE, step, seed=0, rank=rank)] == list(whole)
        assert len(whole) == 2 * step.shape.b


def test_refusals():
    with pytest.raises(ValueError, match=re.escape("seed (-1) must lie in [0, 2**64); take it modulo 2**64")):
        mini_batch(SCHEDULE, SCHEDULE[0], seed=-1)
    with pytest.raises(ValueError, match=re.escape("rank (2) must lie in [0, 2), the schedule's processes; build")):
        mini_batch(SCHEDULE, SCHEDULE[0], seed=0, rank=2)
    with pytest.raises(TypeError, match=re.escape("seed ('0') must be a whole number")):
        mini_batch(SCHEDULE, SCHEDULE[0], seed="0")
    uncounted = Schedule(Shape(4, 16, 112, 112), iterations=100)
    with pytest.raises(ValueError, match=re.escape("the schedule was made without samples=; pass the number of")):
        mini_batch(uncounted, uncounted[0], seed=0)
