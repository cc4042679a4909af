"""A schedule is a value: frozen, small, sliced, printed, dealt out to other processes."""

import pickle
import re

import pytest
from kinetics import kinetics

from pymultigrid import Shape


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


def test_an_empty_slice_is_empty():
    schedule = kinetics()
    assert (len(schedule[5:3]), schedule[5:3].clips) == (0, 0)
    assert schedule[5:3] == schedule[5:5]


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
