import copy
import math
import re
import warnings

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from pymultigrid import Cycles, Schedule, Shape
from pymultigrid._clock import Clock
from pymultigrid.torch import ScaledLR

SCHEDULE = Schedule(Shape(4, 16, 112, 112), samples=150, epochs=20, lr_drops=(10, 15))
N = SCHEDULE.baseline_iterations
PER_EPOCH = 150 / 4


def optimizer(*lrs):
    return torch.optim.SGD([{"params": torch.nn.Parameter(torch.zeros(1)), "lr": lr} for lr in lrs or (0.1,)])


def warm_up(opt):
    first = schedulers.LinearLR(opt, start_factor=0.1, total_iters=50)
    then = schedulers.CosineAnnealingLR(opt, T_max=N - 50)
    return schedulers.SequentialLR(opt, [first, then], milestones=[50])


POLICIES = {
    "cosine": lambda opt: schedulers.CosineAnnealingLR(opt, T_max=N),
    "steps": lambda opt: schedulers.MultiStepLR(opt, [math.ceil(10 * PER_EPOCH), math.ceil(15 * PER_EPOCH)]),
    "lambda": lambda opt: schedulers.LambdaLR(opt, lambda k: 1 / (1 + k)),
    "one cycle": lambda opt: schedulers.OneCycleLR(opt, max_lr=0.5, total_steps=N, cycle_momentum=False),
    "exponential": lambda opt: schedulers.ExponentialLR(opt, 0.999),
    "warm-up": warm_up,
    "restarts": lambda opt: schedulers.CosineAnnealingWarmRestarts(opt, T_0=70),
    "chained": lambda opt: schedulers.ChainedScheduler(
        [schedulers.LinearLR(opt, 0.1, total_iters=30), schedulers.ExponentialLR(opt, 0.99)]
    ),
}


def baseline(policy, groups=(0.1,), steps=N):
    """The learning rates of the plain scheduler, iteration by iteration, one row per group."""
    opt = optimizer(*groups)
    plain = policy(opt)
    rows = []
    for _ in range(steps):
        rows.append([group["lr"] for group in opt.param_groups])
        opt.step()
        plain.step()
    return rows


def trained(opt, lr, steps):
    """The learning rates that the optimizer uses at each of `steps` steps."""
    rows = []
    for _ in range(steps):
        rows.append([group["lr"] for group in opt.param_groups])
        opt.step()
        lr.step()
    return rows


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("groups", [(0.1,), (0.1, 0.02, 0.003)])
def test_each_step_is_the_baselines_learning_rate_times_the_scale(policy, groups):
    plain = baseline(policy, groups)
    opt = optimizer(*groups)
    lr = ScaledLR(policy(opt), SCHEDULE)
    for step, got in zip(SCHEDULE, trained(opt, lr, len(SCHEDULE)), strict=True):
        # at a drop the clock reads the baseline's first iteration that begins at or after it
        wants = [[x * step.lr_scale for x in plain[min(k, N - 1)]] for k in positions(step)]
        assert any(got == pytest.approx(want, rel=1e-12) for want in wants), step


def positions(step):
    """floor(progress * N), or one more: a drop's own iteration is the next whole one; its neighbours move along."""
    k = math.floor(step.progress * N + 1e-6)
    return k, k + 1


@pytest.mark.filterwarnings("ignore:.*and the baseline, whose clock it is on")  # of 97 samples is shorter
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("samples", [150, 152, 97])
def test_over_the_baseline_it_is_the_plain_scheduler(policy, samples):
    schedule = Schedule(
        Shape(4, 16, 112, 112), samples=samples, epochs=20, lr_drops=(7, 15), plan=Cycles(long=None, short=None)
    )
    assert len(schedule) == schedule.baseline_iterations
    steps = min(len(schedule), N)
    opt = optimizer()
    assert trained(opt, ScaledLR(policy(opt), schedule), steps) == baseline(policy, steps=steps)


