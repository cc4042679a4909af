"""A loop that is watched: times, time left, values, report, and when there is a bar."""

import fcntl
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from pymultigrid import Progress, Schedule, Shape

SCHEDULE = Schedule(Shape(4, 8, 32, 32), samples=100, epochs=10)


class Loader:
    """A loader of empty batches."""

    def __init__(self, schedule=SCHEDULE, *, seconds=0.0, rank=0, micro_batches=1):
        self.schedule, self.seconds, self.rank, self.micro_batches = schedule, seconds, rank, micro_batches

    def __len__(self):
        return len(self.schedule)

    def __iter__(self):
        for step in self.schedule:
            for _ in range(self.micro_batches):
                time.sleep(self.seconds)
                yield step, None

    def state_dict(self):
        return {"of": "the loader"}


class Rate:
    def get_last_lr(self):
        return [0.25]


def timing(each):
    """What a run kept that has trained very many steps of every shape, which took each(shape) seconds."""
    keys, n = {(step.shape, step.base.b) for step in SCHEDULE}, 10**6
    rows = [[list(shape), base, n, n * each(shape), 0.0, 1, each(shape)] for shape, base in keys]
    return {"rows": rows, "apart": 0.0}


def test_waiting_training_and_evaluation_are_told_apart():
    progress = Progress(Loader(SCHEDULE[:4], seconds=0.02), Rate())
    for _ in progress:
        time.sleep(0.01)
        with progress.apart():
            time.sleep(0.03)
    report = progress.report()
    assert report.steps == 4
    assert report.waiting >= 4 * 0.02
    assert report.evaluation >= 4 * 0.03
    assert report.seconds - report.waiting >= 4 * 0.01
    values = progress.values()
    assert values["lr"] == 0.25
    assert values["seconds_waiting"] >= 0.02
    assert values["clips_per_second"] <= SCHEDULE[3].shape.b / 0.03


def test_the_time_left_is_the_sum_over_the_steps_to_come():
    """Far from the mean of the steps behind: here a step takes as many seconds as it has frames, whatever its size."""
    progress = Progress(Loader())
    progress.load_timing(timing(lambda shape: float(shape.t)))
    for step, _ in progress:
        if step.index:
            want = sum(later.shape.t for later in SCHEDULE[step.index :])
            assert progress.values()["seconds_left"] == pytest.approx(want, rel=1e-3)
    assert progress.values()["seconds_left"] == 0


def test_shapes_to_come_are_guessed_from_costs():
    costs = {(shape.t, shape.h, shape.w): float(shape.t) for shape in SCHEDULE.shapes}
    for given, cost in ((costs, lambda s: s.b * s.t), (None, math.prod)):
        progress = Progress(Loader(SCHEDULE[:1]), costs=given)
        for _ in progress:
            time.sleep(0.02)
        (row,) = progress.report().rows
        want = sum(cost(step.shape) for step in SCHEDULE[1:]) / cost(SCHEDULE[0].shape) * row.each
        assert progress.values()["seconds_left"] == pytest.approx(want)


def test_values_have_both_clocks():
    progress = Progress(Loader())
    for step, _ in progress:
        values = progress.values()
        if step.index:
            before = SCHEDULE[step.index - 1]
            assert values["step"] == before.index
            assert values["baseline_iteration"] == before.progress * SCHEDULE.baseline_iterations
            assert values["baseline_epoch"] == before.progress * 10
            assert [values[name] for name in ("batch", "frames", "height", "width")] == list(before.shape)
            assert "lr" not in values
            assert all(isinstance(value, (int, float)) for value in values.values())
        else:
            assert values == {}


def test_the_report_is_of_the_whole_run_after_a_resume():
    first = Progress(Loader(SCHEDULE[:30]))
    list(first)
    kept = json.loads(json.dumps(first.timing()))
    second = Progress(Loader(SCHEDULE[30:]))
    second.load_timing(kept)
    list(second)
    report = second.report()
    assert report.steps == len(SCHEDULE)
    assert report.seconds > first.report().seconds
    assert report.baseline_seconds == pytest.approx(
        min(row.each for row in report.rows if row.shape == SCHEDULE.shape) * SCHEDULE.baseline_iterations
    )
    assert json.loads(json.dumps(report.to_dict()))["steps"] == len(SCHEDULE)
    assert f"trained {len(SCHEDULE)} of {len(SCHEDULE)} steps" in str(report)
    assert re.search(r"would take .*: [\d.]+x as long", str(report))


