"""What a plan's options make of it: stages, shapes, lengths."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kinetics import kinetics

from pymultigrid import Cycles, Phases, Progressive, Schedule, Shape


def test_smooth_policies_get_cycles_without_drops():
    """Decision 5: three equal cycles over the first 196 / 239 of the baseline, one LR stage."""
    schedule = kinetics(lr_drops=())
    stages = schedule.stages
    assert len(stages) == 13
    lengths = [b.end_epoch - a.end_epoch for a, b in zip((stages[3], stages[7]), (stages[7], stages[11]), strict=True)]
    assert lengths == pytest.approx([stages[3].end_epoch] * 2)
    assert {s.lr_stage for s in stages} == {0}
    assert len(kinetics(lr_drops=(), plan=Cycles(cycles=1)).stages) == 5
    # A third of the cycles' clips in is a third of 196 baseline epochs in.
    assert schedule[stages[4].start].progress == pytest.approx(196 / 239 / 3)
    middle = (stages[11].clip_stop + stages[12].clip_stop) / 2
    late = next(s for s in schedule[stages[12].start :] if s.first >= middle)
    assert late.progress == pytest.approx(196 / 239)


def test_baseline_is_plain_training():
    schedule = kinetics(plan=Cycles(long=None, short=None))
    assert len(schedule) == schedule.baseline_iterations == math.ceil(240_436 * 239 / 64)
    assert schedule.speedup == 1
    for i in (0, 1, 1000, len(schedule) - 1):
        assert schedule[i].shape == schedule.shape
        assert schedule[i].lr_scale == 1
        assert schedule[i].progress == pytest.approx(i / len(schedule), abs=1e-6)
    assert len(kinetics(plan=Cycles(long=None, short=None, epoch_factor=2.0))) == math.ceil(240_436 * 478 / 64)


def test_the_baseline_counts_its_last_step():
    for epochs, steps in ((2.5, 3), (0.5, 1), (2, 2)):
        plain = Schedule(Shape(1, 1, 8, 8), samples=1, epochs=epochs, plan=Cycles(long=None, short=None))
        assert len(plain) == plain.baseline_iterations == steps
        assert plain.speedup == 1


def test_iterations_are_the_baselines():
    by_epochs = kinetics(processes=1, samples=8 * 1000, epochs=100, lr_drops=(50, 80))
    by_iterations = Schedule(Shape(8, 32, 224, 224), iterations=100_000, lr_drops=(50_000, 80_000), samples=8 * 1000)
    assert by_iterations == by_epochs
    alone = Schedule(Shape(8, 32, 224, 224), iterations=100_000, lr_drops=(50_000, 80_000))
    assert (alone.samples, alone.baseline_epochs, alone.baseline_iterations) == (8, 100_000, 100_000)
    assert len(alone) == pytest.approx(len(by_epochs), abs=len(alone.stages))


def test_non_square_and_three_axis_factors():
    schedule = Schedule(
        Shape(2, 13, 192, 320), samples=500, epochs=10, plan=Cycles(long=[(0.5, 0.5, 0.25), (1, 1, 1)], short=None)
    )
    assert [str(s.base) for s in schedule.stages[:2]] == ["34x6x96x80", "2x13x192x320"]


def test_a_batch_keeps_to_the_memory_of_the_baseline():
    """The reference takes 256 clips here, 1.13 times the baseline's sampling points, at 4 times the rate."""
    plan = Cycles(long=[(0.5, 0.75), (1, 1)], short=None)
    stage = Schedule(Shape(64, 16, 112, 112), samples=100_000, epochs=20, plan=plan).stages[0]
    assert (str(stage.base), stage.lr_scale) == ("192x8x84x84", 3.0)


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
        {"plan": Cycles(long=[(0.25, 0.3), (0.6, 0.8), (1, 1)])},
        {"plan": Cycles(short=None)},
    ],
)
def test_all_stages_of_a_cycle_get_the_same_iterations(options):
    schedule = kinetics(**options)
    per_cycle = len(options.get("plan", Cycles()).long)
    for k in range(3):
        steps = [s.stop - s.start for s in schedule.stages[k * per_cycle : (k + 1) * per_cycle]]
        # A stage ends with the step that reaches its clips, and one step can hold those of many others.
        assert max(steps) - min(steps) <= 3 + max(steps) // 1000


def test_batch_growth_is_a_dial():
    largest = [max(s.b for s in kinetics(batch_growth=g).shapes) for g in (0, 0.5, 1)]
    assert largest[0] == 8 < largest[1] < largest[2] == 128
    assert {s.lr_scale for s in kinetics(batch_growth=0).stages} == {1}


def test_the_plans_of_the_docs():
    """docs/schedule.md: its code runs, and its commands plan the last three of its schedules."""
    text = (Path(__file__).parent.parent / "docs" / "schedule.md").read_text()
    (code,), (commands,) = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "sh"))
    made = {}
    exec(compile(code, "schedule.md", "exec"), made)
    assert made["paper"] == kinetics(processes=1)
    assert made["no_data_yet"].baseline_iterations == 40_000
    for name, command in zip(("long_only", "own", "ramp"), commands.splitlines(), strict=True):
        done = subprocess.run([sys.executable, *command.split()[1:]], capture_output=True, text=True)
        assert done.stdout == f"{made[name]}\n", done.stderr


def test_phases():
    schedule = Schedule(
        Shape(8, 64, 384, 384),
        samples=1000,
        lr_drops=(90,),
        plan=Phases([(45, (16, 256, 256)), (45, Shape(40, 16, 256, 256)), (10, (64, 384, 384))], short=None),
    )
    assert [s.base.b for s in schedule.stages] == [72, 40, 8]
    assert [s.end_epoch for s in schedule.stages] == [45, 90, 100]
    assert [s.lr_scale for s in schedule.stages] == [9, 5, 1]
    assert [s.lr_stage for s in schedule.stages] == [0, 0, 1]
    assert schedule[schedule.stages[2].start].progress * 100 == pytest.approx(90)
    assert Schedule.from_dict(schedule.to_dict()) == schedule


def test_progressive_ramps_to_the_full_shape():
    plan = Progressive(start=(0.5, 0.5), stages=16, full_from=0.9)
    schedule = Schedule(Shape(8, 16, 224, 224), samples=1000, epochs=18, plan=plan, multiple_of=32)
    sizes = [s.base.h for s in schedule.stages]
    assert sizes == sorted(sizes)
    assert sizes[0] == 128
    assert [s.end_epoch for s in schedule.stages][-2:] == pytest.approx([16.2, 18])
    assert schedule[-1].shape == schedule.shape


def test_numpy_numbers_are_numbers():
    plain = kinetics(plan=Cycles(long=[(0.5, 0.5), (1, 1)], short=[0.5]))
    given = kinetics(
        samples=np.int64(240_436),
        epochs=np.float64(239),
        lr_drops=np.array([94, 154, 196]),
        processes=np.int32(8),
        plan=Cycles(long=np.array([(0.5, 0.5), (1, 1)]), short=np.array([0.5])),
    )
    assert given == plain
    assert json.loads(json.dumps(given.to_dict())) == given.to_dict()


def test_a_run_too_short_says_so():
    text = str(Schedule(Shape(8, 8, 32, 32), samples=10, epochs=3))
    assert text.endswith("too short: 11 of 13 stages have no step; train longer, or with fewer long cycles")
    assert "too short" not in str(kinetics())
    assert "x more iterations" in str(kinetics(batch_growth=0))
