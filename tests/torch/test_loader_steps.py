"""The loader whose batches carry their step: however it is resumed, sliced, skipped or prepared."""

import re
import traceback
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler, Loader, StreamDataset

VIDEOS = 24
SCHEDULE = Schedule(Shape(4, 4, 16, 16), samples=VIDEOS, epochs=20)


class Clips(Dataset):
    """Clips of a sample's shape, and the step and position that it is for as its label."""

    def __len__(self):
        return VIDEOS

    def __getitem__(self, sample):
        return torch.full((3, *tuple(sample.step.shape)[1:]), 0.5), sample.step.index, sample.position


def read(item, sample):
    return torch.full((3, *tuple(sample.step.shape)[1:]), float(item)), sample.step.index, sample.position


def steps_of(loader):
    """The steps that come, each checked against what its batch was read for."""
    found = []
    for step, (clips, steps, positions) in loader:
        assert set(steps.tolist()) == {step.index}
        assert clips.shape == (step.shape.b, 3, step.shape.t, step.shape.h, step.shape.w)
        found.append((step.index, positions.tolist()))
    return found


@pytest.mark.parametrize("options", [{}, {"num_workers": 2, "persistent_workers": True}])
@pytest.mark.parametrize("stream", [False, True])
def test_every_batch_comes_with_its_step(stream, options):
    data = {"dataset": range(5), "read": read} if stream else {"dataset": Clips()}
    loader = Loader(schedule=SCHEDULE, seed=3, **data, **options)
    want = [(step.index, list(range(step.first, step.first + step.shape.b))) for step in SCHEDULE]
    assert len(loader) == len(SCHEDULE)
    assert steps_of(loader) == want
    assert steps_of(loader) == want  # a second loop begins again
    loader.load_state_dict({**loader.state_dict(), "step": 30})
    assert steps_of(loader) == want[30:]
    assert steps_of(loader) == want
    assert steps_of(Loader(schedule=SCHEDULE[30:40], **data, **options)) == want[30:40]


@pytest.mark.parametrize("stop", [1, 17, 33])
def test_the_state_is_where_the_loop_is(stop):
    loader, want = Loader(Clips(), SCHEDULE), steps_of(Loader(Clips(), SCHEDULE))
    for step, _ in islice(loader, stop):
        assert loader.state_dict()["step"] == step.index + 1
    saved = torch.utils.data.default_convert(loader.state_dict())
    for schedule in (SCHEDULE, SCHEDULE[stop - 1 :], SCHEDULE[stop:]):
        again = Loader(Clips(), schedule)
        again.load_state_dict(saved)
        assert steps_of(again) == want[stop:]
        assert len(again) == len(schedule)


def test_a_state_survives_a_file_and_another_number_of_processes(tmp_path):
    two = SCHEDULE.with_processes(2)
    loader = Loader(Clips(), two, rank=1)
    steps = [step.index for step, _ in islice(loader, 9)]
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    one = Loader(Clips(), SCHEDULE)
    one.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert steps_of(one)[0][0] == steps[-1] + 1


def test_states_of_something_else_are_refused():
    loader = Loader(Clips(), SCHEDULE, seed=1)
    state = loader.state_dict()
    with pytest.raises(ValueError, match=re.escape("the state is of seed 0, the loader here has 1")):
        loader.load_state_dict({**state, "seed": 0})
    other = Loader(Clips(), Schedule(Shape(4, 4, 16, 16), samples=VIDEOS, epochs=30), seed=1)
    with pytest.raises(
        ValueError, match=re.escape("the state is of a schedule whose baseline_epochs is 20.0, here it is 30.0")
    ):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match=re.escape("the state is at step 3, the schedule here has the steps 10 to 12")):
        Loader(Clips(), SCHEDULE[10:12], seed=1).load_state_dict({**state, "step": 3})


def test_accumulation_gives_the_same_step_again():
    schedule = SCHEDULE.with_processes(2)
    loader = Loader(Clips(), schedule, accumulate=2)
    assert len(loader) == 2 * len(schedule)
    found = steps_of(loader)
    assert [index for index, _ in found] == [i for i in range(len(schedule)) for _ in range(2)]
    assert [a + b for (_, a), (_, b) in zip(found[::2], found[1::2], strict=True)] == [
        list(range(step.first, step.first + 2 * step.shape.b)) for step in schedule
    ]


