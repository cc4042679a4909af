"""Step, clips and learning rate are compared where they meet: right loops are left alone, wrong ones are told."""

import gc
import re
import warnings

import pytest
import torch
from test_loader_steps import SCHEDULE, VIDEOS, Clips
from torch import nn

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, sub_batches


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
