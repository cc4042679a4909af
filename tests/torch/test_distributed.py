"""Several real processes under torchrun, on gloo."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("av", reason="PyAV is missing: training on several processes is NOT tested")

import torch
import watched
from watched import EXAMPLES

from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler, SubBatchNorm3d, VideoDataset, evaluate


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return watched.write_videos(tmp_path_factory.mktemp("videos") / "train")


def test_torchrun_restarts_after_a_killed_rank_and_goes_on(videos, tmp_path):
    """DDP: the shapes agree at each step, the weights are equal on all ranks, and losing a rank costs a few steps."""
    schedule = Schedule(Shape(8, 8, 56, 56), samples=2 * watched.VIDEOS_PER_CLASS, epochs=30)
    process = watched.start(tmp_path, EXAMPLES / "ddp.py", videos, processes=2, torchrun=["--max-restarts=1"])
    while len(watched.steps(tmp_path, 1)) < 13 and process.poll() is None:
        time.sleep(0.02)
    os.kill(watched.steps(tmp_path, 1)[-1]["pid"], signal.SIGKILL)
    watched.finish(process, tmp_path)
    ends = (tmp_path / "out").read_text()
    assert all(f"rank {rank}: gloo has ended" in ends for rank in range(2))
    lives = []
    for rank in range(2):
        log = watched.steps(tmp_path, rank)
        pids = list(dict.fromkeys(done["pid"] for done in log))
        assert len(pids) == 2, f"rank {rank} did not start again"
        lives.append([[done for done in log if done["pid"] == pid] for pid in pids])
    (first, second), (first_1, second_1) = lives
    start = len(schedule) - len(second)
    assert start >= 10
    assert start % 5 == 0
    dataset = VideoDataset.from_folder(videos, mean=0.45, std=0.225, stride=2)
    for rank_0, rank_1, offset in ((first, first_1, 0), (second, second_1, start)):
        for i, ranks in enumerate(zip(rank_0, rank_1, strict=offset > 0), start=offset):
            b, t, h, w = schedule[i].shape
            assert [done["shapes"] for done in ranks] == 2 * [[[b // 2, 3, t, h, w]]]
            assert ranks[0]["weights"] == ranks[1]["weights"]
    batches = list(BatchSampler(schedule))
    for i in (0, 7, len(schedule) - 1):
        done = [log[i] for log in (first, first_1)] if i < 10 else [log[i - start] for log in (second, second_1)]
        want = [watched.digest(dataset[sample][0]) for sample in batches[i]]
        assert done[0]["clips"] + done[1]["clips"] == want


STAGES = """
import sys
import torch
from pymultigrid import Schedule, Shape
from pymultigrid.torch import ScaledLR, SubBatchNorm3d, sub_batches

