import dataclasses
import pickle
import re
import subprocess
import sys

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is missing: the adapter is NOT tested; pip install pymultigrid[torch]"
)

from pymultigrid.torch import BatchSampler, Sample  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from pymultigrid import Schedule, Shape  # noqa: E402

SAMPLES = 50
SCHEDULE = Schedule.from_epochs(Shape(4, 8, 32, 32), samples=SAMPLES, epochs=4, lr_drops=(2,))


def of(processes):
    return Schedule.from_epochs(Shape(4, 8, 32, 32), samples=SAMPLES, epochs=4, lr_drops=(2,), processes=processes)


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
        assert batch == [Sample(SCHEDULE.sample(p, seed=3), step, p, 3) for p in positions]


def test_every_video_once_in_an_epoch():
    stream = [sample.index for batch in BatchSampler(SCHEDULE) for sample in batch]
    for epoch in range(len(stream) // SAMPLES):
        assert sorted(stream[epoch * SAMPLES : (epoch + 1) * SAMPLES]) == list(range(SAMPLES))


def test_the_grid_is_the_steps():
    sample = list(BatchSampler(SCHEDULE, seed=5))[7][2]
    want = sample.step.grid((40, 48, 64), seed=5, sample=sample.position, stride=2, short="loop")
    assert sample.grid((40, 48, 64), stride=2, short="loop") == want


def test_a_sample_is_frozen_and_pickles():
    sample = next(iter(BatchSampler(SCHEDULE)))[0]
    assert pickle.loads(pickle.dumps(sample)) == sample
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.index = 3


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
    with pytest.raises(TypeError, match=re.escape("must be a pymultigrid.Schedule; see Schedule.from_epochs")):
        BatchSampler([1, 2])


PROCESS = """
import sys
import torch.distributed as dist
from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler

rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=2)
schedule = Schedule.from_epochs(Shape(4, 8, 32, 32), samples=50, epochs=2, processes=2)
assert BatchSampler(schedule).rank == rank
every = [None, None]
dist.all_gather_object(every, [[s.position for s in batch] for batch in BatchSampler(schedule)])
for step, a, b in zip(schedule, *every):
    assert a + b == list(range(step.first, step.first + 2 * step.shape.b))
try:
    BatchSampler(Schedule.from_epochs(Shape(4, 8, 32, 32), samples=50, epochs=2))
    raise SystemExit("two processes on a schedule for one were not refused")
except ValueError as error:
    assert "torch.distributed runs 2 processes, the schedule is for 1" in str(error), error
assert BatchSampler(Schedule.from_epochs(Shape(4, 8, 32, 32), samples=50, epochs=2), rank=0).rank == 0
dist.destroy_process_group()
"""


def test_two_real_processes(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in ranks:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
