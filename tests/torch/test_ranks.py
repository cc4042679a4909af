"""Batch norm whose statistics several processes share, in real processes."""

import copy
import warnings

import pytest
import torch
from processes import gloo_has_ended, processes
from test_batch_norm import batch, close
from test_sub_batches import GOLDEN
from torch import nn

from pymultigrid import Schedule, Shape
from pymultigrid.torch import SubBatchNorm3d, sub_batches
from pymultigrid.torch._batch_norm import norms_of, splitting


def per_process(b, processes):
    """A schedule whose full shape has b clips a process, with stages of 8 b, 4 b, 2 b and b."""
    return Schedule(Shape(b, 8, 32, 32), samples=1000, epochs=10, lr_drops=(5,), processes=processes, lr_scaling="none")


def test_two_ranks_below_the_base_share_statistics():
    processes(two_ranks, per_process(2, 2)[-1])


def two_ranks(rank, step):
    plain_batch_norm_on_all_clips(rank, step, torch.contiguous_format)
    plain_batch_norm_on_all_clips(rank, step, torch.channels_last_3d, momentum=None)
    plain_batch_norm_on_all_clips(rank, step, torch.contiguous_format, affine=False)
    maps_without_a_cell(rank, step)
    half_precision_and_compiled(rank, step)
    a_network_of_half_precision(step)


def plain_batch_norm_on_all_clips(rank, step, layout, **options):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4, **options)).double()
    ours = SubBatchNorm3d.convert(copy.deepcopy(plain))
    keys = list(ours.state_dict())
    model = nn.parallel.DistributedDataParallel(ours)
    everything = batch(4, (3, 2, 3, 3), dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    # Process 1 has more clips than process 0: each clip counts.
    mine = slice(0, 1) if rank == 0 else slice(1, 4)
    part = everything.detach()[mine].clone().requires_grad_()
    for _ in range(2):
        with splitting(norms_of(model), step, 8, clips=1) as splits:
            out = model(part)
            out.square().cos().sum().backward()
        want = plain(everything)
        want.square().cos().sum().backward()
    assert splits == 1
    close(out, want[mine], 1e-12)
    close(part.grad, everything.grad[mine], 1e-12)
    for got, want in zip(ours.parameters(), plain.parameters(), strict=True):
        close(got.grad * 2, want.grad, 1e-11)  # DDP takes the mean over the processes
    assert list(ours.state_dict()) == list(plain.state_dict()) == keys
    for got, want in zip(ours.buffers(), plain.buffers(), strict=True):
        close(got, want, 1e-12)
    assert torch.equal(model.eval()(part), ours(part))


def maps_without_a_cell(rank, step):
    """A branch for regions where one process, or neither, has found one."""
    x = batch(2, (4, 2, 3, 3), dtype=torch.float64).requires_grad_()
    none, alone = torch.zeros(2, 4, 2, 0, 3, dtype=torch.float64, requires_grad=True), nn.BatchNorm3d(4).double()
    norm = SubBatchNorm3d(4).double()
    for _ in range(2):
        with splitting([norm], step, 8, clips=2):
            out = norm(x if rank else none)
            out.cos().sum().backward()
            norm(none)  # of both: nothing to learn
        alone(x).cos().sum().backward()
    if rank:
        close(out, alone(x), 1e-12)
        close(norm.weight.grad, alone.weight.grad, 1e-12)
    close(norm.running_var, 0.81 + 0.19 * x.detach().var([0, 2, 3, 4]), 1e-12)
    assert int(norm.num_batches_tracked) == 4


def half_precision_and_compiled(rank, step):
    torch.manual_seed(rank)
    model = SubBatchNorm3d.convert(nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)))
    compiled = torch.compile(model, backend="aot_eager", dynamic=False)
    x = batch(2, (3, 8, 32, 32)) + rank
    with sub_batches(model, step), torch.autocast("cpu", torch.bfloat16):
        want = model(x)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "<class 'torch.autograd.function.Function'>")  # the tracer's own
            got = compiled(x)
        got.float().pow(2).sum().backward()
    assert got.dtype == want.dtype == torch.bfloat16
    close(got, want, 1e-6)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def a_network_of_half_precision(step):
    for dtype in (torch.bfloat16, torch.float16):
        x = batch(2, (4, 2, 3, 3)).to(dtype)
        half, exact = SubBatchNorm3d(4).to(dtype), SubBatchNorm3d(4)
        clips = [x.requires_grad_(), x.detach().float().requires_grad_()]
        for norm, part in zip((half, exact), clips, strict=True):
            with splitting([norm], step, 8, clips=2):
                norm(part).float().cos().sum().backward()
        for got, want in zip((clips[0], *half.parameters()), (clips[1], *exact.parameters()), strict=True):
            assert got.grad.dtype == dtype
            close(got.grad, want.grad, 0.02)
        close(half.running_var, exact.running_var, 0.01)
        assert half.running_var.dtype == dtype


def golden_sharing():
    """Where the clips of a process divide the base; else the reference takes fewer than `base` clips, we take more."""
    for config in GOLDEN:
        for stage in config["output"].get("stage_detail") or ():
            b, base = stage["batch_per_gpu"], config["input"]["bn_base_size"]
            if stage["bn"]["norm_type"] == "sync_batchnorm" and base % b == 0:
                yield b, base, stage["bn"]["num_sync_devices"]


def test_which_ranks_share_follows_the_step():
    golden = sorted(set(golden_sharing()))
    assert golden == [(2, 8, 4), (4, 8, 2)]
    processes(five_ranks, golden, ranks=5)


def five_ranks(rank, golden):
    for b, base, ranks in golden:
        norm = SubBatchNorm3d(2)
        with sub_batches(norm, per_process(b, 5)[-1], base=base):
            assert norm.ranks == ranks
    neighbours(rank)
    from_stage_to_stage(per_process(2, 5))
    torch.distributed.destroy_process_group()
    assert gloo_has_ended()  # both the default group and this rank's own


def neighbours(rank):
    """Five processes in groups of at least 2 are two groups; more than 2 of them can only be all."""
    for b, mean in ((4, 0.5 if rank < 2 else 3.0), (3, 2.0), (1, 2.0)):
        norm = SubBatchNorm3d(1, momentum=1.0)
        with sub_batches(norm, per_process(b, 5)[-1]):
            norm(torch.full((b, 1, 8, 32, 32), float(rank)))
        assert float(norm.running_mean) == pytest.approx(mean)


def from_stage_to_stage(schedule):
    model, asked = SubBatchNorm3d.convert(nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))), []
    for stage in schedule.stages[:4]:
        step = schedule[stage.stop - 1]
        with sub_batches(model, step) as splits:
            asked.append((step.base.b, splits, model[1].ranks))
            copy.deepcopy(model)
            model(batch(step.shape.b, (3, *tuple(step.shape)[1:]))).sum().backward()
        assert (model[1].splits, model[1].ranks) == (1, 1)
    assert asked == [(16, 2, 1), (8, 1, 1), (4, 1, 2), (2, 1, 4)]
    with sub_batches(model, schedule[-1], base=2):
        assert model[1].ranks == 1
