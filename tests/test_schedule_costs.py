"""Measured costs of clips in the schedule: they decide the batches, and nothing else."""

import json
import math
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinetics import kinetics

from pymultigrid import LONG_CYCLE, SHORT_CYCLE, Cycles, Phases, Progressive, Schedule, Shape

RESOLUTION = 1.01


def clips(schedule):
    return {(shape.t, shape.h, shape.w) for stage in schedule.stages for shape in stage.shapes}


def nominal(schedule):
    return {clip: math.prod(clip) for clip in clips(schedule)}


def overhead(schedule, share):
    """Clips of which a share of the cost does not shrink with their size."""
    full = math.prod(tuple(schedule.shape)[1:])
    return {clip: share + (1 - share) * math.prod(clip) / full for clip in clips(schedule)}


def test_nominal_costs_change_no_batch_of_the_paper():
    plain = kinetics()
    assert [s.shapes for s in kinetics(costs=nominal(plain)).stages] == [s.shapes for s in plain.stages]


def test_the_unit_does_not_matter():
    costs = overhead(kinetics(), 0.05)
    assert kinetics(costs=costs) == kinetics(costs={clip: cost * 64 for clip, cost in costs.items()})


def test_batches_follow_what_was_measured():
    plain = kinetics()
    costs = overhead(plain, 0.05)
    schedule = kinetics(costs=costs)
    for stage, before in zip(schedule.stages, plain.stages, strict=True):
        for shape, was in zip(stage.shapes, before.shapes, strict=True):
            assert tuple(shape)[1:] == tuple(was)[1:]
            cost = costs[tuple(shape)[1:]]
            # The largest that costs no more than the full shape, to the clip.
            assert shape.b * cost <= 8 * RESOLUTION < (shape.b + 1) * cost
    assert schedule.stages[0].base.b == 48 < plain.stages[0].base.b == 64
    assert schedule.stages[-1].base == schedule.shape == plain.shape
    assert {stage.lr_scale for stage in schedule.stages} == {48 / 8, 28 / 8, 15 / 8, 1}
    assert len(schedule.shapes) == len(clips(schedule))  # and no clip in two batches, which compilers would see


def test_all_stages_of_a_cycle_get_the_same_iterations():
    schedule = kinetics(costs=overhead(kinetics(), 0.1))
    for k in range(3):
        steps = [stage.stop - stage.start for stage in schedule.stages[4 * k : 4 * k + 4]]
        assert max(steps) - min(steps) <= 3
    assert schedule.stages[-1].end_epoch == kinetics().stages[-1].end_epoch


def test_multiples_and_growth_hold():
    options = {"batch_multiple_of": 8, "multiple_of": 16}
    costs = overhead(kinetics(**options), 0.1)
    schedule = kinetics(**options, costs=costs)
    assert all(shape.b % 8 == 0 for shape in schedule.shapes)
    assert {shape.b for shape in kinetics(costs=overhead(kinetics(), 0.1), batch_growth=0).shapes} == {8}
    half = kinetics(costs=overhead(kinetics(), 0.1), batch_growth=0.5)
    assert half.stages[0].base.b == int(8 * (1 / (0.1 + 0.9 * 8 * 158**2 / (32 * 224**2))) ** 0.5 * RESOLUTION)