torch.distributed.init_process_group("gloo")
schedule = Schedule(Shape(2, 8, 16, 16), samples=40, epochs=12, lr_drops=(6,), processes=2)
model = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3, 2, 1), torch.nn.BatchNorm3d(4), torch.nn.AdaptiveAvgPool3d(1))
wrapped = torch.nn.parallel.DistributedDataParallel(SubBatchNorm3d.convert(model))
optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
lr = ScaledLR(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.baseline_iterations), schedule)
ema = torch.optim.swa_utils.AveragedModel(wrapped)
keys, seen = list(wrapped.state_dict()), []
for step in schedule:
    b, t, h, w = step.shape
    with sub_batches(wrapped, step):
        wrapped(torch.randn(b, 3, t, h, w)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    ema.update_parameters(wrapped)
    lr.step()
    assert list(wrapped.state_dict()) == keys
    state = [row["momentum_buffer"] for row in optimizer.state.values()]
    things = [wrapped, wrapped.reducer, *wrapped.modules(), *wrapped.parameters(), *ema.parameters(), *state]
    seen.append([id(thing) for thing in things])
assert all(ids == seen[0] for ids in seen)
assert len({step.base for step in schedule}) == 4
every = [None, None]
torch.distributed.all_gather_object(every, [p.tolist() for p in ema.parameters()])
assert every[0] == every[1]
"""


def test_a_stage_change_keeps_the_ddp_wrapper(tmp_path):
    run(tmp_path, STAGES, processes=2)


RANKS_THAT_DISAGREE = """
import torch
from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()

def sampler(samples=20, seed=0, start=0):
    schedule = Schedule(Shape(2, 8, 16, 16), samples=samples, epochs=6, processes=2)
    return BatchSampler(schedule[start:], seed=seed)

assert sampler().rank == rank
for argument, name, first, second in (("samples", "samples", 20, 21), ("seed", "seed", 0, 1), ("start", "start", 0, 5)):
    try:
        sampler(**{argument: (first, second)[rank]})
        raise SystemExit(f"ranks with another {name} were not refused")
    except ValueError as error:
        assert f"rank 1 has a schedule with {name} " in str(error), error
        assert "build the same one on every rank" in str(error), error
"""


def test_ranks_that_disagree_are_refused_on_every_rank(tmp_path):
    """Another number of videos, another seed, a checkpoint that only one node has: said at once, instead of a hang."""
    run(tmp_path, RANKS_THAT_DISAGREE, processes=2)


DATA_THAT_DISAGREE = """
import torch, re
from pathlib import Path
from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler, Loader, VideoDataset

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
schedule = Schedule(Shape(2, 8, 16, 16), samples=4, epochs=6, processes=2)
folder = Path(f"disk of rank {rank}")
paths = [folder / name for name in ("a.mp4", "b.mp4", "c/a.mp4", "c/b.mp4")]
for path in paths:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

def refused(what, make, *choices):
    make(choices[0])
    try:
        make(choices[rank])
        raise SystemExit(f"ranks with another {what} were not refused")
    except ValueError as error:
        assert f"rank 1 has {what} " in str(error), error

weights = lambda w: BatchSampler(schedule, weights=w)
refused("weights of checksum", weights, [1, 2, 3, 4], [1, 2, 4, 3])
refused("weights of checksum", weights, None, [1, 2, 4, 3])
refused("repeats", lambda n: BatchSampler(schedule, repeats=n), 1, 2)
data = lambda paths: Loader(VideoDataset(paths, range(4)), schedule)
refused("a list of videos of checksum", data, paths, paths[::-1])
refused("a list of videos of checksum", lambda labels: Loader(VideoDataset(paths, labels), schedule), "abcd", "abdc")
two = lambda paths: Loader(VideoDataset(paths[:2], "ab") + VideoDataset(paths[2:], "cd"), schedule)
refused("a list of videos of checksum", two, paths, paths[::-1])

loader = torch.utils.data.DataLoader([0] * 4, batch_sampler=BatchSampler(schedule))
try:
    loader.batch_sampler.drop_last
except ValueError as error:
    assert f"already gives the batches of rank {rank} of 2" in str(error), error
else:
    raise SystemExit("batches can be dealt out twice")
"""


def test_ranks_with_other_data_are_refused_on_every_rank(tmp_path):
    """The same files on disks of their own are the same; another order, other labels or weights are not."""
    run(tmp_path, DATA_THAT_DISAGREE, processes=2)


ONE_REFUSES = """
import torch
from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()

class Clips(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, sample):
        return sample.grid((4 if rank == 1 and sample.step.index == 3 else 40, 16, 16)).t.size

for step, batch in Loader(Clips(), Schedule(Shape(2, 8, 16, 16), samples=8, epochs=9, processes=2)):
    torch.distributed.all_reduce(torch.ones(1))  # as of gradients: the others wait for the one that refuses
"""


def test_where_one_rank_refuses_the_others_end_too(tmp_path):
    """As docs/torch.md says of torchrun: they don't wait for it half an hour."""
    start = time.monotonic()
    (tmp_path / "loop.py").write_text(ONE_REFUSES)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "loop.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert "ValueError: the video has 4 frames, fewer than the clip's 8 frames" in done.stderr
    assert time.monotonic() - start < 120


SHARES = """
import sys
import torch
from pymultigrid.torch import SubBatchNorm3d, VideoDataset, evaluate
from pymultigrid import Schedule, Shape

torch.distributed.init_process_group("gloo")
rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
saved = torch.load(sys.argv[1])
schedule = Schedule.from_dict(saved["schedule"])
net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.BatchNorm3d(4), torch.nn.AdaptiveAvgPool3d(1))
model = torch.nn.Sequential(SubBatchNorm3d.convert(net), torch.nn.Flatten(), torch.nn.Linear(4, 9))
model.load_state_dict(saved["model"])
net[1].running_mean += rank  # until the next forward of DDP every rank has its own
wrapped = torch.nn.parallel.DistributedDataParallel(model)
wrapped.train()
for count, scores in saved["scores"].items():
    dataset = VideoDataset(saved["paths"][:count], range(count), mean=0.45, std=0.225)
    found = evaluate(wrapped, dataset.evaluation(schedule.shape, clips=2), batch_size=5)
    assert found.labels.tolist() == list(range(count)), found.labels
    torch.testing.assert_close(found.scores, scores)
    assert all(module.training for module in wrapped.modules())
dataset = VideoDataset(saved["paths"][:3 + rank // 2], [0] * (3 + rank // 2), mean=0.45, std=0.225)
try:
    evaluate(wrapped, dataset.evaluation(schedule.shape, clips=2), batch_size=5)
    raise SystemExit("ranks with other videos were not refused")
except ValueError as error:
    assert "(videos, clips, crops, batch_size) are [[3, 2, 1, 5], [3, 2, 1, 5], [4, 2, 1, 5]]" in str(error), error
torch.distributed.barrier()
"""


def test_evaluation_shares_the_videos(videos, tmp_path):
    """Counts of videos that 3 processes do and do not divide, and fewer videos than processes."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.BatchNorm3d(4), torch.nn.AdaptiveAvgPool3d(1))
    model = torch.nn.Sequential(SubBatchNorm3d.convert(net), torch.nn.Flatten(), torch.nn.Linear(4, 9))
    schedule = Schedule(Shape(4, 8, 32, 32), samples=20, epochs=6)
    paths = sorted(map(str, videos.glob("*/*.mp4")))
    scores = {}
    for count in (2, 7, 9):
        dataset = VideoDataset(paths[:count], range(count), mean=0.45, std=0.225)
        scores[count] = evaluate(model, dataset.evaluation(schedule.shape, clips=2)).scores
        assert scores[count].unique(dim=0).shape[0] == count
    state = {"schedule": schedule.to_dict(), "model": model.state_dict(), "paths": paths, "scores": scores}
    torch.save(state, tmp_path / "state.pt")
    run(tmp_path, SHARES, tmp_path / "state.pt", processes=3)


def run(folder, code, *arguments, processes):
    script = folder / "script.py"
    script.write_text(code)
    watched.finish(watched.start(folder, script, *arguments, processes=processes), folder)
