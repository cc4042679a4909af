"""What a schedule refuses, and in which words."""

import math
import re

import pytest
from kinetics import kinetics

from pymultigrid import Cycles, Phases, Schedule, Shape


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr_drops": (154, 94)}, ValueError, "lr_drops has 94 after 154; the drops must increase"),
        ({"lr_drops": (94, 239)}, ValueError, "lr_drops has 239 after 94; the drops must increase"),
        ({"epochs": 0}, ValueError, "epochs (0) must be above 0 and finite"),
        ({"epochs": math.nan}, ValueError, "epochs (nan) must be above 0 and finite"),
        ({"samples": 0}, ValueError, "samples (0) must be at least 1"),
        ({"samples": 10.5}, TypeError, "samples (10.5) must be a whole number"),
        ({"processes": 0}, ValueError, "processes (0) must be at least 1"),
        (
            {"plan": Cycles(long=[(0.01, 1)])},
            ValueError,
            "long has the factor 0.01, which leaves 0.32 of 32 frames; take 0.03125 or more",
        ),
        (
            {"plan": Cycles(short=(0.03,)), "multiple_of": 14},
            ValueError,
            "short has the factor 0.03, which leaves 6.72 of 224 rows; take 0.0625 or more",
        ),
        (
            {"plan": Cycles(cycles=5)},
            ValueError,
            "cycles (5) and lr_drops (94.0, 154.0, 196.0) both choose the number of long cycles, of which one runs "
            "before each drop; leave one of them out",
        ),
        ({"plan": Cycles}, TypeError, "must be Cycles(...), Phases([...]) or Progressive(...)"),
        ({"lr_drops": "35"}, TypeError, "lr_drops ('35') must be a sequence of numbers"),
        ({"lr_drops": ["35"]}, TypeError, "a number of lr_drops ('35') must be a number"),
        ({"epochs": "10"}, TypeError, "epochs ('10') must be a number"),
        ({"samples": "10"}, TypeError, "samples ('10') must be a whole number"),
        ({"batch_growth": "1"}, TypeError, "batch_growth ('1') must be a number"),
        ({"batch_growth": 2}, ValueError, "batch_growth (2) must lie in [0, 1]"),
        ({"lr_scaling": ["sqrt"]}, ValueError, "lr_scaling (['sqrt']) must be one of 'linear', 'sqrt', 'none'"),
        ({"lr_scaling": "cubic"}, ValueError, "lr_scaling ('cubic') must be one of 'linear', 'sqrt', 'none'"),
        (
            {"multiple_of": 15},
            ValueError,
            "the baseline's height (224) must be a multiple of multiple_of (15); take 210 or 225",
        ),
        ({"batch_multiple_of": 3}, ValueError, "the baseline's batch (8) must be a multiple of batch_multiple_of (3)"),
        (
            {"frames_multiple_of": 5},
            ValueError,
            "the baseline's frames (32) must be a multiple of frames_multiple_of (5)",
        ),
        ({"samples": 2**60}, ValueError, "samples (1152921504606846976) must be at most 1099511627776"),
    ],
)
def test_refuses(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        kinetics(**options)


def test_refuses_other_input():
    shape = Shape(8, 32, 224, 224)
    with pytest.raises(ValueError, match=re.escape("t (0) must be at least 1")):
        Shape(8, 0, 224, 224)
    with pytest.raises(TypeError, match=re.escape("shape ((8, 32, 224, 224)) must be a Shape; write Shape(8")):
        Schedule((8, 32, 224, 224), samples=10, epochs=1)
    with pytest.raises(
        ValueError, match=re.escape("lr_drops (40000.0, 30000.0) must increase, above 0 and below iter")
    ):
        Schedule(shape, iterations=50_000, lr_drops=(40_000, 30_000))
    with pytest.raises(TypeError, match=re.escape("h (224.0) must be a whole number")):
        Shape(8, 32, 224.0, 224)
    with pytest.raises(TypeError, match=re.escape("lr_drops (3) must be a sequence of numbers")):
        kinetics(lr_drops=3)
    with pytest.raises(ValueError, match=re.escape("lr_drops has 1234567 after 1234568; the drops must increase")):
        kinetics(epochs=10**8, lr_drops=(1234568, 1234567))
    with pytest.raises(IndexError, match=re.escape("step 262266 of a schedule of 262266 steps")):
        kinetics()[262_266]
    with pytest.raises(ValueError, match=re.escape("a schedule is sliced with step 1, not 2")):
        kinetics()[::2]


def test_refuses_phases_that_do_not_fit():
    shape = Shape(8, 32, 224, 224)

    def phases(phase, **options):
        Schedule(shape, samples=10, plan=Phases([(1, phase)]), **options)

    with pytest.raises(ValueError, match=re.escape("a phase of 16x32x224x224 costs 2 times the baseline")):
        phases(Shape(16, 32, 224, 224))
    with pytest.raises(ValueError, match=re.escape("a phase's height (209) must be a multiple of multiple_of (32)")):
        phases(Shape(9, 32, 209, 209), multiple_of=32)
    with pytest.raises(ValueError, match=re.escape("a phase's batch (7) must be a multiple of batch_multiple_of (4)")):
        phases(Shape(7, 32, 224, 224), batch_multiple_of=4)
    with pytest.raises(ValueError, match=re.escape("a phase of 64x224x224 exceeds the baseline's 32x224x224")):
        phases((64, 224, 224))


def test_one_argument_chooses_the_length():
    shape, phases = Shape(8, 32, 224, 224), Phases([(3, (16, 112, 112)), (1, (32, 224, 224))])
    one_of = "one of epochs= (with samples=) and iterations= is the baseline's length; you passed "
    for options, message in (
        ({}, one_of + "neither"),
        ({"samples": 10}, one_of + "neither"),
        ({"samples": 10, "epochs": 1, "iterations": 2}, one_of + "epochs=1 and iterations=2"),
        ({"epochs": 1}, "samples is missing: pass the number of videos in an epoch, or plan in iterations="),
        ({"plan": phases}, "samples is missing"),
        ({"plan": phases, "samples": 9, "epochs": 2}, "epochs=2 and Phases, of 4 epochs, both choose the length"),
        ({"plan": phases, "samples": 9, "iterations": 2}, "iterations=2 and Phases, of 4 epochs, both choose the"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            Schedule(shape, **options)


def test_wrong_arguments_are_answered_in_words():
    for arguments in ((8, 32, 32), ([8, 8, 32, 32],), ("8x8x32x32",)):
        with pytest.raises(TypeError, match=re.escape("Shape takes four whole numbers, clips, frames, height, width")):
            Shape(*arguments)
    with pytest.raises(TypeError, match=re.escape("write Shape(8, 8, 32, 32)")):
        Schedule((8, 8, 32, 32), samples=10, epochs=1)
    with pytest.raises(TypeError, match=re.escape("short_side (256) must be a pair (low, high)")):
        kinetics()[0].grid((300, 256, 340), seed=0, sample=0, short_side=256)


def test_more_than_can_be_counted_is_refused():
    for shape, processes in ((Shape(2**32, 1, 8, 8), 2**22), (Shape(2**40, 1, 1, 1), 2**20)):
        with pytest.raises(ValueError, match=re.escape("above 2^53: more than can be counted exactly")):
            Schedule(shape, samples=1000, epochs=3, processes=processes)
    with pytest.raises(ValueError, match=re.escape("above 2^53: more than can be counted exactly; take a smaller one")):
        Schedule(Shape(2**40, 2**10, 8, 8), samples=1000, epochs=3)


@pytest.mark.parametrize(
    "damage",
    [
        {"clock": []},
        {"stages": []},
        {"start": 0, "stop": 10**9},
        {"start": 5, "stop": 3},
        {"start": "0"},
        {"shape": [8, 32]},
        {"shape": [8, 16, 224, 224]},
        {"samples": 0},
        {"samples": "240436"},
        {"processes": 0},
        {"baseline_epochs": 240.0},
        {"baseline_epochs": None},
        {"cycles": 3},
        {"stages": 3},
    ],
)
def test_damaged_states_are_refused(damage):
    with pytest.raises(ValueError, match="state is damaged"):
        Schedule.from_dict({**kinetics().to_dict(), **damage})


@pytest.mark.parametrize(
    ("part", "number", "damage"),
    [
        ("stages", 0, {"shapes": []}),
        ("stages", 0, {"shapes": [[8, 32, 224]]}),
        ("stages", 0, {"shapes": [[8, 32, 225, 224]]}),
        ("stages", 0, {"end_epoch": math.nan}),
        ("stages", 1, {"end_epoch": 1.0}),
        ("stages", 12, {"end_epoch": math.inf}),
        ("stages", 0, {"lr_scale": 0.0}),
        ("stages", 0, {"lr_scale": math.inf}),
        ("stages", 0, {"lr_scale": "8"}),
        ("stages", 0, {"long": -1}),
        ("stages", 0, {"long": 0.5}),
        ("stages", 0, {"short": 0}),
        ("clock", 1, {"end_epoch": 1.0}),
        ("clock", 1, {"end_epoch": math.nan}),
        ("clock", 3, {"end_epoch": 400.0}),
        ("clock", 1, {"baseline_epoch": 94.0}),
        ("clock", 3, {"baseline_epoch": 240.0}),
        ("clock", 1, {"lr_stage": 0.5}),
        ("clock", 1, {"lr_stage": -1}),
        ("clock", 1, {"lr_stage": 3}),
    ],
)
def test_a_damaged_part_of_a_state_is_refused(part, number, damage):
    state = kinetics().to_dict()
    state[part][number].update(damage)
    with pytest.raises(ValueError, match="state is damaged"):
        Schedule.from_dict(state)


@pytest.mark.parametrize("part", ["stages", "clock"])
def test_a_state_that_lacks_a_name_is_refused(part):
    state = kinetics().to_dict()
    for name in set(state) - {"version"}:
        with pytest.raises(ValueError, match="state is damaged"):
            Schedule.from_dict({key: value for key, value in state.items() if key != name})
    for name in state[part][0]:
        first = {key: value for key, value in state[part][0].items() if key != name}
        with pytest.raises(ValueError, match="state is damaged"):
            Schedule.from_dict({**state, part: [first, *state[part][1:]]})


def test_states_of_other_versions_are_refused_by_name():
    state = kinetics().to_dict()
    for version, message in (
        (1, "state has version 1; this pymultigrid reads 2: it is from before the first release; plan again"),
        (3, "state has version 3; this pymultigrid reads 2: update it"),
        (None, "state has version None; this pymultigrid reads 2: update it"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            Schedule.from_dict({**state, "version": version})
    with pytest.raises(
        ValueError, match=re.escape("state has no 'version'; it must be what Schedule.to_dict returned")
    ):
        Schedule.from_dict({})
    with pytest.raises(TypeError, match=re.escape("state ([]) must be what Schedule.to_dict returned")):
        Schedule.from_dict([])


def test_without_samples_no_video_has_a_place():
    schedule = Schedule(Shape(8, 4, 32, 32), iterations=1000)
    for copied in (schedule, Schedule.from_dict(schedule.to_dict()), schedule[5:], schedule.with_processes(2)):
        with pytest.raises(ValueError, match=re.escape("the schedule was made without samples=; pass")):
            copied.sample(0, seed=0)