def test_a_whole_that_the_schedule_was_not_made_for():
    with pytest.raises(
        ValueError, match=re.escape("the data set has 48 videos and the schedule was made for samples=24")
    ):
        Loader(Clips() + Clips(), SCHEDULE)
    planned = Schedule(Shape(4, 4, 16, 16), iterations=100)
    with pytest.raises(ValueError, match="the schedule was made without samples="):
        Loader(Clips(), planned)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_hands_on_a_number_alone_is_told_what_to_do(workers):
    """A Subset, a table: in their own words, and with ours."""
    pandas = pytest.importorskip("pandas", reason="pandas is missing: a table as a data set is NOT tried")

    class Table(Dataset):
        def __len__(self):
            return VIDEOS

        def __getitem__(self, sample):
            return pandas.Series(range(VIDEOS)).iloc[sample]

    for data in (torch.utils.data.Subset(Clips(), range(VIDEOS)), Table()):
        with pytest.raises((AttributeError, TypeError)) as caught:
            next(iter(Loader(data, SCHEDULE, num_workers=workers)))
        said = "".join(traceback.format_exception(caught.value))
        assert "sample.index is the number of the video, sample.grid(extent) where to read it" in said


class Plain(Dataset):
    """The data set that a user had: it takes a sample for an index."""

    def __len__(self):
        return VIDEOS

    def __getitem__(self, index):
        return torch.zeros(VIDEOS, 3, 4, 16, 16)[index], torch.zeros(VIDEOS)[index]


def test_clips_of_another_shape_are_refused():
    shape = SCHEDULE[0].shape
    said = f"step 0 trains on {shape} (clips x frames x height x width), and the batch has {shape.b}x3x4x16x16"
    with pytest.raises(ValueError, match=re.escape(said)):
        next(iter(Loader(Plain(), SCHEDULE)))


@pytest.mark.parametrize(
    "form",
    [
        lambda clips: clips.transpose(1, 2),
        lambda clips: clips.movedim(1, -1),
        lambda clips: clips[:, 0],
        lambda clips: clips.transpose(1, 2).flatten(0, 1),
        lambda clips: {"slow": clips[:, :, ::2], "fast": clips},
        lambda clips: (torch.zeros(len(clips), 1, 5, 5), clips),
        lambda clips: clips.mean((2, 3, 4)),
        lambda clips: clips.flatten(2),
        lambda clips: clips.numpy(),
    ],
)
def test_forms_of_clips_that_are_taken(form):
    def collate(items):
        return form(torch.stack([clip for clip, _, _ in items]))

    for _, _ in Loader(Clips(), SCHEDULE, collate_fn=collate):
        pass


@pytest.mark.parametrize(
    "form", [lambda c: c[:-1], lambda c: c[..., :-1], lambda c: torch.cat([c, c]), lambda c: c[:, :, :0]]
)
def test_forms_that_are_not(form):
    def collate(items):
        return form(torch.stack([clip for clip, _, _ in items]))

    with pytest.raises(ValueError, match=r"step 0 trains on .* and the batch has"):
        next(iter(Loader(Clips(), SCHEDULE, collate_fn=collate)))


@pytest.mark.parametrize("name", ["batch_size", "shuffle", "sampler", "batch_sampler", "drop_last"])
def test_what_the_schedule_decides_is_refused(name):
    with pytest.raises(ValueError, match=re.escape(f"{name} (1) is for a plain DataLoader")):
        Loader(Clips(), SCHEDULE, **{name: 1})


def test_kinds_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    for wrong in (Stream(), DataLoader(Clips()), Loader(Clips(), SCHEDULE), 3, StreamDataset([1], SCHEDULE, read)):
        with pytest.raises(TypeError, match=re.escape(f"dataset is a {type(wrong).__name__}, which can't be asked")):
            Loader(wrong, SCHEDULE)
    with pytest.raises(TypeError, match=r"must be a pymultigrid\.Schedule"):
        Loader(Clips(), 20)
    with pytest.raises(ValueError, match=re.escape("repeats and weights choose videos by number")):
        Loader([1], SCHEDULE, read=read, repeats=2)
    with pytest.raises(ValueError, match=re.escape("in_order (False) would give steps in another order")):
        Loader(Clips(), SCHEDULE, in_order=False)


# -- below it: a batch sampler in a loader of another class ------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 10])
def test_torchdatas_loader_on_a_slice_goes_on_where_it_was(workers, start):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader(schedule):
        return stateful(Clips(), batch_sampler=BatchSampler(schedule), num_workers=workers)

    before = loader(SCHEDULE)
    for _ in islice(before, 12):
        state = before.state_dict()
    after = loader(SCHEDULE[start:])
    after.load_state_dict(state)
    assert [int(steps[0]) for _, steps, _ in after] == list(range(12, len(SCHEDULE)))
