"""The loops of examples/ as people start them: real processes on real videos, watched step by step."""

import re

import pytest

pytest.importorskip("av", reason="PyAV is missing: the training loops of examples/ were NOT run")

import torch
import watched
from watched import EXAMPLES

from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler, ScaledLR, SubBatchNorm3d, VideoDataset, sub_batches

LOOPS = {
    "plain_loop.py": None,
    "lightning_trainer.py": "lightning",
    "accelerate_loop.py": "accelerate",
    "transformers_trainer.py": "transformers",
}


def schedule_of(processes=1):
    samples = 2 * watched.VIDEOS_PER_CLASS
    return Schedule(Shape(4, 8, 56, 56), samples=samples, epochs=30, processes=processes)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return watched.write_videos(tmp_path_factory.mktemp("videos") / "train")


@pytest.fixture(scope="module")
def trained(videos, tmp_path_factory):
    """Run a loop once, alone, and return its folder."""
    folders = {}

    def run(example):
        if LOOPS[example]:
            pytest.importorskip(LOOPS[example], reason=f"{LOOPS[example]} is missing: examples/{example} was NOT run")
        if example not in folders:
            folders[example] = tmp_path_factory.mktemp(example)
            watched.finish(watched.start(folders[example], EXAMPLES / example, videos), folders[example])
        return folders[example]

    return run


