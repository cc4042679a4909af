"""Sub-mini-batch batch norm in a model: conversion, and the sub-batches of a step."""

import copy
import json
import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from test_batch_norm import batch, close, pair
from torch import nn
from torch.utils.checkpoint import checkpoint

from pymultigrid import Cycles, Schedule, Shape
from pymultigrid.torch import SubBatchNorm, SubBatchNorm1d, SubBatchNorm2d, SubBatchNorm3d, sub_batches

SCHEDULE = Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=10, lr_drops=(5,), lr_scaling="none")
GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "pyslowfast_schedules.json").read_text())["configs"]


# -- conversion --------------------------------------------------------------------------------------------------------


class Own(nn.BatchNorm3d):
    pass


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(3, 4, (1, 3, 3)),
        nn.BatchNorm3d(4),
        nn.Sequential(nn.Conv3d(4, 4, 1), nn.Identity(), nn.BatchNorm3d(4)),
    )


def mixed():
    """The net with batch norms that stay as they are."""
    model = net()
    model[2][1] = Own(4)
    return model.append(nn.SyncBatchNorm(4))


LEFT = re.escape("batch norms 2.1 (Own), 3 (SyncBatchNorm) not converted: the mini-batch is normalised as a whole")


def test_convert_and_revert_change_nothing_but_the_kind():
    model = mixed()
    frozen = model[1].weight.requires_grad_(False)
    parameters, buffers = list(model.parameters()), list(model.buffers())
    state, modules = {k: v.clone() for k, v in model.state_dict().items()}, list(model.modules())
    with pytest.warns(RuntimeWarning, match=LEFT):
        assert SubBatchNorm3d.convert(model) is model
    assert [type(m) for m in (model[1], model[2][1], model[2][2], model[3])] == [
        SubBatchNorm3d, Own, SubBatchNorm3d, nn.SyncBatchNorm,
    ]  # fmt: skip
    for _ in range(2):
        assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
        assert all(a is b for a, b in zip(buffers, model.buffers(), strict=True))
        assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
        assert list(model.state_dict()) == list(state)
        assert all(torch.equal(model.state_dict()[k], v) for k, v in state.items())
        assert model[1].weight is frozen
        assert not frozen.requires_grad
        assert SubBatchNorm3d.revert(model) is model
    assert type(model[1]) is nn.BatchNorm3d


def test_each_class_converts_its_own_dimension_and_a_root():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2))
    SubBatchNorm2d.convert(model)
    assert [type(m) for m in model] == [nn.BatchNorm1d, SubBatchNorm2d, nn.BatchNorm3d]
    root = nn.BatchNorm1d(2)
    assert type(SubBatchNorm1d.convert(root)) is SubBatchNorm1d
    assert SubBatchNorm1d.revert(root)._buffers.keys() == nn.BatchNorm1d(2)._buffers.keys()


def test_their_base_converts_and_reverts_all_three():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), Own(2))
    with pytest.warns(RuntimeWarning, match=re.escape("batch norm 3 (Own) not converted")):
        assert SubBatchNorm.convert(model) is model
    assert [type(m) for m in model] == [SubBatchNorm1d, SubBatchNorm2d, SubBatchNorm3d, Own]
    SubBatchNorm.revert(model)
    assert [type(m) for m in model] == [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, Own]


def test_checkpoints_go_both_ways():
    plain, sub = net(), SubBatchNorm3d.convert(net())
    sub.load_state_dict(plain.state_dict())
    plain.load_state_dict(sub.state_dict())


def test_the_optimizer_goes_on_and_hooks_stay():
    model = nn.Sequential(nn.Conv3d(3, 4, (2, 3, 3)), nn.BatchNorm3d(4))
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def train():
        with sub_batches(model, SCHEDULE[0]):
            model(batch(64, (3, 2, 23, 23))).pow(2).sum().backward()
        opt.step()
        opt.zero_grad()

    SubBatchNorm3d.convert(model)
    train()
    kept = {id(p): s["momentum_buffer"] for p, s in opt.state.items()}
    weight = model[1].weight.detach().clone()
    train()
    assert not torch.equal(model[1].weight, weight)
    assert all(opt.state[p]["momentum_buffer"] is kept[id(p)] for p in model.parameters())
    assert len(calls) == 2