@pytest.mark.parametrize("samples", [150, 152, 97, 1])
@pytest.mark.parametrize("drops", [(10, 15), (7.3, 11.9), ()])
@pytest.mark.parametrize("processes", [1, 3])
def test_the_clock_is_exact_at_the_drops(samples, drops, processes):
    schedule = Schedule(Shape(2, 16, 112, 112), samples=samples * 7, epochs=20, lr_drops=drops, processes=processes)
    milestones = [math.ceil(drop * samples * 7 / (2 * processes) - 1e-9) for drop in drops]
    opt = optimizer()
    lr = ScaledLR(schedulers.MultiStepLR(opt, milestones), schedule)
    for step, (got,) in zip(schedule, trained(opt, lr, len(schedule)), strict=True):
        assert got == pytest.approx(0.1 * 0.1**step.lr_stage * step.lr_scale, rel=1e-12), step


@pytest.mark.parametrize("drops", [(70, 110), (7, 13, 77), (1, 119)])
def test_the_clock_is_exact_at_drops_in_iterations(drops):
    schedule = Schedule(Shape(3, 16, 112, 112), iterations=120, lr_drops=drops, samples=100)
    opt = optimizer()
    lr = ScaledLR(schedulers.MultiStepLR(opt, list(drops)), schedule)
    for step, (got,) in zip(schedule, trained(opt, lr, len(schedule)), strict=True):
        assert got == pytest.approx(0.1 * 0.1**step.lr_stage * step.lr_scale, rel=1e-12), step


def test_schedulers_that_count_epochs():
    opt = optimizer()
    lr = ScaledLR(schedulers.MultiStepLR(opt, [10, 15]), SCHEDULE, per="epoch")
    for step, (got,) in zip(SCHEDULE, trained(opt, lr, len(SCHEDULE)), strict=True):
        drops = sum(step.progress * SCHEDULE.baseline_epochs >= drop for drop in (10, 15))
        assert got == pytest.approx(0.1 * 0.1**drops * step.lr_scale, rel=1e-12)
        assert drops == step.lr_stage


def test_the_first_learning_rate_is_there_before_the_first_step():
    opt = optimizer(0.1, 0.01)
    lr = ScaledLR(schedulers.CosineAnnealingLR(opt, N), SCHEDULE)
    assert [group["lr"] for group in opt.param_groups] == [0.8, 0.08] == lr.get_last_lr()
    assert lr.current == SCHEDULE[0]


def test_it_stays_when_training_is_over():
    opt = optimizer()
    lr = ScaledLR(schedulers.OneCycleLR(opt, 0.5, total_steps=N, cycle_momentum=False), SCHEDULE)
    trained(opt, lr, len(SCHEDULE) - 1)
    last = opt.param_groups[0]["lr"]
    trained(opt, lr, 1)  # the loop's last lr.step()
    assert opt.param_groups[0]["lr"] == last
    message = "lr.step() after the schedule's last step, 227: the training is complete: save the model"
    with pytest.warns(RuntimeWarning, match=re.escape(message)):
        trained(opt, lr, 1)
    trained(opt, lr, 3)  # said once
    assert opt.param_groups[0]["lr"] == last


def test_a_forgotten_step_is_told_once():
    opt = optimizer()
    lr = ScaledLR(POLICIES["cosine"](opt), SCHEDULE)
    trained(opt, lr, 3)
    opt.step()
    opt.step()
    with pytest.warns(RuntimeWarning, match=re.escape("optimizer.step() was called three times without lr.step()")):
        opt.step()
    opt.step()
    trained(copy.deepcopy(opt), lr, 2)


def test_momentum_follows_the_scheduler_unscaled():
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    lr = ScaledLR(schedulers.OneCycleLR(opt, 0.5, total_steps=N, base_momentum=0.85, max_momentum=0.95), SCHEDULE)
    seen = []
    for _ in SCHEDULE:
        seen.append(opt.param_groups[0]["momentum"])
        opt.step()
        lr.step()
    assert min(seen) == pytest.approx(0.85, abs=0.01)
    assert max(seen) == pytest.approx(0.95, abs=0.01)


