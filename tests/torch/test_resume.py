"""kill -9 in the middle of a real training, then start it again: the same steps as if nothing had happened."""

import contextlib
import os
import random
import signal
import time

import pytest

pytest.importorskip("av", reason="PyAV is missing: resuming a killed training is NOT tested")

import watched
from watched import EXAMPLES

from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler, VideoDataset

EVERY = 5  # the examples write a checkpoint each 5 steps


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return watched.write_videos(tmp_path_factory.mktemp("videos") / "train")


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory):
    """The steps of examples/resume.py when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("whole")
    watched.finish(watched.start(folder, EXAMPLES / "resume.py", videos), folder)
    return watched.steps(folder)


def kill_at_a_random_moment(process, folder, seed, *, before):
    """Wait for a step drawn with `seed`, then a moment more, kill -9 the training, and return the steps it had done."""
    draw = random.Random(seed)
    step, moment = draw.randrange(EVERY + 1, before), draw.uniform(0, 0.1)
    deadline = time.monotonic() + 1200
    while len(watched.steps(folder)) < step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(moment)
    pids = {done["pid"] for rank in range(4) for done in watched.steps(folder, rank)}
    os.killpg(process.pid, signal.SIGKILL)
    for pid in pids - {process.pid}:  # what torchrun started
        with contextlib.suppress(ProcessLookupError):  # a rank ends by itself when it has lost another
            os.kill(pid, signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL, (folder / "out").read_text()[-4000:]
    return len(watched.steps(folder))


@pytest.mark.parametrize(("seed", "workers"), [(1, 2), (2, 0)])
def test_the_same_steps_bit_for_bit(seed, workers, whole, videos, tmp_path):
    script = EXAMPLES / "resume.py"
    done = kill_at_a_random_moment(watched.start(tmp_path, script, videos), tmp_path, seed, before=len(whole) - 5)
    script = watched.edited("resume.py", tmp_path, ("num_workers=2", f"num_workers={workers}"))
    watched.finish(watched.start(tmp_path, script, videos), tmp_path)
    first, second = watched.steps(tmp_path)[:done], watched.steps(tmp_path)[done:]
    start = len(whole) - len(second)
    assert start % EVERY == 0
    assert done - EVERY <= start <= done
    without_pid = [{name: value for name, value in step.items() if name != "pid"} for step in first + second]
    assert without_pid == [
        {name: value for name, value in step.items() if name != "pid"} for step in whole[:done] + whole[start:]
    ]


@pytest.mark.parametrize(("example", "processes"), [("ddp.py", (2, 1)), ("fsdp2.py", (2, 1))])
def test_another_number_of_processes_trains_on_the_same_global_batches(example, processes, videos, tmp_path):
    samples = 2 * watched.VIDEOS_PER_CLASS
    schedule = Schedule(Shape(8, 8, 56, 56), samples=samples, epochs=30)
    dataset = VideoDataset.from_folder(videos, mean=0.45, std=0.225, stride=2)
    rates = watched.baseline_cosine(schedule, 0.02)
    # What one process alone would read: all samples and grids.
    clips = [[watched.digest(dataset[sample][0]) for sample in batch] for batch in BatchSampler(schedule)]

    def check(first, count, steps_of_ranks):
        for i, ranks in enumerate(zip(*steps_of_ranks, strict=True), start=first):
            b, t, h, w = schedule[i].shape
            assert [done["shapes"] for done in ranks] == count * [[[b // count, 3, t, h, w]]]
            assert [clip for done in ranks for clip in done["clips"]] == clips[i]
            assert all(done["lr"] == pytest.approx(rates[i], rel=1e-9, abs=1e-12) for done in ranks)

    before, after = processes
    process = watched.start(tmp_path, EXAMPLES / example, videos, processes=before)
    kill_at_a_random_moment(process, tmp_path, 3, before=len(schedule) - 5)
    first = [watched.steps(tmp_path, rank) for rank in range(before)]
    common = min(map(len, first))
    check(0, before, [log[:common] for log in first])

    watched.finish(watched.start(tmp_path, EXAMPLES / example, videos, processes=after), tmp_path)
    second = [watched.steps(tmp_path, rank)[len(first[rank]) if rank < before else 0 :] for rank in range(after)]
    start = len(schedule) - len(second[0])
    assert start % EVERY == 0
    assert 0 < start <= max(map(len, first))  # the rank that saved may have been a step ahead
    check(start, after, second)
