"""What else a program does to the learning rate, and schedulers that were not written for the baseline."""

import copy
import re

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from pymultigrid import Cycles, Schedule, Shape
from pymultigrid.torch import Loader, ScaledLR, sub_batches

SCHEDULE = Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=10)
N = SCHEDULE.baseline_iterations


def made(policy=None, schedule=SCHEDULE, lr=0.1, **options):
    """(model, its optimizer, ScaledLR)"""
    model = torch.nn.Linear(1, 1)
    opt = torch.optim.SGD(model.parameters(), lr=lr)
    policy = policy or (lambda opt: schedulers.CosineAnnealingLR(opt, N))
    return model, opt, ScaledLR(policy(opt), schedule, **options)


def train(model, opt, lr, steps, beside=lambda: None):
    for step in steps:
        with sub_batches(model, step):
            opt.step()
        beside()
        lr.step()


# -- written by something else -----------------------------------------------------------------------------------------


def warm_up_of_the_loop(opt, lr):
    opt.param_groups[0]["lr"] *= 0.01


def warm_up_beside(opt, lr):
    if not hasattr(opt, "warm"):
        opt.warm = schedulers.LinearLR(opt, 0.01, 1, 20)
    opt.warm.step()


def a_little(opt, lr):
    opt.param_groups[0]["lr"] *= 0.9999


@pytest.mark.parametrize("stranger", [warm_up_of_the_loop, warm_up_beside, a_little])
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("when", ["before lr.step()", "after lr.step()"])
def test_a_stranger_that_writes_the_rate(stranger, tensor, when):
    model, opt, lr = made(lr=torch.tensor(0.1) if tensor else 0.1)
    train(model, opt, lr, SCHEDULE[:3])
    wrote = float(lr.get_last_lr()[0])
    said = (
        rf"parameter group 0 has the learning rate \S+, and ScaledLR wrote {wrote:g} for step 3 \(\S+ of its .* x 8\)"
    )
    if when == "after lr.step()":
        stranger(opt, lr)
        with pytest.raises(RuntimeError, match=said), sub_batches(model, SCHEDULE[3]):
            pass
    with pytest.raises(RuntimeError, match=said):
        train(model, opt, lr, SCHEDULE[3:4], lambda: stranger(opt, lr))


def test_the_inner_scheduler_is_stepped_too():
    """It may change no rate for long: milestones come twice as early."""
    model, opt, lr = made(lambda opt: schedulers.MultiStepLR(opt, [N // 2]))
    train(model, opt, lr, SCHEDULE[:3])
    inner = lr.scheduler.last_epoch
    said = (
        f"the scheduler inside is at its step {inner + 1}, and ScaledLR left it at {inner}: something else has stepped"
    )
    with pytest.raises(RuntimeError, match=re.escape(said)):
        train(model, opt, lr, SCHEDULE[3:], lr.scheduler.step)


def test_a_loaded_optimizer_brings_the_same_rate_or_is_refused():
    model, opt, lr = made()
    train(model, opt, lr, SCHEDULE[:100])
    saved = copy.deepcopy(opt.state_dict())
    train(model, opt, lr, SCHEDULE[100:200])
    model, opt, lr = made(schedule=SCHEDULE[100:])
    opt.load_state_dict(saved)
    train(model, opt, lr, SCHEDULE[100:110])
    model, opt, lr = made(schedule=SCHEDULE[200:])
    opt.load_state_dict(saved)
    with pytest.raises(RuntimeError, match=r"has the learning rate 0\.\d+, and ScaledLR wrote 0\.\d+ for step 200"):
        train(model, opt, lr, SCHEDULE[200:])


@pytest.mark.parametrize(
    "policy",
    [
        lambda opt: schedulers.CosineAnnealingLR(opt, N),
        lambda opt: schedulers.ExponentialLR(opt, 0.999),
        lambda opt: schedulers.LinearLR(opt, 0.1, total_iters=500),
    ],
)
def test_an_optimizer_that_was_loaded_before_its_scheduler_was_built(policy):
    model, opt, lr = made(policy)
    train(model, opt, lr, SCHEDULE[:100])
    saved, state = copy.deepcopy(opt.state_dict()), copy.deepcopy(lr.state_dict())
    train(model, opt, lr, SCHEDULE[100:101])
    want = lr.get_last_lr()

    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    opt.load_state_dict(saved)
    lr = ScaledLR(policy(opt), SCHEDULE[100:])
    with pytest.raises(RuntimeError, match=r"whose learning rate was 0\.\d+, that of a checkpoint, and begins there"):
        train(model, opt, lr, SCHEDULE[100:101])
    lr.load_state_dict(state)
    train(model, opt, lr, SCHEDULE[100:101])
    assert lr.get_last_lr() == want


# -- states ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("baseline_epochs", Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=20)),
        ("samples", Schedule(Shape(8, 8, 32, 32), samples=1200, epochs=10)),
        ("shape", Schedule(Shape(4, 8, 32, 32), samples=1000, epochs=10)),
        ("stages", Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=10, lr_drops=(5,))),
    ],
)
def test_a_state_of_another_schedule(name, other):
    _, _, lr = made()
    _, _, there = made(lambda opt: schedulers.CosineAnnealingLR(opt, other.baseline_iterations), schedule=other)
    with pytest.raises(ValueError, match=re.escape(f"the state is of a schedule whose {name} is ")):
        lr.load_state_dict(there.state_dict())


