"""pymultigrid.plot: what the picture shows is the schedule."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="Matplotlib is missing: the plot was NOT drawn")

from matplotlib.figure import Figure

from pymultigrid import Cycles, Schedule, Shape
from pymultigrid.plot import draw_lr, draw_schedule, draw_shapes

SHAPE = Shape(8, 12, 40, 40)


def texts(axes):
    return {text.get_text() for text in axes.texts}


def test_a_saved_picture_shows_every_clip_of_the_schedule(tmp_path):
    schedule = Schedule(SHAPE, samples=1600, epochs=6, multiple_of=4)
    figure = draw_schedule(schedule, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    shapes, rate = figure.axes
    assert texts(shapes) == {f"{s.t}x{s.h}²" for stage in schedule.stages for s in stage.shapes}
    assert len(shapes.collections) == sum(len(set(stage.shapes)) for stage in schedule.stages)
    assert shapes.get_xlim() == (0, len(schedule))
    assert f"{schedule.speedup:.2f}x less compute" in shapes.get_title()
    assert rate.get_xlabel() == "iteration"


def test_clips_of_the_same_batch_share_a_block():
    schedule = Schedule(SHAPE, samples=1600, epochs=6, plan=Cycles(long=None), multiple_of=4, batch_growth=0)
    axes = Figure(figsize=(8, 4)).subplots()
    draw_shapes(axes, schedule)
    assert texts(axes) == {"12x20² 12x28² 12x40²"}


def test_the_learning_rate_is_that_of_the_steps():
    schedule = Schedule(SHAPE, samples=160, epochs=30, lr_drops=(10, 20))
    axes = Figure().subplots()
    draw_lr(axes, schedule)
    index, rate = axes.lines[0].get_data()
    assert list(rate) == [schedule[int(i)].lr_scale * 0.1 ** schedule[int(i)].lr_stage for i in index]
    assert {stage.start for stage in schedule.stages} <= set(index)
    assert axes.get_yscale() == "log"


def test_a_policy_of_ones_own_is_drawn():
    schedule = Schedule(SHAPE, samples=160, epochs=30)
    axes = Figure().subplots()
    draw_lr(axes, schedule, lambda step: step.progress, color="red")
    assert axes.lines[0].get_ydata()[-1] == schedule[-1].progress
    assert axes.lines[0].get_color() == "red"


def test_a_slice_is_drawn_as_the_whole():
    schedule = Schedule(SHAPE, samples=160, epochs=30)
    axes = Figure().subplots()
    draw_lr(axes, schedule[100:])
    assert axes.lines[0].get_xdata()[0] == 0


def test_labels_are_left_out_where_there_is_no_room():
    schedule = Schedule(SHAPE, samples=160, epochs=30, plan=Cycles(cycles=40))
    figure = Figure(figsize=(3, 2))
    draw_shapes(figure.subplots(), schedule)
    assert len(texts(figure.axes[0])) < len(schedule.shapes)


def test_schedules_share_an_axis():
    schedule = Schedule(SHAPE, samples=160, epochs=30)
    axes = Figure().subplots()
    draw_shapes(axes, schedule, end=5000)
    assert axes.get_xlim() == (0, 5000)


def test_a_long_training_is_drawn_quickly():
    schedule = Schedule(Shape(8, 32, 224, 224), samples=240_436, epochs=239, lr_drops=(94, 154, 196))
    axes = Figure().subplots()
    draw_lr(axes, schedule)
    assert len(axes.lines[0].get_xdata()) < 5000


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path):
    schedule = Schedule(SHAPE, samples=160, epochs=30)
    with pytest.raises(ValueError, match=re.escape("plan.xyz) must end in one of")):
        draw_schedule(schedule, tmp_path / "plan.xyz")


def test_the_package_does_not_import_matplotlib():
    check = "import sys, pymultigrid; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