def test_before_the_full_shape_the_baseline_is_not_known():
    coarse = Progress(Loader(SCHEDULE[:1]))
    assert str(coarse.report()) == "no step was trained yet"
    list(coarse)
    assert coarse.report().baseline_seconds is None
    assert "known after steps at the full shape" in str(coarse.report())


def test_micro_batches_are_parts_of_one_step():
    progress = Progress(Loader(SCHEDULE[:5], seconds=0.01, micro_batches=3))
    for _ in progress:
        time.sleep(0.01)
    assert progress.report().steps == 5
    values = progress.values()
    assert values["seconds"] >= 3 * 0.01
    assert values["seconds_waiting"] >= 3 * 0.01
    assert values["clips_per_second"] <= SCHEDULE[4].shape.b / 0.06


def test_a_loop_that_never_asks_beyond_its_last_batch_is_whole():
    progress = Progress(Loader())
    batches = iter(progress)
    for _ in range(len(progress)):
        next(batches)
    assert progress.report().steps == len(SCHEDULE)
    assert progress.report().steps == len(SCHEDULE)
    batches.close()
    assert progress.report().steps == len(SCHEDULE)


def test_first_steps_after_a_resume_are_no_measure():
    """They compile anew: here 50 ms, and nothing after."""
    whole = SCHEDULE.without_multigrid()
    progress = Progress(Loader(whole[:5]))
    for start in (0, 5):
        kept, progress = progress.timing(), Progress(Loader(whole[start : start + 5]))
        progress.load_timing(kept)
        for step, _ in progress:
            time.sleep(0.05 if step.index == start else 0.0)
    (row,) = progress.report().rows
    assert row.steps == 10
    assert row.seconds >= 0.1
    assert row.each < 0.05


def test_evaluation_within_evaluation_counts_once():
    progress = Progress(Loader(SCHEDULE[:1]))
    for _ in progress:
        began = time.perf_counter()
        with progress.apart(), progress.apart():
            time.sleep(0.02)
        took = time.perf_counter() - began
    assert 0.02 <= progress.report().evaluation <= took


def test_a_trainer_that_asks_gets_the_loaders_state():
    progress = Progress(Loader())
    assert progress.state_dict() == {"of": "the loader"}
    assert len(progress) == len(SCHEDULE)
    with pytest.raises(AttributeError):
        _ = progress.nothing


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from test_progress import Loader, Rate
from pymultigrid import Progress
for _ in Progress(Loader(rank={rank}), Rate()):
    pass
"""


def shown(rank, terminal):
    """Return what a loop writes to its stderr."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 150, 0, 0))
    code = SCRIPT.format(folder=str(Path(__file__).parent), rank=rank)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs)
    os.close(theirs)
    text = b""
    try:
        while data := os.read(ours, 4096):
            text += data
    except OSError:
        pass  # so ends a terminal
    os.close(ours)
    assert process.wait(60) == 0, text
    return text.decode()


def test_the_bar_is_for_a_terminal_and_the_first_process():
    pytest.importorskip("tqdm", reason="tqdm is missing: the bar was NOT seen")
    text = shown(0, terminal=True)
    assert f"step {len(SCHEDULE)}/{len(SCHEDULE)}" in text
    assert "4x8x32x32 lr 0.25" in text
    assert "0:00 left" in text
    assert shown(0, terminal=False) == ""
    assert shown(1, terminal=True) == ""


def test_wrong_use_is_refused():
    with pytest.raises(TypeError, match=re.escape("loader is a list without a schedule")):
        Progress([])
    with pytest.raises(TypeError, match=re.escape("lr is a float without get_last_lr()")):
        Progress(Loader(), 0.1)
    with pytest.raises(TypeError, match="show"):
        Progress(Loader(), show="yes")
    with pytest.raises(ValueError, match=re.escape("timing must be what Progress.timing() gave")):
        Progress(Loader()).load_timing({"rows": [[1, 2]]})
