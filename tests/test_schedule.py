import copy
import itertools
import json
import math
import pickle
import re
from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymultigrid import LONG_CYCLE, SHORT_CYCLE, Schedule, Shape

KINETICS = {"samples": 240_436, "epochs": 239, "lr_drops": (94, 154, 196)}


def kinetics(**options):
    return Schedule.from_epochs(Shape(8, 32, 224, 224), **{**KINETICS, "processes": 8, **options})


factors = st.sampled_from([0.25, 0.3, 0.5, 0.5**0.5, 0.8, 1.0])


@st.composite
def phases(draw, shape, multiple_of, frames_multiple_of, batch_multiple_of):
    sizes = st.tuples(*(st.integers((n + 1) // 2, n) for n in (shape.t, shape.h, shape.w)))
    rows = draw(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.7, 5]), sizes), max_size=4))
    total = sum(epochs for epochs, _ in rows) + 1
    return Schedule.from_phases(
        shape,
        [*rows, (1, shape)],
        samples=draw(st.integers(1, 2000)),
        lr_drops=draw(st.sampled_from([(), (0.1,), (total / 2,), (total / 3, total - 1e-3)])),
        short_cycle=draw(st.none() | st.lists(st.sampled_from([0.5, 0.8, 1.0]), min_size=1, max_size=2)),
        processes=draw(st.integers(1, 3)),
        batch_growth=draw(st.sampled_from([0.0, 0.5, 1.0])),
        multiple_of=multiple_of,
        frames_multiple_of=frames_multiple_of,
        batch_multiple_of=batch_multiple_of,
    )


@st.composite
def schedules(draw):
    multiple_of = draw(st.sampled_from([1, 1, 2, 7, 16]))
    frames_multiple_of = draw(st.sampled_from([1, 1, 2]))
    batch_multiple_of = draw(st.sampled_from([1, 1, 2, 3]))
    shape = Shape(
        batch_multiple_of * draw(st.integers(1, 9)),
        frames_multiple_of * draw(st.integers(1, 33)),
        multiple_of * draw(st.integers(1, 20)),
        multiple_of * draw(st.integers(1, 20)),
    )
    if draw(st.integers(0, 4)) == 0:
        return draw(phases(shape, multiple_of, frames_multiple_of, batch_multiple_of))
    epochs = draw(st.sampled_from([0.3, 0.5, 2.5]) | st.integers(1, 40))
    drops = sorted(draw(st.sets(st.integers(1, 39), max_size=3)))
    return Schedule.from_epochs(
        shape,
        samples=draw(st.integers(1, 2000)),
        epochs=epochs,
        lr_drops=[drop for drop in drops if drop < epochs],
        epoch_factor=draw(st.sampled_from([None, 0.3, 1.0, 1.5])),
        cycles=draw(st.integers(1, 4)),
        long_cycle=draw(st.none() | st.lists(st.tuples(factors, factors), min_size=1, max_size=4)),
        short_cycle=draw(st.none() | st.lists(factors, min_size=1, max_size=3)),
        processes=draw(st.integers(1, 3)),
        batch_growth=draw(st.sampled_from([0.0, 0.5, 1.0])),
        lr_scaling=draw(st.sampled_from(["linear", "sqrt", "none"])),
        multiple_of=multiple_of,
        frames_multiple_of=frames_multiple_of,
        batch_multiple_of=batch_multiple_of,
    )


def cost(shape):
    return math.prod(shape)


@settings(max_examples=150, deadline=None)
@given(schedules())
def test_stream_of_clips(schedule):
    """Steps own consecutive slices of one stream; a stage is the fewest steps that own the clips planned for it."""
    position = 0
    full = schedule.shape
    for i, step in enumerate(schedule[:500]):
        assert (step.index, step.first) == (i, position)
        assert cost(step.shape) <= 1.05 * cost(full)
        assert min(step.shape) >= 1
        assert step.shape.t <= full.t
        assert step.shape.h <= step.base.h <= full.h
        assert step.shape.b >= step.base.b >= 1
        position += step.shape.b * schedule.processes
    last = schedule[-1]
    assert last.shape.t == last.base.t == full.t
    assert (last.shape.h, last.shape.w) == (full.h, full.w)
    assert last.first + last.shape.b * schedule.processes == schedule.clips
    for before, stage in zip((None, *schedule.stages), schedule.stages, strict=False):
        start, first = (0, 0) if before is None else (before.stop, before.last)
        assert (stage.start, stage.first) == (start, first)
        # end_epoch is a running sum: whole numbers of clips are met up to its rounding.
        planned = stage.end_epoch * schedule.samples * (1 - 1e-13)
        assert stage.last >= planned
        if stage.start < stage.stop:
            largest = max(s.b for s in stage.shapes) * schedule.processes
            ends_training = stage == schedule.stages[-1] and stage.stop - stage.start == 1
            assert stage.last - largest < planned * (1 + 1e-12) or ends_training
            assert schedule[stage.stop - 1].shape == stage.base
            assert schedule[stage.start].stage == schedule.stages.index(stage)
        cells = sum(cost(s.shape) for s in schedule[stage.start : stage.stop][:500]) * schedule.processes
        if stage.stop - stage.start <= 500:
            assert stage.cells == cells