def decayed(model):
    """The usual two groups: no weight decay for batch norms and biases, told by type and name as loops do."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) for p in m.parameters()}
    plain = {id(p) for name, p in model.named_parameters() if id(p) in norms or name.endswith("bias")}
    groups = [p for p in model.parameters() if id(p) not in plain], [p for p in model.parameters() if id(p) in plain]
    return torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.05}, {"params": groups[1], "weight_decay": 0.0}], lr=0.1
    )


def test_weight_decay_groups_are_the_same_before_and_after():
    model = net()
    before = decayed(model)
    ids = [[id(p) for p in group["params"]] for group in before.param_groups]
    SubBatchNorm3d.convert(model)
    with sub_batches(model, SCHEDULE[0]):
        model[:2](batch(64, (3, 3, 23, 23))).pow(2).sum().backward()
    before.step()
    after = decayed(model)
    assert [[id(p) for p in group["params"]] for group in before.param_groups] == ids
    assert [[id(p) for p in group["params"]] for group in after.param_groups] == ids
    after.load_state_dict(before.state_dict())
    assert [group["weight_decay"] for group in after.param_groups] == [0.05, 0.0]


# -- splits for a step -------------------------------------------------------------------------------------------------


def test_splits_follow_the_base_and_are_undone():
    model = SubBatchNorm3d.convert(net())
    for step in SCHEDULE:
        with sub_batches(model, step) as splits:
            assert splits == model[1].splits == model[2][2].splits == max(1, step.base.b // 8)
        assert model[1].splits == 1
    with sub_batches(model, SCHEDULE[0], base=16) as splits:
        assert splits == SCHEDULE[0].base.b // 16


def test_undone_when_the_step_fails_and_when_nested():
    model = SubBatchNorm3d.convert(net())
    with pytest.raises(KeyError), sub_batches(model, SCHEDULE[0]):
        raise KeyError
    assert model[1].splits == 1
    with sub_batches(model, SCHEDULE[0]) as outer:
        with sub_batches(model, SCHEDULE[-1]):
            assert model[1].splits == 1
        assert model[1].splits == outer == 8


def test_evaluation_inside_a_step_is_not_split():
    norm, plain = pair(SubBatchNorm3d, nn.BatchNorm3d, 4)
    x = batch(64, (4, 2, 23, 23))
    with sub_batches(norm, SCHEDULE[0]):
        assert torch.equal(norm.eval()(x), plain.eval()(x))


def test_activation_checkpointing_inside_the_step():
    model = SubBatchNorm3d.convert(nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4, momentum=1.0), nn.ReLU()))
    other = copy.deepcopy(model)
    x = batch(64, (3, 2, 23, 23))
    for net, run in ((model, lambda x: checkpoint(model, x, use_reentrant=False)), (other, other)):
        with sub_batches(net, SCHEDULE[0]):
            run(x).pow(2).mean().backward()
    for got, want in zip(model.parameters(), other.parameters(), strict=True):
        close(got.grad, want.grad)
    close(model[1].running_var, other[1].running_var)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_with_backward_outside_is_refused(reentrant):
    """As Lightning calls it, after `training_step`: the block would run again on the whole mini-batch."""
    model = SubBatchNorm3d.convert(net())
    other, plain = copy.deepcopy(model), SubBatchNorm3d.convert(net())
    x = batch(64, (3, 2, 23, 23)).requires_grad_()
    with sub_batches(model, SCHEDULE[0]):
        loss = checkpoint(model, x, use_reentrant=reentrant).square().mean()
    again = re.escape("a SubBatchNorm3d runs again in a backward() outside sub_batches")
    with pytest.raises(RuntimeError, match=again):
        loss.backward()
    # In a second `with` of the same step it is right, as in the LightningModule of docs/torch.md.
    with sub_batches(other, SCHEDULE[0]):
        loss = checkpoint(other, x, use_reentrant=reentrant).square().mean()
    with sub_batches(other, SCHEDULE[0]):
        loss.backward()
    with sub_batches(plain, SCHEDULE[0]):
        plain(x).square().mean().backward()
    for got, want in zip(other.parameters(), plain.parameters(), strict=True):
        close(got.grad, want.grad)


@pytest.mark.filterwarnings("ignore:a training forward of a SubBatchNorm outside sub_batches")
def test_a_model_that_never_trains_in_steps_may_be_checkpointed():
    model = SubBatchNorm3d.convert(net())
    with sub_batches(model, SCHEDULE[0]):
        fresh = copy.deepcopy(model)
    checkpoint(fresh, batch(4, (3, 4, 8, 8)), use_reentrant=False).sum().backward()
    assert fresh[0].weight.grad.isfinite().all()


def test_copies_have_splits_of_their_own():
    """An EMA copy, made inside a step or outside, follows only the steps that it is given."""
    model = SubBatchNorm3d.convert(net())
    average = torch.optim.swa_utils.AveragedModel(model)
    with sub_batches(model, SCHEDULE[0]):
        assert (model[1].splits, average.module[1].splits) == (8, 1)
        inside, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        average.update_parameters(model)
        assert (model[1].splits, model[1].clips) == (8, 64)
    for other in (inside, pickled, copy.copy(model[1]), copy.deepcopy(model[1])):
        norm = other[1] if isinstance(other, nn.Sequential) else other
        assert (norm.splits, norm.ranks, norm.clips) == (1, 1, 0)
        assert vars(norm).keys() == vars(SubBatchNorm.convert(nn.BatchNorm3d(4))).keys()
    with sub_batches(inside, SCHEDULE[0]):
        assert (inside[1].splits, pickled[1].splits) == (8, 1)
    assert average.eval()(batch(4, (3, 4, 6, 6))).isfinite().all()


def test_what_is_added_or_converted_later_takes_part():
    model = SubBatchNorm3d.convert(net())
    with sub_batches(model, SCHEDULE[0]):
        pass
    model.add_module("late", nn.BatchNorm3d(4))
    model.add_module("none", None)
    SubBatchNorm3d.convert(model)
    model[2][2] = SubBatchNorm3d(4)
    with sub_batches(model, SCHEDULE[0]):
        assert model.late.splits == model[2][2].splits == model[1].splits == 8
    assert model.late.splits == 1


def test_two_models_in_two_threads():
    models = [SubBatchNorm3d.convert(net()) for _ in range(2)]
    barrier = threading.Barrier(2)

    def splits(model, step):
        with sub_batches(model, step):
            barrier.wait(10)
            return model[1].splits

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(splits, models, (SCHEDULE[0], SCHEDULE[-1]))) == [8, 1]


def golden_stages():
    for config in GOLDEN:
        for stage in config["output"].get("stage_detail") or ():
            if stage["bn"]["norm_type"] == "sub_batchnorm":
                yield pytest.param(config, stage, id=f"{config['name']}-{stage['start_epoch']}")


@pytest.mark.parametrize(("config", "stage"), list(golden_stages()))
def test_golden_splits(config, stage):
    given = config["input"]
    schedule = Schedule(
        Shape(given["batch"] // given["gpus"], given["frames"], given["size"], given["size"]),
        samples=240_436,
        epochs=given["epochs"],
        lr_drops=given["lr_steps"][1:],
        plan=Cycles(long=[tuple(f) for f in given["long_factors"]]),
        processes=given["gpus"],
    )
    norm = SubBatchNorm3d(2)
    (base,) = {s.base for s in schedule.stages if (s.base.t, s.base.h) == (stage["frames"], stage["size"])}
    step = next(step for step in (schedule[s.start] for s in schedule.stages) if step.base == base)
    assert base.b == stage["batch_per_gpu"]
    with sub_batches(norm, step, base=given["bn_base_size"]) as splits:
        assert splits == norm.splits == stage["bn"]["num_splits"]


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_step_must_be_one():
    norm = SubBatchNorm3d(2)
    with (
        pytest.raises(TypeError, match=re.escape("step (0) must be a Step; take it from the loop")),
        sub_batches(norm, 0),
    ):
        pass


def test_refusals():
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
    with pytest.raises(
        ValueError, match=re.escape("model (Sequential) has batch norms and none of them is a SubBatchNorm")
    ):
        sub_batches(model, SCHEDULE[0]).__enter__()
    with pytest.raises(ValueError, match=re.escape("base (0) must be at least 1: the clips of a sub-batch")):
        sub_batches(SubBatchNorm3d(2), SCHEDULE[0], base=0).__enter__()
