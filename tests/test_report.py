"""The report: what measured costs of shapes say about the run."""

import math
import re

import pytest

from pymultigrid import Cycles, Report, Schedule, Shape, ShapeCost
from pymultigrid._core import uses

FULL = Shape(8, 16, 64, 64)


def plan(**options):
    return Schedule(FULL, **{"samples": 321, "epochs": 20, "lr_drops": (9, 15), **options})


def planned(schedule):
    return sorted({s for stage in schedule.stages for s in stage.shapes}, key=math.prod, reverse=True)


def seconds(shape):
    return 0.01 * shape.b**0.9 + 1e-6 * math.prod(shape)


def report(schedule, **changes):
    """Made-up measurements; `changes` are ShapeCost's fields by the shape's name."""
    rows = []
    for shape in planned(schedule):
        steps = sum(k for stage in schedule.stages for s, _, k in uses(stage) if s == shape)
        values = {"seconds": seconds(shape), "bytes": 1e6 * shape.b, "fits": shape.b, **changes.get(str(shape), {})}
        rows.append(ShapeCost(shape, steps, **values))
    return Report(schedule, "some GPU", 5 * 10**7, tuple(rows))


@pytest.mark.parametrize("options", [{}, {"plan": Cycles(short=None)}, {"samples": 5, "epochs": 7, "lr_drops": ()}])
def test_predictions_are_the_sum_over_the_steps(options):
    schedule = plan(**options)
    found = report(schedule)
    for number, stage in enumerate(schedule.stages):
        steps = list(schedule[stage.start : stage.stop])
        assert found.stage_seconds[number] == pytest.approx(sum(seconds(step.shape) for step in steps))
        for shape, first, count in uses(stage):
            positions = [step.index for step in steps if step.shape == shape]
            same = sum(1 for s in stage.shapes if s == shape)
            assert same > 1 or positions[:1] == [first] * bool(count)
            assert same > 1 or len(positions) == count
        if steps:
            nominal, measured = found.stage_savings[number]
            clips = sum(step.shape.b for step in steps)
            assert nominal == pytest.approx(clips * math.prod(tuple(FULL)[1:]) / sum(math.prod(s.shape) for s in steps))
            assert measured == pytest.approx(clips / 8 * seconds(FULL) / found.stage_seconds[number])
    assert sum(row.iterations for row in found.rows) == len(schedule)
    assert found.seconds == pytest.approx(sum(seconds(step.shape) for step in schedule))
    assert found.speedup == pytest.approx(schedule.baseline_iterations * seconds(FULL) / found.seconds)


def test_as_nominal_where_time_follows_the_sampling_points():
    schedule = plan(processes=3)
    found = report(schedule, **{str(s): {"seconds": math.prod(s) * 1e-6} for s in planned(schedule)})
    assert found.speedup == pytest.approx(schedule.speedup)
    for (nominal, measured), stage in zip(found.stage_savings, schedule.stages, strict=True):
        assert stage.start == stage.stop or measured == pytest.approx(nominal)


def test_costs_are_the_dearer_of_time_and_memory():
    schedule = plan(plan=Cycles(short=None))
    found = report(
        schedule,
        **{
            "64x4x45x45": {"seconds": 2 * seconds(FULL), "bytes": 8e6},
            "32x8x45x45": {"seconds": seconds(FULL), "bytes": 24e6},
        },
    )
    assert found.costs[16, 64, 64] == 1
    assert found.costs[4, 45, 45] == pytest.approx(2 / 8)
    assert found.costs[8, 45, 45] == pytest.approx(3 / 4)
    again = plan(plan=Cycles(short=None), costs=found.costs)
    assert [stage.base.b for stage in again.stages[:4]] == [32, 10, 8, 8]


def test_a_shape_that_does_not_fit_is_named_with_its_step_and_time():
    schedule = plan()
    shape = schedule.stages[1].shapes[0]
    found = report(schedule, **{str(shape): {"fits": 16, "bytes": 9.9e9}})
    step = next(step for step in schedule if step.shape == shape)
    before = sum(seconds(step.shape) for step in schedule[: schedule.stages[1].start])
    (text,) = found.warnings
    assert text.startswith(
        f"{shape} does not fit the memory of some GPU: it needs about 9.95 GB, and 16 of its 64 clips"
    )
    assert (
        f"at step {step.index:,}, in stage 1, {before:.1f} s into the run; plan again with costs=report.costs" in text
    )
    assert f"{shape} (fits 16)" in str(found)
    assert f"warning: {text}" in str(found)