@settings(max_examples=100, deadline=None)
@given(schedules(), st.data())
def test_slices_and_values(schedule, data):
    n = len(schedule)
    a = data.draw(st.integers(0, n - 1))
    i = data.draw(st.integers(0, n - a - 1))
    assert schedule[a:][i] == schedule[a + i]
    assert hash(schedule[a:][i]) == hash(schedule[a + i])
    assert len(schedule[a:]) == n - a
    assert schedule[a:].clips + schedule[:a].clips == schedule.clips
    assert next(iter(schedule[a:])) == schedule[a]
    assert schedule[-1] == schedule[n - 1]
    part = schedule[a:]
    for copied in (
        Schedule.from_dict(json.loads(json.dumps(part.to_dict()))),
        pickle.loads(pickle.dumps(part)),
        copy.deepcopy(part),
    ):
        assert copied == part
        assert hash(copied) == hash(part)
        assert copied[i] == schedule[a + i]
    assert (schedule[1:] == schedule) == (n == 0)
    assert schedule != "a schedule"


@settings(max_examples=100, deadline=None)
@given(schedules())
def test_epochs_partition_the_steps(schedule):
    seen = 0
    for e in range(schedule.num_epochs)[:50]:
        part = schedule.epoch(e)
        assert len(part) == 0 or part[0].index == seen
        for step in (*part[:1], *part[-1:]) if len(part) else ():
            assert step.first // schedule.samples == e
        seen += len(part)
    if schedule.num_epochs <= 50:
        assert seen == len(schedule)
    for outside in (-1, schedule.num_epochs, 10**18, 0.5):
        with pytest.raises(ValueError, match=re.escape(f"number ({outside}) must be an epoch of the schedule")):
            schedule.epoch(outside)


@settings(max_examples=150, deadline=None)
@given(schedules())
def test_clock(schedule):
    """progress rises through [0, 1); whole baseline epochs are exact where a learning rate drops."""
    steps = list(schedule[:400])
    progress = [step.progress for step in steps]
    assert progress[0] == 0
    assert all(0 <= a < b < 1 for a, b in itertools.pairwise(progress))
    stages = schedule.stages
    for step in steps:
        stage = stages[step.stage]
        assert bisect_right(schedule.lr_drops, step.progress * schedule.epochs) == step.lr_stage
        assert (step.lr_scale, step.base, step.long) == (stage.lr_scale, stage.base, stage.long)
        assert step.shape == stage.shapes[step.short]
        assert step.lr_stage <= stage.lr_stage
        assert stage is stages[-1] or step.stage == len(stages) - 1 or step.lr_stage <= stages[step.stage + 1].lr_stage


@pytest.mark.parametrize("long_cycle", [None, LONG_CYCLE])
@pytest.mark.parametrize("short_cycle", [None, SHORT_CYCLE])
@pytest.mark.parametrize(("epochs", "drops"), [(239, (94, 154, 196)), (22, (14, 18)), (100, (33, 66, 99)), (7, (3,))])
def test_step_policy_on_the_baselines_clock(long_cycle, short_cycle, epochs, drops):
    """policy(progress * E) drops exactly where lr_stage does, to the step."""
    schedule = Schedule.from_epochs(
        Shape(4, 8, 32, 32),
        samples=997,
        epochs=epochs,
        lr_drops=drops,
        long_cycle=long_cycle,
        short_cycle=short_cycle,
    )
    for step in schedule:
        assert bisect_right(drops, step.progress * schedule.epochs) == step.lr_stage
    assert step.lr_stage == len(drops)


def test_fine_tuning_keeps_the_lr_for_half_of_its_clips():
    schedule = kinetics()
    tuning = schedule.stages[-1]
    drop = next(s for s in schedule[tuning.start :] if s.lr_stage == tuning.lr_stage)
    middle = (schedule.stages[-2].end_epoch + tuning.end_epoch) / 2 * schedule.samples
    assert drop.first >= middle > schedule[drop.index - 1].first
    assert drop.progress * 239 >= 196 > schedule[drop.index - 1].progress * 239