@pytest.mark.filterwarnings("ignore:Adam would train batches")
def test_a_tensor_learning_rate_stays_the_same_tensor():
    held = torch.tensor(0.1)
    opt = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=held)
    lr = ScaledLR(schedulers.CosineAnnealingLR(opt, N), SCHEDULE)
    for step in SCHEDULE:
        want = 0.05 * (1 + math.cos(math.pi * math.floor(step.progress * N + 1e-6) / N)) * step.lr_scale
        assert float(opt.param_groups[0]["lr"]) == pytest.approx(want, abs=3e-3)
        opt.step()
        lr.step()
    assert opt.param_groups[0]["lr"] is held


@pytest.mark.parametrize("name", ["cosine", "steps"])
def test_a_group_that_is_added_later_is_scaled_too(name):
    start = len(SCHEDULE) // 4
    opt, alone = optimizer(0.1), optimizer(0.1)
    lr, lr_alone = (ScaledLR(POLICIES[name](o), SCHEDULE) for o in (opt, alone))
    trained(opt, lr, start)
    trained(alone, lr_alone, start)
    assert SCHEDULE[start].lr_scale == 2
    lr.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.01})
    rows = trained(opt, lr, len(SCHEDULE) - start)
    assert [first for first, _ in rows] == [first for (first,) in trained(alone, lr_alone, len(SCHEDULE) - start)]
    assert rows[0][1] == 0.02
    assert rows[1][1] == pytest.approx(0.01 * SCHEDULE[start + 1].lr_scale, rel=0.05)
    if name == "steps":
        assert rows[-1][1] == pytest.approx(0.01 * 0.1 ** SCHEDULE[-1].lr_stage)
    again = ScaledLR(POLICIES[name](optimizer(0.1, 0.01)), SCHEDULE)
    again.load_state_dict(lr.state_dict())
    assert again.get_last_lr() == lr.get_last_lr()
    with pytest.raises(ValueError, match=re.escape("the state is of 2 parameter groups, the optimizer here has 1")):
        lr_alone.load_state_dict(lr.state_dict())


def test_a_group_that_joins_at_a_share_of_the_present_rate():
    opt = optimizer()
    lr = ScaledLR(POLICIES["steps"](opt), SCHEDULE)
    trained(opt, lr, 5)
    lr.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr.scheduler.get_last_lr()[0] / 10})
    assert all(head == pytest.approx(body / 10) for body, head in trained(opt, lr, 100))


def test_a_group_that_joins_past_it():
    """Is its rate scaled? Nobody can tell, but where there is no scale."""
    opt = optimizer()
    lr = ScaledLR(POLICIES["steps"](opt), SCHEDULE)
    trained(opt, lr, 5)
    opt.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.08})
    said = "parameter group 1 joined the optimizer with the learning rate 0.08 while rates are scaled by 8"
    with pytest.raises(RuntimeError, match=re.escape(said) + '.*as its "lr": 0.08, or 0.01 if it was a share'):
        trained(opt, lr, 1)

    opt = optimizer()
    at = len(SCHEDULE) - 3
    lr = ScaledLR(POLICIES["steps"](opt), SCHEDULE)
    trained(opt, lr, at)
    assert SCHEDULE[at].lr_scale == 1
    opt.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.08})
    assert trained(opt, lr, 2)[1][1] == 0.08


# -- resuming ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("optimizer_first", [False, True])
def test_resume_from_a_checkpoint(policy, sliced, optimizer_first, tmp_path):
    start = len(SCHEDULE) // 3
    opt = optimizer(0.1, 0.02)
    lr = ScaledLR(policy(opt), SCHEDULE)
    trained(opt, lr, start)
    torch.save({"opt": opt.state_dict(), "lr": lr.state_dict()}, tmp_path / "checkpoint.pt")
    want = trained(opt, lr, len(SCHEDULE) - start)

    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    opt = optimizer(0.1, 0.02)
    if optimizer_first:
        opt.load_state_dict(state["opt"])
    lr = ScaledLR(policy(opt), SCHEDULE[start:] if sliced else SCHEDULE)
    if not optimizer_first:
        opt.load_state_dict(state["opt"])
    lr.load_state_dict(state["lr"])
    assert trained(opt, lr, len(SCHEDULE) - start) == want


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_resume_without_its_state(policy):
    start = len(SCHEDULE) // 3
    opt = optimizer()
    want = trained(opt, ScaledLR(policy(opt), SCHEDULE), len(SCHEDULE))[start:]
    opt = optimizer()
    assert trained(opt, ScaledLR(policy(opt), SCHEDULE[start:]), len(SCHEDULE) - start) == want