def test_a_baseline_that_does_not_fit_is_told_so():
    found = report(plan(), **{str(FULL): {"fits": 4}})
    assert "the baseline itself does not fit; take a batch of 4 or fewer" in found.warnings[0]
    nan = {"fits": 0, "seconds": math.nan, "bytes": math.nan}
    found = report(plan(), **{str(FULL): nan})
    assert "not even one full clip fits; take a smaller shape" in found.warnings[0]
    assert "unknown" in str(found)


def test_a_shape_without_a_number_is_no_cost():
    schedule = plan(plan=Cycles(short=None))
    found = report(schedule, **{"64x4x45x45": {"fits": 0, "seconds": math.nan, "bytes": math.nan}})
    assert set(found.costs) == {(16, 64, 64), (8, 64, 64), (8, 45, 45)}
    with pytest.raises(ValueError, match=re.escape("costs has no clip of 4x45x45")):
        plan(plan=Cycles(short=None), costs=found.costs)


def test_coarse_maps_and_few_frames_are_warned_of():
    schedule = plan(plan=Cycles(short=None))
    maps = {"8x16x64x64": (2, 4, 4), "16x8x64x64": (1, 4, 4), "32x8x45x45": (1, 3, 3), "64x4x45x45": (1, 3, 3)}
    coarse, short = report(schedule, **{name: {"feature_map": extents} for name, extents in maps.items()}).warnings
    assert coarse.startswith("the network is too coarse for 64x4x45x45, 32x8x45x45: its last feature map is 3x3 at")
    assert short.startswith("fewer frames than the network's temporal stride, 8: 64x4x45x45; take")
    fine = report(schedule, **{name: {"feature_map": (extents[0] * 2, 4, 4)} for name, extents in maps.items()})
    assert fine.warnings == ()
    flat = report(schedule, **{name: {"feature_map": extents[1:]} for name, extents in maps.items()})
    assert flat.warnings == (coarse,)


def test_a_transformer_is_told_of_patches_and_not_of_maps():
    schedule = plan(plan=Cycles(short=None))
    rows = report(schedule, **{str(s): {"feature_map": (1, 2, 2)} for s in planned(schedule)}).rows
    assert len(Report(schedule, "some GPU", 0, rows).warnings) == 2
    (cut,) = Report(schedule, "some GPU", 0, rows, patch=(8, 16, 16)).warnings
    assert cut == (
        "not whole patches of 8x16x16: 64x4x45x45, 32x8x45x45. The rest of each clip is cut off, always at its end, "
        "its right and its lower side; plan with multiple_of=16 and frames_multiple_of=8"
    )
    assert f"warning: {cut}" in str(Report(schedule, "some GPU", 0, rows, patch=(8, 16, 16)))
    whole = Report(schedule, "some GPU", 0, rows, ("a note",), (4, 1, 1))
    assert whole.warnings == ("a note",)


def test_the_full_shapes_own_map_is_the_users_choice():
    schedule = plan(plan=Cycles(long=None, short=None))
    assert report(schedule, **{str(FULL): {"feature_map": (1, 2, 2)}}).warnings == ()


def test_what_is_dear_is_noted():
    schedule = plan(plan=Cycles(short=None))
    found = report(schedule, **{str(s): {"seconds": 1.0, "bytes": 1e6} for s in planned(schedule)})
    assert "note" not in str(found)
    found = report(schedule, **{str(s): {"seconds": 1.0 + (s.t == 4), "bytes": 1e6} for s in planned(schedule)})
    assert "note: costing more than their share: 64x4x45x45, up to 2.00 times the full mini-batch" in str(found)
    assert found.warnings == ()


def test_a_row_is_found_by_its_shape():
    found = report(plan())
    assert found[FULL].seconds == seconds(FULL)
    with pytest.raises(KeyError, match=re.escape("no shape 8x1x1x1 in the report")):
        found[Shape(8, 1, 1, 1)]


def test_workers_that_keep_up():
    schedule = plan(plan=Cycles(short=None))
    found = report(schedule, **{str(s): {"read_seconds": 0.1} for s in planned(schedule)})
    most = max(0.1 / seconds(s) for s in planned(schedule))
    assert f"data: {math.ceil(most)} workers keep up with every shape; {FULL} needs the most" in str(found)
    assert "read by one" in str(found)