def test_smooth_policies_get_cycles_without_drops():
    """Decision 5: three equal cycles over the first 196 / 239 of the baseline, one LR stage."""
    schedule = kinetics(lr_drops=())
    stages = schedule.stages
    assert len(stages) == 13
    lengths = [b.end_epoch - a.end_epoch for a, b in zip((stages[3], stages[7]), (stages[7], stages[11]), strict=True)]
    assert lengths == pytest.approx([stages[3].end_epoch] * 2)
    assert {s.lr_stage for s in stages} == {0}
    assert len(kinetics(lr_drops=(), cycles=1).stages) == 5
    # A third of the cycles' clips in is a third of 196 baseline epochs in.
    assert schedule[stages[4].start].progress == pytest.approx(196 / 239 / 3)
    middle = (stages[11].last + stages[12].last) / 2
    late = next(s for s in schedule[stages[12].start :] if s.first >= middle)
    assert late.progress == pytest.approx(196 / 239)


def test_baseline_is_plain_training():
    schedule = kinetics(long_cycle=None, short_cycle=None)
    assert len(schedule) == schedule.baseline_iterations == math.ceil(240_436 * 239 / 64)
    assert schedule.speedup == 1
    for i in (0, 1, 1000, len(schedule) - 1):
        assert schedule[i].shape == schedule.shape
        assert schedule[i].lr_scale == 1
        assert schedule[i].progress == pytest.approx(i / len(schedule), abs=1e-6)
    assert len(kinetics(long_cycle=None, short_cycle=None, epoch_factor=2.0)) == math.ceil(240_436 * 478 / 64)


def test_short_cycle_counts_back_from_the_stage_end():
    schedule = kinetics()
    for stage in schedule.stages:
        n = len(stage.shapes)
        assert [s.short for s in schedule[stage.stop - 2 * n : stage.stop]] == [*range(n), *range(n)]


def test_lr_scale_follows_the_long_cycle_only():
    schedule = kinetics()
    steps = schedule[schedule.stages[1].start :][:3]
    assert [s.shape.b for s in steps] == [64, 32, 32]
    assert [s.lr_scale for s in steps] == [4, 4, 4]
    assert kinetics(lr_scaling="sqrt")[0].lr_scale == 8**0.5
    assert kinetics(lr_scaling="none")[0].lr_scale == 1


def test_iterations_are_the_baselines():
    by_epochs = kinetics(processes=1, samples=8 * 1000, epochs=100, lr_drops=(50, 80))
    by_iterations = Schedule(Shape(8, 32, 224, 224), iterations=100_000, lr_drops=(50_000, 80_000), samples=8 * 1000)
    assert by_iterations == by_epochs
    alone = Schedule(Shape(8, 32, 224, 224), iterations=100_000, lr_drops=(50_000, 80_000))
    assert (alone.samples, alone.epochs, alone.baseline_iterations) == (8, 100_000, 100_000)
    assert len(alone) == pytest.approx(len(by_epochs), abs=len(alone.stages))


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_iterations_are_counted_to_the_step(data):
    """A plain run of n iterations has n steps and drops at the iterations it was told, whatever an epoch is."""
    n = data.draw(st.integers(2, 5000))
    drops = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=3)))
    schedule = Schedule(
        Shape(data.draw(st.integers(1, 64)), 4, 32, 32),
        iterations=n,
        lr_drops=drops,
        samples=data.draw(st.integers(1, 10_000)),
        processes=data.draw(st.integers(1, 4)),
        long_cycle=None,
        short_cycle=None,
    )
    assert len(schedule) == schedule.baseline_iterations == n
    assert [stage.stop for stage in schedule.stages] == [*drops, n]
    per_epoch = schedule.samples / schedule.shape.b / schedule.processes
    assert [drop * per_epoch for drop in schedule.lr_drops] == pytest.approx(drops)


def test_a_drop_in_the_middle_of_an_epoch():
    schedule = Schedule(Shape(8, 8, 32, 32), iterations=1000, lr_drops=(333, 777), samples=123)
    for step in schedule:
        assert bisect_right((333, 777), step.progress * 1000) == step.lr_stage
    for iterations, drops, samples, processes in ((2191, (602, 1271), 605, 3), (907, (5, 9), 11, 7)):
        schedule = Schedule(
            Shape(2, 4, 16, 16), iterations=iterations, lr_drops=drops, samples=samples, processes=processes
        )
        for step in schedule:
            assert bisect_right(drops, step.progress * iterations) == step.lr_stage


