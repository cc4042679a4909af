import dataclasses
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import reference
import torch
from torch.utils.data import DataLoader, Dataset

from pymultigrid import Schedule, Shape, mini_batch
from pymultigrid.torch import BatchSampler, Sample

SAMPLES = 50
SCHEDULE = Schedule(Shape(4, 8, 32, 32), samples=SAMPLES, epochs=4, lr_drops=(2,))


def of(processes):
    return Schedule(Shape(4, 8, 32, 32), samples=SAMPLES, epochs=4, lr_drops=(2,), processes=processes)


class Numbers(Dataset):
    """What a worker sees: the sample's index, position and the size of its grid."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, sample):
        grid = sample.grid((40, 48, 64), flip=0)
        return torch.tensor(
            [list(range(SAMPLES))[sample], sample.position, grid.t.size, grid.h.size, int(grid.w.start)]
        )


def batches(loader):
    return [batch.tolist() for batch in loader]


def test_a_batch_per_step_of_its_shape():
    sampler = BatchSampler(SCHEDULE, seed=3)
    assert len(sampler) == len(SCHEDULE) == len(list(sampler))
    for step, batch in zip(SCHEDULE, sampler, strict=True):
        positions = range(step.first, step.first + step.shape.b)
        assert list(batch) == [Sample(SCHEDULE.sample(p, seed=3), step, p, 3, SAMPLES) for p in positions]


def test_every_video_once_in_an_epoch():
    stream = [sample.index for batch in BatchSampler(SCHEDULE) for sample in batch]
    for epoch in range(len(stream) // SAMPLES):
        assert sorted(stream[epoch * SAMPLES : (epoch + 1) * SAMPLES]) == list(range(SAMPLES))


def test_the_grid_is_the_steps():
    sample = list(BatchSampler(SCHEDULE, seed=5))[7][2]
    want = sample.step.grid((40, 48, 64), seed=5, sample=sample.position, stride=2, beyond="loop")
    assert sample.grid((40, 48, 64), stride=2, beyond="loop") == want


def test_a_sample_is_frozen_and_pickles():
    sample = next(iter(BatchSampler(SCHEDULE)))[0]
    assert pickle.loads(pickle.dumps(sample)) == sample
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.index = 3


def test_a_batch_is_a_frozen_sequence_that_pickles_small():
    batch = list(BatchSampler(SCHEDULE))[3]
    assert pickle.loads(pickle.dumps(batch)) == batch
    assert list(batch[1:3]) == [batch[1], batch[2]]
    assert batch[-1] == list(batch)[-1]
    with pytest.raises(IndexError):
        batch[len(batch)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.seed = 3
    assert len(pickle.dumps(batch)) < len(pickle.dumps(list(batch)))


def test_ranks_share_every_step():
    whole = [[s.position for s in batch] for batch in BatchSampler(of(4), rank=0)]
    ranks = [list(BatchSampler(of(4), rank=rank)) for rank in range(4)]
    for i, step in enumerate(of(4)):
        assert len({batch[i][0].step for batch in ranks}) == 1
        positions = [s.position for batch in ranks for s in batch[i]]
        assert positions == list(range(step.first, step.first + 4 * step.shape.b))
        assert whole[i] == positions[: step.shape.b]


def test_resuming_is_slicing():
    whole = list(BatchSampler(SCHEDULE, seed=1))
    assert list(BatchSampler(SCHEDULE[5:], seed=1)) == whole[5:]
    assert len(BatchSampler(SCHEDULE[5:9])) == 4


@pytest.mark.parametrize(("workers", "context"), [(1, "fork"), (2, "fork"), (2, "spawn")])
def test_workers_give_the_batches_of_one_process(workers, context):
    schedule = SCHEDULE[: min(12, len(SCHEDULE))]
    want = batches(DataLoader(Numbers(), batch_sampler=BatchSampler(schedule)))
    loader = DataLoader(
        Numbers(), batch_sampler=BatchSampler(schedule), num_workers=workers, multiprocessing_context=context
    )
    assert len(loader) == len(schedule)
    assert batches(loader) == want


def test_persistent_workers_and_epochs():
    loader = DataLoader(
        Numbers(), batch_sampler=BatchSampler(SCHEDULE[:6]), num_workers=1, persistent_workers=True, prefetch_factor=4
    )
    assert batches(loader) == batches(loader)


def test_list_backed_data_sets_work_unchanged():
    data = torch.utils.data.TensorDataset(torch.arange(SAMPLES))
    (first,) = next(iter(DataLoader(data, batch_sampler=BatchSampler(SCHEDULE))))
    assert first.tolist() == [sample.index for sample in next(iter(BatchSampler(SCHEDULE)))]
    rows = list(range(SAMPLES))  # a list asks for __index__
    assert next(iter(DataLoader(rows, batch_sampler=BatchSampler(SCHEDULE)))).tolist() == first.tolist()


# -- gradient accumulation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world", "k"), [(1, 4), (2, 2), (4, 1)])
def test_accumulation_is_processes_in_time(world, k):
    """However the processes of a schedule are divided into ranks and micro-batches, a step's clips are the same."""
    schedule = of(4)
    ranks = [list(BatchSampler(schedule, rank=rank, accumulate=k, seed=2)) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {k * len(schedule)}
    assert len(BatchSampler(schedule, rank=0, accumulate=k)) == k * len(schedule)
    for i, step in enumerate(schedule):
        samples = [sample for batches in ranks for batch in batches[i * k : (i + 1) * k] for sample in batch]
        assert [sample.position for sample in samples] == list(range(step.first, step.first + 4 * step.shape.b))
        assert {sample.step for sample in samples} == {step}
        assert all(len(batch) == step.shape.b for batches in ranks for batch in batches[i * k : (i + 1) * k])


def test_accumulated_gradients_are_the_whole_batchs():
    """The loop of the docstring, on real gradients: the mean over micro-batches is the global batch's."""
    data = torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(0))
    schedule = of(2)[:5]

    def gradients(loader, k):
        batches = iter(loader)
        for _ in schedule:
            weight = torch.zeros(3, requires_grad=True)
            for _ in range(k):
                ((next(batches)[0] @ weight - 1).square().mean() / k).backward()
            yield weight.grad
        assert next(batches, None) is None

    rows = torch.utils.data.TensorDataset(data)
    micro = DataLoader(rows, batch_sampler=BatchSampler(schedule, accumulate=2), num_workers=2)
    assert len(micro) == 10
    whole = DataLoader(rows, batch_sampler=BatchSampler(schedule.with_processes(1)))
    for a, b in zip(gradients(micro, 2), gradients(whole, 1), strict=True):
        torch.testing.assert_close(a, b)


