"""What a schedule refuses, and in which words."""

import math
import re

import pytest
from kinetics import kinetics

from pymultigrid import Schedule, Shape


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
        ({"epoch_factor": -1}, ValueError, "epoch_factor (-1) must be above 0 and finite; the paper's is 1.5"),
        ({"lr_drops": (), "cycles": 0}, ValueError, "cycles (0) must be at least 1"),
        ({"long_cycle": [(0.25, 1.5)]}, ValueError, "long_cycle has the factor 1.5, which must lie in (0, 1]"),
        (
            {"long_cycle": [(0.01, 1)]},
            ValueError,
            "long_cycle has the factor 0.01, which leaves 0.32 of 32 frames; take 0.03125 or more",
        ),
        (
            {"short_cycle": (0.03,), "multiple_of": 14},
            ValueError,
            "short_cycle has the factor 0.03, which leaves 6.72 of 224 rows; take 0.0625 or more",
        ),
        ({"long_cycle": [(0.25,)]}, ValueError, "long_cycle has (0.25,); a factor is (temporal, spatial) or (t, h, w)"),
        ({"long_cycle": ()}, ValueError, "long_cycle is empty; pass None to turn it off"),
        ({"short_cycle": (0,)}, ValueError, "short_cycle has the factor 0, which must lie in (0, 1]"),
        ({"short_cycle": ()}, ValueError, "short_cycle is empty; pass None to turn it off"),
        ({"batch_growth": 2}, ValueError, "batch_growth (2) must lie in [0, 1]"),
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
        ({"samples": 2**60}, ValueError, "above 2^53: more than can be counted exactly"),
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
        Schedule.from_epochs((8, 32, 224, 224), samples=10, epochs=1)
    with pytest.raises(
        ValueError, match=re.escape("lr_drops (40000.0, 30000.0) must increase, above 0 and below iter")
    ):
        Schedule(shape, iterations=50_000, lr_drops=(40_000, 30_000))
    with pytest.raises(TypeError, match=re.escape("h (224.0) must be a whole number")):
        Shape(8, 32, 224.0, 224)
    for name, wrong in (("lr_drops", 3), ("short_cycle", 0.5), ("long_cycle", (0.5, 1))):
        with pytest.raises(TypeError, match=rf"{name} \(.*\) must be a sequence of numbers"):
            kinetics(**{name: wrong})
    with pytest.raises(ValueError, match=re.escape("lr_drops has 1234567 after 1234568; the drops must increase")):
        kinetics(epochs=10**8, lr_drops=(1234568, 1234567))
    with pytest.raises(IndexError, match=re.escape("step 262266 of a schedule of 262266 steps")):
        kinetics()[262_266]
    with pytest.raises(ValueError, match=re.escape("a schedule is sliced with step 1, not 2")):
        kinetics()[::2]
    with pytest.raises(ValueError, match=re.escape("phases is empty; pass at least one (epochs, shape)")):
        Schedule.from_phases(shape, [], samples=10)
    with pytest.raises(ValueError, match=re.escape("a phase of 16x32x224x224 costs 2 times the baseline")):
        Schedule.from_phases(shape, [(1, Shape(16, 32, 224, 224))], samples=10)
    with pytest.raises(ValueError, match=re.escape("a phase's height (209) must be a multiple of multiple_of (32)")):
        Schedule.from_phases(shape, [(1, Shape(9, 32, 209, 209))], samples=10, multiple_of=32)
    with pytest.raises(ValueError, match=re.escape("a phase's batch (7) must be a multiple of batch_multiple_of (4)")):
        Schedule.from_phases(shape, [(1, Shape(7, 32, 224, 224))], samples=10, batch_multiple_of=4)
    with pytest.raises(TypeError, match=re.escape("must be (epochs, shape) or (epochs, (t, h, w))")):
        Schedule.from_phases(shape, [shape.b], samples=10)
    with pytest.raises(ValueError, match=re.escape("start ((2, 0.5)) must be fractions of the full shape, in (0, 1]")):
        Schedule.progressive(shape, samples=10, epochs=1, start=(2, 0.5))
    with pytest.raises(ValueError, match=re.escape("a phase of 64x224x224 exceeds the baseline's 32x224x224")):
        Schedule.from_phases(shape, [(1, (64, 224, 224))], samples=10)
    with pytest.raises(ValueError, match=re.escape("state has version 2; this pymultigrid reads 1: update it")):
        Schedule.from_dict({**kinetics().to_dict(), "version": 2})
    with pytest.raises(ValueError, match=re.escape("stages (1) must be at least 2")):
        Schedule.progressive(shape, samples=10, epochs=1, stages=1)


def test_wrong_arguments_are_answered_in_words():
    for arguments in ((8, 32, 32), ([8, 8, 32, 32],), ("8x8x32x32",)):
        with pytest.raises(TypeError, match=re.escape("Shape takes four whole numbers, clips, frames, height, width")):
            Shape(*arguments)
    with pytest.raises(TypeError, match=re.escape("write Shape(8, 8, 32, 32)")):
        Schedule.from_epochs((8, 8, 32, 32), samples=10, epochs=1)
    with pytest.raises(TypeError, match=re.escape("short_side, area or aspect, each a pair (low, high)")):
        kinetics()[0].grid((300, 256, 340), seed=0, sample=0, short_side=256)


def test_more_than_can_be_counted_is_refused():
    for shape, processes in ((Shape(2**32, 1, 8, 8), 2**32), (Shape(2**40, 1, 1, 1), 2**30)):
        with pytest.raises(ValueError, match=re.escape("above 2^53: more than can be counted exactly")):
            Schedule.from_epochs(shape, samples=1000, epochs=3, processes=processes)
    with pytest.raises(ValueError, match=re.escape("above 2^53: more than can be counted exactly; take a smaller one")):
        Schedule.from_epochs(Shape(2**62, 8, 8, 8), samples=1000, epochs=3)


def test_damaged_states_are_refused():
    state = kinetics().to_dict()
    for damage in (
        {"clock": []},
        {"stages": []},
        {"steps": [0, 10**9]},
        {"steps": [5, 3]},
        {"stages": [{**state["stages"][0], "shapes": []}]},
        {"stages": state["stages"][::-1]},
        {"shape": [8, 32]},
    ):
        with pytest.raises(ValueError, match="damaged"):
            Schedule.from_dict({**state, **damage})
    with pytest.raises(ValueError, match=re.escape("state is damaged (KeyError('stages'))")):
        Schedule.from_dict({"version": 1})


def test_without_samples_no_video_has_a_place():
    schedule = Schedule(Shape(8, 4, 32, 32), iterations=1000)
    for copied in (schedule, Schedule.from_dict(schedule.to_dict()), schedule[5:], schedule.with_processes(2)):
        with pytest.raises(ValueError, match=re.escape("the schedule was made without samples=; pass")):
            copied.sample(0, seed=0)
