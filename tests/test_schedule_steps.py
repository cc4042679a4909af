"""The steps of any schedule: which clips, at which shape, at which moment of the baseline."""

import copy
import itertools
import json
import math
import pickle
import re
from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinetics import kinetics

from pymultigrid import LONG_CYCLE, SHORT_CYCLE, Cycles, Phases, Schedule, Shape

factors = st.sampled_from([0.25, 0.3, 0.5, 0.5**0.5, 0.8, 1.0])


@st.composite
def phases(draw, shape, multiple_of, frames_multiple_of, batch_multiple_of):
    sizes = st.tuples(*(st.integers((n + 1) // 2, n) for n in (shape.t, shape.h, shape.w)))
    rows = draw(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.7, 5]), sizes), max_size=4))
    total = sum(epochs for epochs, _ in rows) + 1
    return Schedule(
        shape,
        samples=draw(st.integers(1, 2000)),
        lr_drops=draw(st.sampled_from([(), (0.1,), (total / 2,), (total / 3, total - 1e-3)])),
        plan=Phases(
            [*rows, (1, shape)],
            short=draw(st.none() | st.lists(st.sampled_from([0.5, 0.8, 1.0]), min_size=1, max_size=2)),
        ),
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
    drops = [drop for drop in sorted(draw(st.sets(st.integers(1, 39), max_size=3))) if drop < epochs]
    long = draw(st.none() | st.lists(st.tuples(factors, factors), min_size=1, max_size=4))
    return Schedule(
        shape,
        samples=draw(st.integers(1, 2000)),
        epochs=epochs,
        lr_drops=drops,
        plan=Cycles(
            long=long,
            short=draw(st.none() | st.lists(factors, min_size=1, max_size=3)),
            cycles=draw(st.integers(1, 4)) if long and not drops else None,
            epoch_factor=draw(st.sampled_from([None, 0.3, 1.0, 1.5])),
        ),
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
        start, clip_start = (0, 0) if before is None else (before.stop, before.clip_stop)
        assert (stage.start, stage.clip_start) == (start, clip_start)
        # end_epoch is a running sum: whole numbers of clips are met up to its rounding.
        planned = stage.end_epoch * schedule.samples * (1 - 1e-13)
        assert stage.clip_stop >= planned
        assert stage.clips == stage.clip_stop - stage.clip_start
        if stage.start < stage.stop:
            largest = max(s.b for s in stage.shapes) * schedule.processes
            ends_training = stage == schedule.stages[-1] and stage.stop - stage.start == 1
            assert stage.clip_stop - largest < planned * (1 + 1e-12) or ends_training
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
        assert bisect_right(schedule.lr_drops, step.progress * schedule.baseline_epochs) == step.lr_stage
        assert (step.lr_scale, step.base, step.long) == (stage.lr_scale, stage.base, stage.long)
        assert step.shape == stage.shapes[step.short]
        assert step.lr_stage <= stage.lr_stage
        assert stage is stages[-1] or step.stage == len(stages) - 1 or step.lr_stage <= stages[step.stage + 1].lr_stage


@pytest.mark.parametrize("long_cycle", [None, LONG_CYCLE])
@pytest.mark.parametrize("short_cycle", [None, SHORT_CYCLE])
@pytest.mark.parametrize(("epochs", "drops"), [(239, (94, 154, 196)), (22, (14, 18)), (100, (33, 66, 99)), (7, (3,))])
def test_step_policy_on_the_baselines_clock(long_cycle, short_cycle, epochs, drops):
    """policy(progress * E) drops exactly where lr_stage does, to the step."""
    schedule = Schedule(
        Shape(4, 8, 32, 32),
        samples=997,
        epochs=epochs,
        lr_drops=drops,
        plan=Cycles(long=long_cycle, short=short_cycle),
    )
    for step in schedule:
        assert bisect_right(drops, step.progress * schedule.baseline_epochs) == step.lr_stage
    assert step.lr_stage == len(drops)


def test_fine_tuning_keeps_the_lr_for_half_of_its_clips():
    schedule = kinetics()
    tuning = schedule.stages[-1]
    drop = next(s for s in schedule[tuning.start :] if s.lr_stage == tuning.lr_stage)
    middle = (schedule.stages[-2].end_epoch + tuning.end_epoch) / 2 * schedule.samples
    assert drop.first >= middle > schedule[drop.index - 1].first
    assert drop.progress * 239 >= 196 > schedule[drop.index - 1].progress * 239


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
        plan=Cycles(long=None, short=None),
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


def test_every_video_is_seen_once_an_epoch():
    for samples in (1, 2, 3, 64, 1000):
        schedule = Schedule(Shape(3, 4, 16, 16), samples=samples, epochs=10)
        epochs = [[schedule.sample(e * samples + i, seed=7) for i in range(samples)] for e in range(3)]
        for order in epochs:
            assert sorted(order) == list(range(samples))
    assert epochs[0] != epochs[1] != epochs[2]
    assert [schedule.sample(i, seed=8) for i in range(samples)] != epochs[0]


def test_orders_are_uniform():
    """Each video is equally often first: chi-square over 4000 epochs of 7 videos, far below the 1e-6 quantile (38)."""
    schedule = Schedule(Shape(1, 1, 8, 8), samples=7, epochs=1)
    counts = [0] * 7
    for e in range(4000):
        counts[schedule.sample(7 * e, seed=3)] += 1
    expected = 4000 / 7
    assert sum((c - expected) ** 2 / expected for c in counts) < 38