# -- repeats and weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [2, 3, 7])
def test_repeats_are_clips_of_one_video(repeats):
    """Whatever borders of batches, epochs and ranks lie between them."""
    ranks = [list(BatchSampler(of(2), rank=rank, repeats=repeats, seed=9)) for rank in range(2)]
    samples = sorted((s for batches in ranks for batch in batches for s in batch), key=lambda s: s.position)
    assert [s.position for s in samples] == list(range(of(2).clips))
    assert [s.index for s in samples] == [SCHEDULE.sample(s.position // repeats, seed=9) for s in samples]
    grids = [s.grid((400, 480, 640)) for s in samples[:repeats]]
    assert len(set(grids)) == repeats
    assert list(BatchSampler(of(2)[7:], rank=1, repeats=repeats, seed=9)) == ranks[1][7:]


def test_weights_are_shares_drawn_with_replacement():
    weights = [0.0, *range(1, SAMPLES - 1), 0.0]
    schedule = Schedule(Shape(4, 8, 32, 32), samples=SAMPLES, epochs=200)
    drawn = torch.tensor([i for batch in BatchSampler(schedule, weights=weights, seed=1) for i in batch.indices])
    counts = torch.bincount(drawn, minlength=SAMPLES).double()
    assert counts[0] == counts[-1] == 0
    expected = len(drawn) * torch.tensor(weights, dtype=torch.float64) / sum(weights)
    inside = slice(1, -1)
    chi2 = ((counts - expected)[inside].square() / expected[inside]).sum()
    assert chi2 < 90  # 47 degrees of freedom: one seed in thousands would exceed it, and this one is fixed


def test_weighted_draws_are_a_function_of_seed_and_position():
    weights = torch.arange(SAMPLES) + 1.0
    whole = [s for batch in BatchSampler(of(1), weights=weights, seed=4) for s in batch]
    video = {s.position: s.index for s in whole}
    for rank in range(3):
        for batch in BatchSampler(of(3)[5:], rank=rank, weights=weights.numpy(), seed=4):
            assert all(video.setdefault(s.position, s.index) == s.index for s in batch)
    other = [s for batch in BatchSampler(of(1), weights=weights, seed=5) for s in batch]
    assert [s.index for s in other] != [s.index for s in whole]
    for sample in (s for batch in BatchSampler(of(1), weights=weights, seed=4, repeats=3) for s in batch):
        assert sample.index == video[sample.position // 3]


def test_a_weighted_draw_is_counted_not_carried_on():
    """Position p draws with the random words of counter p: a number in [0, 1), times the sum of the weights."""
    weights = np.arange(1.0, SAMPLES + 1)
    rising = np.cumsum(weights / SAMPLES)
    for sample in (s for batch in BatchSampler(SCHEDULE[:20], weights=weights, seed=6) for s in batch):
        high, low, *_ = reference.philox(6, [sample.position, 0, 0, 0xFFFFFFFE])
        share = ((high << 32 | low) >> 11) / 2**53
        assert sample.index == np.searchsorted(rising, share * rising[-1], side="right")


def test_weights_of_any_scale_are_shares():
    weights = np.arange(1.0, SAMPLES + 1)
    want = list(BatchSampler(SCHEDULE, weights=weights))
    for scale in (2.0**-1040, 2.0**-20, 2.0**1018):
        assert list(BatchSampler(SCHEDULE, weights=weights * scale)) == want


def test_weights_and_repeats_through_real_workers():
    sampler = BatchSampler(SCHEDULE[:8], weights=range(SAMPLES), repeats=2, seed=3)
    want = batches(DataLoader(Numbers(), batch_sampler=sampler))
    assert batches(DataLoader(Numbers(), batch_sampler=sampler, num_workers=2)) == want


# -- data sets of data sets --------------------------------------------------------------------------------------------


class Part(Numbers):
    """A part of a data set, that says its name."""

    def __init__(self, name, length):
        self.name, self.length = name, length

    def __len__(self):
        return self.length

    def __getitem__(self, sample):
        assert sample.index < self.length
        return self.name, sample.index, sample.samples, sample.grid((40, 48, 64)).h.size


def test_concatenated_data_sets_keep_the_grid():
    both = Part("a", 20) + Part("b", 30)
    assert isinstance(both, torch.utils.data.ConcatDataset)
    seen = set()
    loader = DataLoader(both, batch_sampler=BatchSampler(SCHEDULE), num_workers=1)
    for step, batch, (names, indices, samples, sizes) in zip(SCHEDULE, BatchSampler(SCHEDULE), loader, strict=True):
        assert set(sizes.tolist()) == {step.shape.h}
        whole = [i + 20 * (name == "b") for name, i in zip(names, indices.tolist(), strict=True)]
        assert whole == list(batch.indices)
        assert all(n == (30 if name == "b" else 50) for name, n in zip(names, samples.tolist(), strict=True))
        seen |= set(names)
    assert seen == {"a", "b"}


# -- errors ------------------------------------------------------------------------------------------------------------


def test_the_rank_is_asked_for():
    with pytest.raises(RuntimeError, match=re.escape("the schedule is for 4 processes and torch.distributed is not")):
        BatchSampler(of(4))
    with pytest.raises(ValueError, match=re.escape("rank (4) must lie in [0, 4), the schedule's processes")):
        BatchSampler(of(4), rank=4)
    with pytest.raises(ValueError, match=re.escape("rank (-1) must lie in [0, 1)")):
        BatchSampler(SCHEDULE, rank=-1)


def test_other_bad_arguments():
    with pytest.raises(ValueError, match=re.escape("seed (-1) must lie in [0, 2**64)")):
        BatchSampler(SCHEDULE, seed=-1)
    with pytest.raises(TypeError, match=re.escape("seed ('a') must be a whole number")):
        BatchSampler(SCHEDULE, seed="a")
    with pytest.raises(TypeError, match=re.escape("must be a pymultigrid.Schedule; write Schedule(shape, ...)")):
        BatchSampler([1, 2])


def test_bad_accumulation():
    with pytest.raises(ValueError, match=re.escape("accumulate (3) must divide the schedule's processes (4): a micro")):
        BatchSampler(of(4), accumulate=3)
    with pytest.raises(ValueError, match=re.escape("accumulate (2) must divide the schedule's processes (1): a micro")):
        BatchSampler(SCHEDULE, accumulate=2)
    with pytest.raises(ValueError, match=re.escape("accumulate (0) must be at least 1")):
        BatchSampler(SCHEDULE, accumulate=0)
    with pytest.raises(
        RuntimeError, match=re.escape("is for 2 processes / accumulate (2) and torch.distributed is not initialised")
    ):
        BatchSampler(of(4), accumulate=2)
    with pytest.raises(ValueError, match=re.escape("rank (2) must lie in [0, 2), the schedule's processes / accumul")):
        BatchSampler(of(4), accumulate=2, rank=2)


def test_bad_repeats_and_weights():
    with pytest.raises(ValueError, match=re.escape("repeats (0) must be at least 1")):
        BatchSampler(SCHEDULE, repeats=0)
    with pytest.raises(TypeError, match=re.escape("repeats (1.5) must be a whole number")):
        BatchSampler(SCHEDULE, repeats=1.5)
    with pytest.raises(ValueError, match=re.escape("weights has the shape (3,); pass one for each of the schedule's")):
        BatchSampler(SCHEDULE, weights=[1, 2, 3])
    with pytest.raises(ValueError, match=re.escape("weights[2] (-1.0) must be finite and not negative; 0 leaves")):
        BatchSampler(SCHEDULE, weights=[1, 2, -1] + 47 * [1])
    with pytest.raises(ValueError, match=re.escape("weights[0] (nan) must be finite")):
        BatchSampler(SCHEDULE, weights=[float("nan")] + 49 * [1])
    with pytest.raises(ValueError, match=re.escape("weights are all 0; pass a weight above 0 for the videos to draw")):
        BatchSampler(SCHEDULE, weights=50 * [0])


def test_a_schedule_that_knows_no_videos():
    with pytest.raises(ValueError, match=re.escape("the schedule was made without samples=")):
        BatchSampler(Schedule(Shape(4, 8, 32, 32), iterations=100))


PROCESS = """
import os
import sys
import torch.distributed as dist
from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler

rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=2)
schedule = Schedule(Shape(4, 8, 32, 32), samples=50, epochs=2, processes=2)
assert BatchSampler(schedule).rank == rank
every = [None, None]
dist.all_gather_object(every, [[s.position for s in batch] for batch in BatchSampler(schedule)])
for step, a, b in zip(schedule, *every):
    assert a + b == list(range(step.first, step.first + 2 * step.shape.b))
try:
    BatchSampler(Schedule(Shape(4, 8, 32, 32), samples=50, epochs=2))
    raise SystemExit("two processes on a schedule for one were not refused")
except ValueError as error:
    assert "torch.distributed runs 2 processes, the schedule is for 1;" in str(error), error
four = Schedule(Shape(4, 8, 32, 32), samples=50, epochs=2, processes=4)
dist.all_gather_object(every, [[s.position for s in batch] for batch in BatchSampler(four, accumulate=2)])
for i, step in enumerate(four):
    micro = [positions for batches in every for positions in batches[2 * i : 2 * i + 2]]
    assert sum(micro, []) == list(range(step.first, step.first + 4 * step.shape.b))
try:
    BatchSampler(schedule, accumulate=2)
    raise SystemExit("two processes that accumulate over two were not refused on a schedule for two")
except ValueError as error:
    assert "torch.distributed runs 2 processes, the schedule is for 1 / accumulate (2)" in str(error), error
    assert "build it with processes=4" in str(error), error
assert BatchSampler(Schedule(Shape(4, 8, 32, 32), samples=50, epochs=2), rank=0).rank == 0
os._exit(0)  # see processes.leave
"""


def test_two_real_processes(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in ranks:
        _, said = process.communicate(timeout=1200)
        assert process.returncode == 0, said.decode()


def test_they_are_those_of_a_loop_without_a_framework():
    schedule = Schedule(Shape(4, 16, 112, 112), samples=100, epochs=10, lr_drops=(5,), processes=2)
    for step, batch in zip(schedule, BatchSampler(schedule, seed=5, rank=1), strict=True):
        assert batch == mini_batch(schedule, step, seed=5, rank=1)
        assert [sample.index for sample in batch] == [schedule.sample(s.position, seed=5) for s in batch]


def test_processes_that_nobody_joined_are_refused(monkeypatch):
    """torchrun has started them, and the script never calls init_process_group: each would train alone."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    schedule = Schedule(Shape(4, 4, 16, 16), samples=24, epochs=20)
    with pytest.raises(RuntimeError, match=re.escape("torchrun started 2 processes (WORLD_SIZE)")):
        BatchSampler(schedule)
    assert len(BatchSampler(schedule, rank=0)) == len(schedule)