def test_non_square_and_three_axis_factors():
    schedule = Schedule.from_epochs(
        Shape(2, 13, 192, 320), samples=500, epochs=10, long_cycle=[(0.5, 0.5, 0.25), (1, 1, 1)], short_cycle=None
    )
    assert [str(s.base) for s in schedule.stages[:2]] == ["34x6x96x80", "2x13x192x320"]


def test_multiples():
    schedule = kinetics(multiple_of=16, frames_multiple_of=8, batch_multiple_of=8)
    for shape in schedule.shapes:
        assert (shape.b % 8, shape.t % 8, shape.h % 16, shape.w % 16) == (0, 0, 0, 0)
    assert {shape.h for shape in schedule.shapes} == {112, 160, 224}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"multiple_of": 32},
        {"multiple_of": 56},
        {"batch_growth": 0.5},
        {"batch_growth": 0.0},
        {"long_cycle": [(0.25, 0.3), (0.6, 0.8), (1, 1)]},
        {"short_cycle": None},
    ],
)
def test_all_stages_of_a_cycle_get_the_same_iterations(options):
    schedule = kinetics(**options)
    per_cycle = len(options.get("long_cycle", LONG_CYCLE))
    for k in range(3):
        steps = [s.stop - s.start for s in schedule.stages[k * per_cycle : (k + 1) * per_cycle]]
        # A stage ends with the step that reaches its clips, and one step can hold those of many others.
        assert max(steps) - min(steps) <= 3 + max(steps) // 1000


def test_batch_growth_is_a_dial():
    largest = [max(s.b for s in kinetics(batch_growth=g).shapes) for g in (0, 0.5, 1)]
    assert largest[0] == 8 < largest[1] < largest[2] == 128
    assert {s.lr_scale for s in kinetics(batch_growth=0).stages} == {1}


def test_phases():
    schedule = Schedule.from_phases(
        Shape(8, 64, 384, 384),
        [(45, (16, 256, 256)), (45, Shape(40, 16, 256, 256)), (10, (64, 384, 384))],
        samples=1000,
        lr_drops=(90,),
        short_cycle=None,
    )
    assert [s.base.b for s in schedule.stages] == [72, 40, 8]
    assert [s.end_epoch for s in schedule.stages] == [45, 90, 100]
    assert [s.lr_scale for s in schedule.stages] == [9, 5, 1]
    assert [s.lr_stage for s in schedule.stages] == [0, 0, 1]
    assert schedule[schedule.stages[2].start].progress * 100 == pytest.approx(90)
    assert Schedule.from_dict(schedule.to_dict()) == schedule


def test_progressive_ramps_to_the_full_shape():
    schedule = Schedule.progressive(
        Shape(8, 16, 224, 224), samples=1000, epochs=18, start=(0.5, 0.5), stages=16, full_from=0.9, multiple_of=32
    )
    sizes = [s.base.h for s in schedule.stages]
    assert sizes == sorted(sizes)
    assert sizes[0] == 128
    assert [s.end_epoch for s in schedule.stages][-2:] == pytest.approx([16.2, 18])
    assert schedule[-1].shape == schedule.shape


def test_every_video_is_seen_once_an_epoch():
    for samples in (1, 2, 3, 64, 1000):
        schedule = Schedule.from_epochs(Shape(3, 4, 16, 16), samples=samples, epochs=10)
        epochs = [[schedule.sample(e * samples + i, seed=7) for i in range(samples)] for e in range(3)]
        for order in epochs:
            assert sorted(order) == list(range(samples))
    assert epochs[0] != epochs[1] != epochs[2]
    assert [schedule.sample(i, seed=8) for i in range(samples)] != epochs[0]


def test_orders_are_uniform():
    """Each video is equally often first: chi-square over 4000 epochs of 7 videos, far below the 1e-6 quantile (38)."""
    schedule = Schedule.from_epochs(Shape(1, 1, 8, 8), samples=7, epochs=1)
    counts = [0] * 7
    for e in range(4000):
        counts[schedule.sample(7 * e, seed=3)] += 1
    expected = 4000 / 7
    assert sum((c - expected) ** 2 / expected for c in counts) < 38