def test_a_state_of_another_scheduler():
    _, _, lr = made()
    _, _, steps = made(lambda opt: schedulers.MultiStepLR(opt, [N // 2]))
    said = "the state is of a scheduler whose kind is 'MultiStepLR', here it is 'CosineAnnealingLR'; build the same"
    with pytest.raises(ValueError, match=re.escape(said)):
        lr.load_state_dict(steps.state_dict())
    _, _, epochs = made(lambda opt: schedulers.CosineAnnealingLR(opt, 10), per="epoch")
    with pytest.raises(ValueError, match=re.escape("whose per is 'epoch', here it is 'iteration'")):
        lr.load_state_dict(epochs.state_dict())
    with pytest.raises(
        ValueError, match=re.escape("state_dict has no 'unscaled'; it must be what ScaledLR.state_dict()")
    ):
        lr.load_state_dict(lr.scheduler.state_dict())
    with pytest.raises(TypeError, match=re.escape("state_dict (None) must be what ScaledLR.state_dict() returned")):
        lr.load_state_dict(None)
    again = made(schedule=SCHEDULE.with_processes(4))[2]
    again.load_state_dict(lr.state_dict())  # on another number of processes it is the same schedule


# -- lengths -----------------------------------------------------------------------------------------------------------


def of_transformers(steps):
    def policy(opt):
        transformers = pytest.importorskip("transformers", reason="its schedulers' lengths are NOT tested")
        return transformers.get_cosine_schedule_with_warmup(opt, 50, steps)

    return policy


@pytest.mark.parametrize(
    ("policy", "per", "said"),
    [
        (lambda opt: schedulers.CosineAnnealingLR(opt, len(SCHEDULE)), "iteration", f"has T_max={len(SCHEDULE)}"),
        (lambda opt: schedulers.CosineAnnealingLR(opt, 10), "iteration", "has T_max=10"),
        (lambda opt: schedulers.CosineAnnealingLR(opt, N), "epoch", f"has T_max={N}"),
        (lambda opt: schedulers.OneCycleLR(opt, 0.5, total_steps=2 * N), "iteration", f"has total_steps={2 * N}"),
        (lambda opt: schedulers.PolynomialLR(opt, 366), "iteration", "has total_iters=366"),
        (of_transformers(366), "iteration", "has num_training_steps=366"),
        (lambda opt: schedulers.MultiStepLR(opt, [6, 8]), "iteration", "has its last milestone at 8"),
        (lambda opt: schedulers.MultiStepLR(opt, [600, 1500]), "iteration", "has a milestone at 1500"),
        (lambda opt: schedulers.MultiStepLR(opt, [600, 900]), "epoch", "has a milestone at 900"),
        (
            lambda opt: schedulers.StepLR(opt, 3),
            "iteration",
            "multiplies the rate by 0.1 every 3, which",
        ),
        (
            lambda opt: schedulers.ExponentialLR(opt, 0.9),
            "iteration",
            "multiplies the rate by 0.9 at each, which",
        ),
    ],
)
def test_a_scheduler_of_another_length(policy, per, said):
    length = "10 epochs" if per == "epoch" else f"{N} iterations"
    with pytest.warns(
        RuntimeWarning, match=re.escape(said) + f".*, and the baseline, whose clock it is on, has {length}"
    ):
        made(policy, per=per)


@pytest.mark.parametrize(
    ("policy", "per"),
    [
        (lambda opt: schedulers.CosineAnnealingLR(opt, N + 9), "iteration"),  # whole iterations in each epoch
        (lambda opt: schedulers.CosineAnnealingLR(opt, 10), "epoch"),
        (lambda opt: schedulers.CosineAnnealingWarmRestarts(opt, 100), "iteration"),
        (lambda opt: schedulers.CyclicLR(opt, 0.01, 0.1, 50), "iteration"),
        (lambda opt: schedulers.MultiStepLR(opt, [6, 8]), "epoch"),
        (lambda opt: schedulers.MultiStepLR(opt, [5, N // 2]), "iteration"),
        (lambda opt: schedulers.StepLR(opt, 300), "iteration"),
        (lambda opt: schedulers.ExponentialLR(opt, 0.9), "epoch"),
        (lambda opt: schedulers.ConstantLR(opt, 0.1, 50), "iteration"),
        (lambda opt: schedulers.LinearLR(opt, 0.1, total_iters=50), "iteration"),
        (of_transformers(N), "iteration"),
        (
            lambda opt: schedulers.SequentialLR(
                opt, [schedulers.LinearLR(opt, 0.1), schedulers.CosineAnnealingLR(opt, N - 50)], [50]
            ),
            "iteration",
        ),
    ],
)
def test_schedulers_that_fit(policy, per):
    made(policy, per=per)


def test_more_steps_than_the_schedule_has():
    """The trainer counts three epochs of the loader, each of them the whole training."""
    said = f"steps ({3 * len(SCHEDULE)}) is more than the schedule's {len(SCHEDULE)}, which is the whole training: set"
    with pytest.raises(ValueError, match=re.escape(said)):
        made(steps=3 * len(SCHEDULE))
    with pytest.raises(ValueError, match=re.escape("steps (inf) is more than the schedule's")):
        made(steps=float("inf"), schedule=SCHEDULE[30:])
    with pytest.raises(TypeError, match=re.escape("steps ('3') must be a number")):
        made(steps="3")
    for steps in (None, 20, len(SCHEDULE)):
        made(steps=steps, schedule=SCHEDULE[30:])


def test_a_rate_that_follows_a_metric():
    """As docs/torch.md writes it: ReduceLROnPlateau steps a factor of its own, which a LambdaLR reads."""
    factor = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = schedulers.ReduceLROnPlateau(factor, factor=0.1, patience=0)
    model, opt, lr = made(lambda opt: schedulers.LambdaLR(opt, lambda _: factor.param_groups[0]["lr"]))
    plateau.step(1.0)
    for step in SCHEDULE:
        assert opt.param_groups[0]["lr"] == pytest.approx(0.1 * step.lr_scale * (1 if step.index <= 200 else 0.1))
        with sub_batches(model, step):
            opt.step()
        if step.index == 200:
            plateau.step(1.0)  # no better than before
        lr.step()


def test_a_scheduler_built_on_a_scaled_rate_is_refused():
    """A notebook's cell that is run again, on the optimizer of before."""
    schedule = Schedule(Shape(4, 16, 112, 112), samples=150, epochs=20)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    first = ScaledLR(schedulers.CosineAnnealingLR(optimizer, schedule.baseline_iterations), schedule)
    assert first.get_last_lr() == [0.8]
    again = schedulers.CosineAnnealingLR(optimizer, schedule.baseline_iterations)
    with pytest.raises(ValueError, match=re.escape("scheduler begins at 0.8, to which another ScaledLR has scaled")):
        ScaledLR(again, schedule)
    optimizer.param_groups[0]["lr"] = 0.1
    again = schedulers.CosineAnnealingLR(optimizer, schedule.baseline_iterations)
    assert ScaledLR(again, schedule).get_last_lr() == [0.8]


# -- a finder ----------------------------------------------------------------------------------------------------------


class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, sample):
        return torch.rand(3, *tuple(sample.step.shape)[1:]).mean((1, 2, 3)), sample.index % 2


@pytest.mark.filterwarnings("ignore")  # Lightning's, of workers and loggers
def test_lightnings_finder(tmp_path):
    """As docs/torch.md says: on the baseline, with the optimizer alone. Under ScaledLR it would write the rate, too."""
    lightning = pytest.importorskip("lightning", reason="lightning is missing: its finder was NOT tried")
    from lightning.pytorch.tuner import Tuner

    class Module(lightning.LightningModule):
        def __init__(self, schedule, alone):
            super().__init__()
            self.net, self.lr, self.schedule, self.alone = torch.nn.Linear(3, 2), 0.02, schedule, alone

        def train_dataloader(self):
            return Loader(Noise(), self.schedule)

        def training_step(self, batch, _):
            step, (clips, labels) = batch
            with sub_batches(self.net, step):
                return torch.nn.functional.cross_entropy(self.net(clips), labels)

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
            cosine = schedulers.CosineAnnealingLR(optimizer, self.schedule.baseline_iterations)
            return optimizer if self.alone else ([optimizer], [ScaledLR(cosine, self.schedule)])

    def find(schedule, alone):
        off = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **off)
        return Tuner(trainer).lr_find(Module(schedule, alone), num_training=20, update_attr=False)

    shape, length = Shape(4, 4, 16, 16), {"samples": 24, "epochs": 10}
    found = find(Schedule(shape, **length, plan=Cycles(long=None, short=None)), alone=True)
    assert len(found.results["lr"]) >= 20
    with pytest.raises(RuntimeError, match=r"has the learning rate 1e-08, and ScaledLR wrote 0\.16 for step 0"):
        find(Schedule(shape, **length), alone=False)