def test_the_state_is_a_snapshot():
    opt = optimizer()
    lr = ScaledLR(POLICIES["cosine"](opt), SCHEDULE)
    state = copy.deepcopy(lr.state_dict())
    trained(opt, lr, 10)
    lr.load_state_dict(state)
    assert opt.param_groups[0]["lr"] == 0.8
    assert lr.current.index == 0


def test_building_it_twice_does_not_scale_twice():
    opt = optimizer()
    plain = POLICIES["cosine"](opt)
    ScaledLR(plain, SCHEDULE)
    ScaledLR(plain, SCHEDULE)
    assert opt.param_groups[0]["lr"] == 0.8


def test_torchs_reminder_about_the_order_of_steps_is_given_once():
    opt = optimizer()
    lr = ScaledLR(POLICIES["cosine"](opt), SCHEDULE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lr.step()
    assert len([w for w in caught if "Detected call of `lr_scheduler.step()`" in str(w.message)]) == 1


# -- errors ------------------------------------------------------------------------------------------------------------


def test_refusals():
    opt = optimizer()
    with pytest.raises(TypeError, match="scheduler is ReduceLROnPlateau, which follows a metric and has no clock"):
        ScaledLR(schedulers.ReduceLROnPlateau(opt), SCHEDULE)
    with pytest.raises(
        TypeError, match=re.escape("scheduler (3) must be a torch LRScheduler; LambdaLR makes one from")
    ):
        ScaledLR(3, SCHEDULE)
    plain = schedulers.ConstantLR(opt)
    with pytest.raises(ValueError, match=re.escape('per (\'step\') must be "iteration" or "epoch"')):
        ScaledLR(plain, SCHEDULE, per="step")
    with pytest.raises(ValueError, match="schedule has no steps; there is nothing left to train"):
        ScaledLR(plain, SCHEDULE[len(SCHEDULE) :])
    with pytest.raises(ValueError, match="scheduler is a ScaledLR already"):
        ScaledLR(ScaledLR(plain, SCHEDULE), SCHEDULE)


def test_a_state_outside_the_slice():
    opt = optimizer()
    state = ScaledLR(POLICIES["cosine"](opt), SCHEDULE).state_dict()
    lr = ScaledLR(POLICIES["cosine"](optimizer()), SCHEDULE[10:])
    with pytest.raises(ValueError, match=re.escape("the state is at step 0, the schedule here has the steps 10 to")):
        lr.load_state_dict(state)


def test_schedulers_only_go_forward():
    opt = optimizer()
    plain = POLICIES["cosine"](opt)
    opt.step()
    for _ in range(20):
        plain.step()
    with pytest.raises(ValueError, match=re.escape("the scheduler has made 20 steps and step 0 of the schedule is at")):
        ScaledLR(plain, SCHEDULE)


@pytest.mark.parametrize("per", ["iteration", "epoch"])
@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(Shape(4, 16, 112, 112), samples=103, epochs=20, lr_drops=(10, 15)),
        Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=10),
        Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=4, plan=Cycles(long=None, short=None)),
    ],
)
def test_the_clock_of_the_core_is_at_the_same_place(schedule, per):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    lr = ScaledLR(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1.0 + k), schedule, per=per)
    clock = Clock(schedule, per=per)
    for step in schedule:
        assert lr.get_last_lr() == [(1.0 + clock(step)) * step.lr_scale]
        optimizer.step()
        lr.step()
