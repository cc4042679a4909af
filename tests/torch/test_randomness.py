"""Random numbers of a user's own, drawn while clips are read: each clip's are its own."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler, Loader, VideoDataset

VIDEOS = 8
SCHEDULE = Schedule(Shape(4, 4, 16, 16), samples=VIDEOS, epochs=12)


def draw():
    """A number from each of the generators that augmentations use."""
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002


class Augmented(Dataset):
    def __len__(self):
        return VIDEOS

    def __getitem__(self, sample):
        return torch.tensor([*draw(), *draw()]), sample.position


class Together(Augmented):
    def __getitems__(self, samples):
        return [self[sample] for sample in samples]


def collate(items):
    clips, positions = default_collate(items)
    return clips, positions, torch.tensor(draw())  # as mixup does


def read(item, sample):
    return Augmented()[sample]


def drawn(loader):
    """What each clip and each batch was given, by the clip's position."""
    clips, mixed = {}, {}
    for step, (rows, positions, mix) in loader:
        assert step.first == positions[0]
        mixed[step.index] = mix.tolist()
        clips.update({int(position): tuple(row.tolist()) for position, row in zip(positions, rows, strict=True)})
    return clips, mixed


def made(kind, schedule, **options):
    if kind == "stream":
        return Loader(range(5), schedule, read=read, seed=3, collate_fn=collate, **options)
    return Loader({"items": Augmented, "together": Together}[kind](), schedule, seed=3, collate_fn=collate, **options)


@pytest.mark.parametrize("kind", ["items", "together", "stream"])
@pytest.mark.parametrize(
    "options", [{"num_workers": 1, "multiprocessing_context": "spawn"}, {"num_workers": 2}, {"num_workers": 0}]
)
def test_a_clip_comes_back_with_its_own_numbers(kind, options):
    """With any number of workers, and after a resume."""
    torch.manual_seed(1)
    clips, mixed = drawn(made(kind, SCHEDULE))
    assert len(set(clips.values())) == len(clips) == SCHEDULE.clips
    assert len({tuple(mix) for mix in mixed.values()}) == len(SCHEDULE)
    torch.manual_seed(2)
    assert drawn(made(kind, SCHEDULE, **options)) == (clips, mixed)
    resumed = made(kind, SCHEDULE, **options)
    resumed.load_state_dict({**resumed.state_dict(), "step": 9})
    later, mixed_later = drawn(resumed)
    assert min(later) == SCHEDULE[9].first
    assert all(clips[position] == row for position, row in later.items())
    assert all(mixed[index] == mix for index, mix in mixed_later.items())


def test_a_clip_is_the_same_on_any_number_of_processes():
    clips, _ = drawn(made("items", SCHEDULE))
    two = SCHEDULE.with_processes(2)
    found = {}
    for rank in range(2):
        for _, (rows, positions, _) in made("items", two, rank=rank):
            found |= {int(position): tuple(row.tolist()) for position, row in zip(positions, rows, strict=True)}
    assert found == clips


def test_the_loops_own_numbers_are_not_drawn():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    want = draw()
    loader = iter(made("items", SCHEDULE))
    next(loader)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    next(loader)
    assert draw() == want


def test_a_data_set_of_files_with_augmentations(tmp_path):
    mp4 = pytest.importorskip("mp4", reason="PyAV is missing: augmented video files are NOT tested")
    path = mp4.write(tmp_path / "a.mp4", frames=12)

    class Noisy(VideoDataset):
        def __getitem__(self, sample):
            clip, label = super().__getitem__(sample)
            return clip + torch.rand_like(clip), label

    dataset = Noisy(VIDEOS * [path], range(VIDEOS))
    first, second = (
        list(DataLoader(dataset, batch_sampler=BatchSampler(SCHEDULE[:3]), num_workers=workers)) for workers in (0, 2)
    )
    for (clips, _), (same, _), (_, (ours, _)) in zip(first, second, Loader(dataset, SCHEDULE), strict=False):
        assert torch.equal(clips, same)
        assert torch.equal(clips, ours)
        assert not torch.equal(clips[0], clips[1])