def test_with_processes_keeps_the_global_batches():
    schedule = kinetics()
    wide = schedule[1000:].with_processes(64)
    assert wide.shape == Shape(1, 32, 224, 224)
    assert len(wide) == len(schedule) - 1000
    for i in (0, 77, 5000):
        assert wide[i].first == schedule[1000 + i].first
        assert wide[i].shape.b * 64 == schedule[1000 + i].shape.b * 8
        assert (wide[i].progress, wide[i].lr_scale) == (schedule[1000 + i].progress, schedule[1000 + i].lr_scale)
    assert wide.with_processes(8) == schedule[1000:]
    with pytest.raises(
        ValueError,
        match=re.escape(
            "processes (7) must divide every global batch (64, 128, 256, 512, 1024); go on with a divisor of 64"
        ),
    ):
        schedule.with_processes(7)


def test_frozen():
    schedule = kinetics()
    for value, name in ((schedule, "samples"), (schedule[0], "index"), (schedule.shape, "b"), (schedule[0], "new")):
        with pytest.raises(AttributeError):
            setattr(value, name, 1)
    with pytest.raises(AttributeError):
        del schedule.samples


def test_no_state_that_grows():
    short, long = kinetics(epochs=239), kinetics(epochs=23_900)
    assert len(long) > 20_000_000
    assert len(pickle.dumps(long)) < 10_000
    assert len(pickle.dumps(long)) <= len(pickle.dumps(short)) + 100
    assert long[len(long) // 2].index == len(long) // 2


def test_shape_prints_as_the_paper_writes_it():
    shape = Shape(8, 32, 224, 224)
    assert (str(shape), f"{shape}") == ("8x32x224x224", "8x32x224x224")
    assert eval(repr(shape)) == shape
    assert tuple(shape) == (8, 32, 224, 224)


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


def test_more_than_can_be_counted_is_refused():
    for shape, processes in ((Shape(2**32, 1, 8, 8), 2**32), (Shape(2**40, 1, 1, 1), 2**30)):
        with pytest.raises(ValueError, match=re.escape("above 2^53: more than can be counted exactly")):
            Schedule.from_epochs(shape, samples=1000, epochs=3, processes=processes)
    with pytest.raises(ValueError, match=re.escape("above 2^53: more than can be counted exactly; take a smaller one")):
        Schedule.from_epochs(Shape(2**62, 8, 8, 8), samples=1000, epochs=3)


def test_without_samples_no_video_has_a_place():
    schedule = Schedule(Shape(8, 4, 32, 32), iterations=1000)
    for copied in (schedule, Schedule.from_dict(schedule.to_dict()), schedule[5:], schedule.with_processes(2)):
        with pytest.raises(ValueError, match=re.escape("the schedule was made without samples=; pass")):
            copied.sample(0, seed=0)


def test_the_baseline_counts_its_last_step():
    for epochs, steps in ((2.5, 3), (0.5, 1), (2, 2)):
        plain = Schedule.from_epochs(Shape(1, 1, 8, 8), samples=1, epochs=epochs, long_cycle=None, short_cycle=None)
        assert len(plain) == plain.baseline_iterations == steps
        assert plain.speedup == 1


def test_an_empty_slice_is_empty():
    schedule = kinetics()
    assert (len(schedule[5:3]), schedule[5:3].clips) == (0, 0)
    assert schedule[5:3] == schedule[5:5]


def test_numpy_numbers_are_numbers():
    plain = kinetics(long_cycle=[(0.5, 0.5), (1, 1)], short_cycle=[0.5])
    given = kinetics(
        samples=np.int64(240_436),
        epochs=np.float64(239),
        lr_drops=np.array([94, 154, 196]),
        processes=np.int32(8),
        long_cycle=np.array([(0.5, 0.5), (1, 1)]),
        short_cycle=np.array([0.5]),
    )
    assert given == plain
    assert json.loads(json.dumps(given.to_dict())) == given.to_dict()


def test_a_run_too_short_says_so():
    text = str(Schedule.from_epochs(Shape(8, 8, 32, 32), samples=10, epochs=3))
    assert text.endswith("too short: 11 of 13 stages have no step; train longer, or with fewer long cycles")
    assert "too short" not in str(kinetics())
    assert "x more iterations" in str(kinetics(batch_growth=0))


def test_wrong_arguments_are_answered_in_words():
    for arguments in ((8, 32, 32), ([8, 8, 32, 32],), ("8x8x32x32",)):
        with pytest.raises(TypeError, match=re.escape("Shape takes four whole numbers, clips, frames, height, width")):
            Shape(*arguments)
    with pytest.raises(TypeError, match=re.escape("write Shape(8, 8, 32, 32)")):
        Schedule.from_epochs((8, 8, 32, 32), samples=10, epochs=1)
    with pytest.raises(TypeError, match=re.escape("short_side, area or aspect, each a pair (low, high)")):
        kinetics()[0].grid((300, 256, 340), seed=0, sample=0, short_side=256)