def test_a_clip_dearer_than_the_full_one_keeps_the_batch():
    costs = {**nominal(kinetics()), (8, 112, 112): 1e9}
    assert kinetics(costs=costs).stages[0].shapes[0].b == kinetics().stages[0].base.b


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_step_is_dearer_than_the_full_shape(data):
    """Whatever was measured, as long as a smaller clip is not dearer than a larger one."""
    options = {
        "samples": 500,
        "epochs": 10,
        "processes": data.draw(st.integers(1, 3)),
        "plan": Cycles(
            long=data.draw(st.sampled_from([None, LONG_CYCLE, [(0.5, 0.5), (1, 1)]])),
            short=data.draw(st.sampled_from([None, SHORT_CYCLE])),
        ),
        "batch_growth": data.draw(st.sampled_from([0.0, 0.5, 1.0])),
        "batch_multiple_of": data.draw(st.sampled_from([1, 2])),
    }
    shape = Shape(2 * data.draw(st.integers(1, 9)), 16, 64, 48)
    found = sorted(clips(Schedule(shape, **options)), key=math.prod)
    measured = sorted(data.draw(st.lists(st.floats(0.01, 1), min_size=len(found), max_size=len(found))))
    costs = dict(zip(found, measured, strict=True))
    schedule = Schedule(shape, **options, costs=costs)
    full = shape.b * costs[tuple(shape)[1:]]
    for stage in schedule.stages:
        for each in stage.shapes:
            cost = costs[tuple(each)[1:]]
            assert each.b * cost <= full * RESOLUTION * (1 + 1e-12)
            assert each.b >= stage.base.b >= shape.b
            assert each.b % options["batch_multiple_of"] == 0
    assert Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule


def test_the_plan_keeps_its_batches():
    """Costs make the plan and are no part of it."""
    schedule = kinetics(costs=nominal(kinetics()))
    assert schedule == kinetics()
    assert "costs" not in schedule.to_dict()
    assert schedule.with_processes(4).stages[0].base.b == 2 * schedule.stages[0].base.b


def test_every_plan_takes_costs():
    shape = Shape(8, 16, 64, 64)
    for make in (
        lambda **o: Schedule(shape, iterations=1000, **o),
        lambda **o: Schedule(shape, samples=100, plan=Phases([(5, (4, 32, 32)), (5, (16, 64, 64))]), **o),
        lambda **o: Schedule(shape, samples=100, epochs=10, plan=Progressive(), **o),
    ):
        costs = overhead(make(), 0.2)
        batches = [stage.base.b for stage in make(costs=costs).stages]
        assert batches == [int(8 / costs[tuple(stage.base)[1:]] * RESOLUTION) for stage in make().stages]


def test_a_phase_of_ones_own_keeps_to_the_measured_budget():
    shape, phase = Shape(8, 16, 64, 64), Shape(32, 16, 32, 32)
    rules = {"samples": 100, "costs": {(16, 64, 64): 1.0, (16, 32, 32): 0.5}}
    with pytest.raises(
        ValueError,
        match=re.escape(
            "a phase of 32x16x32x32 costs 2 times the baseline; at most 1.05 fits its memory: take a batch of 16"
        ),
    ):
        Schedule(shape, plan=Phases([(5, phase), (5, shape)]), **rules)
    fitting = Schedule(shape, plan=Phases([(5, Shape(16, 16, 32, 32)), (5, shape)]), **rules)
    assert [stage.base.b for stage in fitting.stages] == [16, 8]


@pytest.mark.parametrize(
    ("costs", "error", "message"),
    [
        ({}, ValueError, "costs is empty; pass None to count sampling points"),
        ({(8, 112): 1.0}, TypeError, "costs ({(8, 112): 1.0}) must map each clip's (t, h, w) to a number"),
        ({(8, 112, 112.5): 1.0}, TypeError, "must map each clip's (t, h, w) to a number"),
        ([1.0], TypeError, "costs ([1.0]) must map each clip's (t, h, w) to a number"),
        ({(32, 224, 224): 0.0}, ValueError, "costs has 0 for a clip of 32x224x224; a cost must be above 0 and finite"),
        ({(32, 224, 224): math.nan}, ValueError, "costs has nan for a clip of 32x224x224"),
        (
            {(8, 112, 112): 1.0},
            ValueError,
            "costs has no clip of 32x224x224; it must have every clip size of the schedule",
        ),
        (
            {(32, 224, 224): 1.0},
            ValueError,
            "costs has no clip of 32x112x112; it must have every clip size of the schedule",
        ),
    ],
)
def test_refuses(costs, error, message):
    with pytest.raises(error, match=re.escape(message)):
        kinetics(costs=costs)


def test_batches_beyond_counting_are_refused():
    costs = {**nominal(kinetics()), (8, 112, 112): 1e-300}
    with pytest.raises(ValueError, match=re.escape("above 2^53: more than can be counted exactly")):
        kinetics(costs=costs)