def check(logs, schedule, videos):
    """Every process trained the schedule's steps: shapes, learning rates, sub-batches, and the clips themselves."""
    dataset = VideoDataset.from_folder(videos, mean=0.45, std=0.225, stride=2)
    rates = watched.baseline_cosine(schedule, 0.02)
    for rank, log in enumerate(logs):
        sampler = BatchSampler(schedule, seed=0, rank=rank)
        for done, step, rate, samples in zip(log, schedule, rates, sampler, strict=True):
            b, t, h, w = step.shape
            assert done["shapes"] == [[b, 3, t, h, w]], step
            assert done["lr"] == pytest.approx(rate, rel=1e-9, abs=1e-12), step
            assert done["splits"] == [max(1, step.base.b // 8)], step
            if step.index % 6 == 0:
                assert done["clips"] == [watched.digest(dataset[sample][0]) for sample in samples], step


@pytest.mark.parametrize("example", LOOPS)
def test_a_loop_trains_the_schedule(example, trained, videos):
    check([watched.steps(trained(example))], schedule_of(), videos)


@pytest.mark.parametrize("example", ["plain_loop.py", "accelerate_loop.py"])
def test_it_has_learnt(example, trained):
    assert (trained(example) / "out").read_text().splitlines()[-1] == "accuracy 1.000"


@pytest.mark.parametrize("example", ["lightning_trainer.py", "accelerate_loop.py"])
def test_a_framework_trains_as_the_plain_loop_bit_for_bit(example, trained):
    assert watched.steps(trained(example))[-1]["weights"] == watched.steps(trained("plain_loop.py"))[-1]["weights"]


@pytest.mark.parametrize("reentrant", [True, False])
def test_lightning_with_activation_checkpointing_trains_as_without(reentrant, trained, videos, tmp_path):
    """Lightning calls backward after training_step, and the net runs again in it; docs/torch.md has what to add."""
    again = f"torch.utils.checkpoint.checkpoint(self.net, clips.requires_grad_(), use_reentrant={reentrant})"
    page = (EXAMPLES.parent / "docs" / "torch.md").read_text()
    (backward,) = re.findall(r"^ {6}(def backward.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    kept = "(clips, labels) = batch\n", "(clips, labels) = batch\n        self.step = step\n"
    added = "    def configure", f"    {backward.replace(chr(10) + '  ', chr(10))}\n\n    def configure"
    script = watched.edited("lightning_trainer.py", tmp_path, ("self.net(clips)", again), kept, added)
    watched.finish(watched.start(tmp_path, script, videos), tmp_path)
    plain = watched.steps(trained("lightning_trainer.py"))
    assert [done["weights"] for done in watched.steps(tmp_path)] == [done["weights"] for done in plain]


def of_the_docs(page, function):
    """Return a method that a page shows, as it stands in a class."""
    text = (EXAMPLES.parent / "docs" / page).read_text()
    (found,) = re.findall(rf"^def {function}\(self.*?(?=\n\n|\n```)", text, re.MULTILINE | re.DOTALL)
    return "".join(f"    {line}\n" for line in found.splitlines()) + "\n"


VALIDATION = {
    "lightning_trainer.py": [
        (
            "    def configure_optimizers",
            "".join(
                of_the_docs("curves.md", name)
                for name in (
                    "val_dataloader",
                    "on_validation_model_eval",
                    "validation_step",
                    "on_validation_epoch_end",
                )
            )
            + "    def on_validation_end(self):\n"
            + "        print('accuracy', float(self.trainer.callback_metrics['accuracy']))\n\n"
            + "    def configure_optimizers",
        ),
        ("import sys\n", "import contextlib\nimport sys\n"),
        ("max_epochs=1,", "max_epochs=1, val_check_interval=10, check_val_every_n_epoch=None,"),
        (
            "callbacks=[checkpoint]",
            "callbacks=[checkpoint, type(checkpoint)('best', monitor='accuracy', save_top_k=-1)]",
        ),
        ("\n\n\nclass", "\nvalidation = dataset\n\n\nclass"),
        (", sub_batches\n", ", precise_bn, sub_batches\n"),
    ],
    "transformers_trainer.py": [
        ("    def compute_loss", of_the_docs("curves.md", "evaluate") + "    def compute_loss"),
        ('report_to="none"', 'report_to="none", eval_strategy="steps", eval_steps=10'),
        ("train_dataset=dataset)", "train_dataset=dataset, eval_dataset=dataset)"),
        ("    # One", "    validation = dataset\n    # One"),
        (", sub_batches\n", ", evaluate, precise_bn, sub_batches\n"),
    ],
}


@pytest.mark.parametrize("example", VALIDATION)
def test_a_trainer_validates_in_the_middle_and_trains_as_without(example, trained, videos, tmp_path):
    script = watched.edited(example, tmp_path, *VALIDATION[example])
    watched.finish(watched.start(tmp_path, script, videos), tmp_path)
    assert len(re.findall("accuracy'?:? '?[01]", (tmp_path / "out").read_text())) >= 3
    for done, plain in zip(watched.steps(tmp_path), watched.steps(trained(example)), strict=True):
        assert done == {**plain, "pid": done["pid"]}
    if example == "lightning_trainer.py":  # a checkpoint of the validation has the statistics of the training
        ours, best = (torch.load(tmp_path / folder / "epoch=0-step=10.ckpt") for folder in ("checkpoints", "best"))
        for name, value in ours["state_dict"].items():
            assert torch.equal(value, best["state_dict"][name]), name


@pytest.mark.parametrize(
    ("example", "checkpoint"),
    [("lightning_trainer.py", "epoch=0-step=20.ckpt"), ("transformers_trainer.py", "checkpoint-20")],
)
def test_a_trainer_resumes_in_the_middle(example, checkpoint, trained, videos, tmp_path):
    whole = watched.steps(trained(example))
    process = watched.start(tmp_path, EXAMPLES / example, videos, trained(example) / "checkpoints" / checkpoint)
    watched.finish(process, tmp_path)
    rest = watched.steps(tmp_path)
    assert len(rest) == len(whole) - 20
    for resumed, done in zip(rest, whole[20:], strict=True):
        assert {k: resumed[k] for k in ("lr", "shapes", "clips", "splits")} == {
            k: done[k] for k in ("lr", "shapes", "clips", "splits")
        }


@pytest.mark.parametrize("example", ["lightning_trainer.py", "accelerate_loop.py", "transformers_trainer.py"])
def test_two_processes(example, videos, tmp_path):
    pytest.importorskip(LOOPS[example], reason=f"{LOOPS[example]} is missing: examples/{example} was NOT run")
    script = EXAMPLES / example
    if example == "lightning_trainer.py":
        script = watched.edited(example, tmp_path, ("DEVICES, NODES = 1, 1", "DEVICES, NODES = 2, 1"))
    watched.finish(watched.start(tmp_path, script, videos, processes=2), tmp_path)
    if example == "accelerate_loop.py":  # it ends the process group; a trainer leaves that to Python's end, or to you
        assert (tmp_path / "out").read_text().count(": gloo has ended") == 2
    logs = [watched.steps(tmp_path, rank) for rank in range(2)]
    check(logs, schedule_of(2), videos)
    for one, other in zip(*logs, strict=True):
        assert one["weights"] == other["weights"]


ACCUMULATION = {
    "lightning_trainer.py": [
        ("processes=DEVICES * NODES", "processes=2"),
        ("seed=0, num_workers=2", "seed=0, accumulate=2, num_workers=2"),
        ("logger=False", "logger=False, accumulate_grad_batches=2"),
    ],
    "transformers_trainer.py": [
        ("self.args.world_size", "2"),
        ("seed=0, num_workers=2", "seed=0, accumulate=2, num_workers=2"),
        ("num_train_epochs=1,", "num_train_epochs=1, gradient_accumulation_steps=2,"),
    ],
}


@pytest.mark.parametrize("example", ACCUMULATION)
def test_a_trainer_accumulates_gradients(example, videos, tmp_path):
    """Two micro-batches to a step: the framework's count of steps is the schedule's."""
    pytest.importorskip(LOOPS[example], reason=f"{LOOPS[example]} is missing: examples/{example} was NOT run")
    watched.finish(watched.start(tmp_path, watched.edited(example, tmp_path, *ACCUMULATION[example]), videos), tmp_path)
    schedule = schedule_of(2)
    rates = watched.baseline_cosine(schedule, 0.02)
    for done, step, rate in zip(watched.steps(tmp_path), schedule, rates, strict=True):
        b, t, h, w = step.shape
        assert done["shapes"] == 2 * [[b, 3, t, h, w]], step
        assert done["lr"] == pytest.approx(rate, rel=1e-9, abs=1e-12), step


def test_an_example_has_at_most_forty_lines():
    for name in (*LOOPS, "resume.py", "ddp.py", "fsdp2.py"):
        lines = (EXAMPLES / name).read_text().splitlines()
        assert sum(bool(line.strip()) for line in lines) <= 40, name
        if name in LOOPS:
            assert len(lines) <= 40, name


def test_a_stage_change_rebuilds_nothing(videos):
    """Parameters, optimizer state, AMP scaler and EMA copy are the same objects from the first stage to the last."""
    dataset = VideoDataset.from_folder(videos, mean=0.45, std=0.225, stride=2)
    schedule = Schedule(Shape(2, 8, 32, 32), samples=len(dataset), epochs=10, lr_drops=(5,), lr_scaling="sqrt")
    model = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3, 2, 1), torch.nn.BatchNorm3d(4), torch.nn.AdaptiveAvgPool3d(1))
    model = torch.nn.Sequential(model, torch.nn.Flatten(), torch.nn.Linear(4, 2))
    keys = list(model.state_dict())
    ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
    SubBatchNorm3d.convert(model)  # after both: it changes no parameter, so they need not know
    lr = ScaledLR(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.baseline_iterations), schedule)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=BatchSampler(schedule))
    seen, stages = [], set()
    for step, (clips, labels) in zip(schedule, loader, strict=True):
        with sub_batches(model, step), torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(clips), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        ema.update_parameters(model)
        lr.step()
        stages.add(next(n for n, stage in enumerate(schedule.stages) if step.index < stage.stop))
        state = [value for row in optimizer.state.values() for value in row.values()]
        objects = [*model.modules(), *model.parameters(), *model.buffers(), *ema.parameters(), *state, scaler]
        seen.append([id(thing) for thing in objects])
        assert list(model.state_dict()) == keys
        assert list(ema.module.state_dict()) == keys
        assert scaler.get_scale() == 256.0
    assert stages == set(range(len(schedule.stages)))
    assert len(stages) >= 5
    assert len(seen[0]) > 30
    assert all(ids == seen[0] for ids in seen)
