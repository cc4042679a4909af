"""The loader whose batches carry their step: however it is resumed, sliced, skipped or prepared."""

import gc
import re
import traceback
import warnings
from itertools import islice

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler, Loader, ScaledLR, StreamDataset, SubBatchNorm, sub_batches

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


# -- step, clips and learning rate are compared where they meet --------------------------------------------------------


def parts(schedule=SCHEDULE, lr_of=None, norm=True):
    torch.manual_seed(0)
    layers = [nn.Conv3d(3, 4, 1), *([nn.BatchNorm3d(4)] if norm else [])]
    model = SubBatchNorm.convert(nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lr = ScaledLR(torch.optim.lr_scheduler.ConstantLR(optimizer, 1), lr_of or schedule)
    return model, optimizer, lr


def train(loader, model, optimizer, lr, *, update=lambda i: True, schedule_step=lambda i: 1):
    for i, (step, (clips, _, _)) in enumerate(loader):
        with sub_batches(model, step):
            model(clips).square().mean().backward()
        if update(i):
            optimizer.step()
            optimizer.zero_grad()
        for _ in range(schedule_step(i)):
            lr.step()


@pytest.mark.parametrize("norm", [True, False])
def test_a_right_loop_is_left_alone(norm):
    model, optimizer, lr = parts(norm=norm)
    train(Loader(Clips(), SCHEDULE), model, optimizer, lr)
    assert lr.last_epoch == len(SCHEDULE)


@pytest.mark.parametrize(
    ("loop", "said"),
    [
        (
            {"schedule_step": lambda i: 0},
            "the loop trains step 1, and the learning rate stands at step 0: call lr.step()",
        ),
        ({"schedule_step": lambda i: 2}, "the loop trains step 1, and the learning rate stands at step 2"),
        (
            {"update": lambda i: i % 2 == 1, "schedule_step": lambda i: i % 2},
            "step 1 begins while the gradients of step 0 wait for an optimizer step: gradients are accumulated",
        ),
    ],
)
@pytest.mark.parametrize("norm", [True, False])
def test_a_loop_that_counts_otherwise_is_refused(loop, said, norm):
    with pytest.raises(RuntimeError, match=re.escape(said)):
        train(Loader(Clips(), SCHEDULE), *parts(norm=norm), **loop)


def test_one_side_resumed_alone_is_refused():
    with pytest.raises(
        RuntimeError, match=re.escape("the loop trains step 0, and the learning rate stands at step 20")
    ):
        train(Loader(Clips(), SCHEDULE), *parts(lr_of=SCHEDULE[20:]))
    with pytest.raises(
        RuntimeError, match=re.escape("the loop trains step 20, and the learning rate stands at step 0")
    ):
        train(Loader(Clips(), SCHEDULE[20:]), *parts())
    train(Loader(Clips(), SCHEDULE[20:]), *parts(lr_of=SCHEDULE[20:]))


def test_a_loop_over_epochs_around_it_is_refused():
    loop = Loader(Clips(), SCHEDULE), *parts()
    train(*loop)
    with pytest.raises(RuntimeError, match="the training is complete: save the model"):
        train(*loop)


def test_a_second_lr_step_is_named():
    with pytest.raises(RuntimeError, match=re.escape("lr.step() was called twice")):
        train(Loader(Clips(), SCHEDULE), *parts(), schedule_step=lambda i: 2)


def test_an_lr_step_for_each_micro_batch_is_warned_of_once():
    with pytest.warns(RuntimeWarning, match=re.escape("lr.step() at step 1, whose gradients wait")) as told:
        train(Loader(Clips(), SCHEDULE), *parts(), update=lambda i: i % 2 == 0)
    assert len(told) == 1


def test_a_training_without_scaled_lr_is_warned_of_once():
    def train_without():
        for step, (clips, _, _) in Loader(Clips(), SCHEDULE):
            with sub_batches(model, step):
                model(clips).square().mean().backward()
            optimizer.step()

    model, optimizer, lr = parts()
    del lr
    gc.collect()
    with pytest.warns(RuntimeWarning, match="needs 8 times the baseline's learning rate, and there is no") as told:
        train_without()
    assert len(told) == 1


def test_a_loop_of_epochs_by_the_schedule_is_the_whole_training():
    data, (model, optimizer, lr) = Clips(), parts()
    trained = []
    for epoch in range(SCHEDULE.num_epochs):
        loader = Loader(data, SCHEDULE.epoch(epoch))
        train(loader, model, optimizer, lr)
        trained += [step.index for step in SCHEDULE.epoch(epoch)]
    assert trained == [step.index for step in SCHEDULE]
    assert lr.last_epoch == SCHEDULE.stop


def test_a_learning_rate_of_another_schedule_is_refused():
    other = Schedule(Shape(4, 4, 16, 16), samples=VIDEOS, epochs=30)
    with pytest.raises(
        RuntimeError, match=re.escape("step 1 of the loop and of the ScaledLR are of different schedules")
    ):
        train(Loader(Clips(), SCHEDULE), *parts(lr_of=other))


def test_on_another_number_of_processes_it_is_the_same_schedule():
    train(Loader(Clips(), SCHEDULE.with_processes(2), rank=0), *parts(lr_of=SCHEDULE))


def test_a_step_that_a_grad_scaler_skips_is_no_mistake():
    """A trainer that does not step the scheduler with it (transformers' with fp16), and a loop that does."""
    for schedule_step in (lambda i: int(i != 5), lambda i: 1):
        model, optimizer, lr = parts()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        for i, (step, (clips, _, _)) in enumerate(Loader(Clips(), SCHEDULE)):
            with sub_batches(model, step):
                loss = model(clips).square().mean() * (float("inf") if i == 5 else 1.0)
                scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            for _ in range(schedule_step(i)):
                lr.step()
            assert lr.last_epoch in (i, i + 1)
        assert lr.last_epoch == len(SCHEDULE)


def test_a_batch_norm_that_sees_other_clips_is_refused():
    model, _, _ = parts()
    step = SCHEDULE[0]
    with (
        pytest.raises(
            ValueError, match=re.escape(f"a batch norm sees {step.shape.b // 2} clips, and the step has {step.shape.b}")
        ),
        sub_batches(model, step),
    ):
        model[1](torch.zeros(step.shape.b // 2, 4, 1, 2, 2))


@pytest.mark.parametrize("norm", [True, False])
def test_an_input_of_another_shape_is_warned_of_once(norm):
    model, _, _ = parts(norm=norm)
    step = SCHEDULE[0]
    wrong = torch.zeros(step.shape.b, 3, 4, 16, 16)
    with (
        sub_batches(model, step),
        pytest.warns(RuntimeWarning, match="Does the data set read each clip on its sample's"),
    ):
        model(wrong)
    with sub_batches(model, step):
        model(wrong)
    assert not model._forward_pre_hooks


def test_a_training_forward_outside_of_a_step_is_warned_of_once():
    model, _, _ = parts()
    clips = torch.zeros(2, 3, 4, 16, 16)
    model.eval()(clips)
    with torch.no_grad():
        model.train()(clips)
    with pytest.warns(RuntimeWarning, match=re.escape("outside sub_batches(model, step)")):
        model(clips)
    model(clips)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SubBatchNorm.revert(model)(clips)


def test_two_models_of_one_process_each_follow_their_own_rate():
    (teacher, _, standing), (student, optimizer, lr) = parts(), parts()
    for i, (step, (clips, _, _)) in enumerate(Loader(Clips(), SCHEDULE)):
        with sub_batches(student, step):
            student(clips).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        lr.step()
        if i == 3:
            break
    assert standing.last_epoch == 0
    with pytest.raises(RuntimeError, match="the loop trains step 3, and the learning rate stands at step 0"):
        sub_batches(nn.ModuleList([teacher, student]), step).__enter__()
    del standing, lr  # a scheduler that is gone has no say
    sub_batches(teacher, step).__enter__()
