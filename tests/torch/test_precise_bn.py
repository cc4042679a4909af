"""Running statistics of the full shape: what they are, and that the training does not notice."""

import copy
import re

import pytest
import torch
from processes import processes
from torch import nn
from torch.utils.data import Dataset

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, precise_bn, resample, sub_batches

VIDEOS, CLASSES = 48, 4
SCHEDULE = Schedule(Shape(8, 8, 16, 16), samples=VIDEOS, epochs=40)


class Bars(Dataset):
    """Bars that stand or lie, faint or strong, under noise."""

    def __len__(self):
        return VIDEOS

    def __getitem__(self, sample):
        label = sample.index % CLASSES
        grid = sample.grid((40, 24, 24), stride=2)
        noise = torch.randn(40, 24, 24, generator=torch.Generator().manual_seed(sample.index))
        bars = (torch.arange(24) % 8 < 4).float() * (0.5, 1.0)[label % 2]
        video = noise * 0.3 + (bars[:, None] if label < 2 else bars[None, :])
        return resample(video[..., None].expand(-1, -1, -1, 3), grid), label


def net(*, dtype=torch.float32, dropout=0.3):
    torch.manual_seed(0)
    return SubBatchNorm.convert(
        nn.Sequential(
            nn.Conv3d(3, 8, 3, padding=1),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv3d(8, 8, 3, stride=(1, 2, 2), padding=1),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(8, CLASSES),
        ).to(dtype)
    )


def full(steps=8, **options):
    return Loader(Bars(), SCHEDULE.without_multigrid()[:steps], **options)


def state(model):
    """Everything a training goes on from: parameters, statistics, modes and the generator."""
    modes = [module.training for module in model.modules()]
    return [v.clone() for v in model.state_dict().values()], modes, torch.get_rng_state()


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True)) and a[1] == b[1] and torch.equal(a[2], b[2])


def by_hand(model, batches):
    """The statistics of all clips, from a plain copy in float64 that keeps what its batch norms see."""
    plain = SubBatchNorm.revert(copy.deepcopy(model)).double().eval()
    seen = {}
    for name, module in plain.named_modules():
        if isinstance(module, nn.BatchNorm3d):
            module.train()
            module.register_forward_pre_hook(lambda m, x, name=name: seen.setdefault(name, []).append(x[0].detach()))
    for _, (clips, _) in batches:
        plain(clips.double())
    return {name: torch.var_mean(torch.cat(x), (0, 2, 3, 4)) for name, x in seen.items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_they_are_those_of_every_clip(workers):
    model = net()
    want = by_hand(model, full())
    before = state(model)
    with precise_bn(model, full(num_workers=workers)) as clips:
        assert clips == 64
        for name, (var, mean) in want.items():
            norm = model.get_submodule(name)
            torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-5, atol=1e-6)
            assert norm.running_mean is dict(model.named_buffers())[f"{name}.running_mean"]
    assert same(state(model), before)


def test_in_half_precision_they_are_summed_exactly():
    """A mean of 64 over values that bfloat16 rounds to a quarter; sums in bfloat16 would stop growing at 512."""
    norm = SubBatchNorm.convert(nn.BatchNorm3d(3).bfloat16())
    values = 64 + torch.randn(16, 8, 3, 8, 16, 16)
    steps = SCHEDULE.without_multigrid()[:16]
    with precise_bn(norm, zip(steps, values.bfloat16(), strict=True)):
        exact = values.bfloat16().double()
        want = exact.mean((0, 1, 3, 4, 5)).bfloat16(), exact.var((0, 1, 3, 4, 5)).bfloat16()
        assert torch.equal(norm.running_mean, want[0])
        torch.testing.assert_close(norm.running_var, want[1], rtol=2**-7, atol=0)
    assert torch.equal(norm.running_mean, torch.zeros(3).bfloat16())


def trained(steps, look):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    lr = ScaledLR(torch.optim.lr_scheduler.ConstantLR(optimizer, 1), SCHEDULE)
    losses = []
    for step, (clips, labels) in Loader(Bars(), SCHEDULE[:steps]):
        with sub_batches(model, step):
            loss = nn.functional.cross_entropy(model(clips), labels)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        lr.step()
        losses.append(loss.item())
        if look and step.index % 2:
            with precise_bn(model, full(2)), torch.no_grad():
                model.eval()(torch.zeros(2, 3, 8, 16, 16))
            model.train()
    return losses, state(model)


def test_the_training_does_not_notice():
    """The same losses (dropout draws among them), weights, statistics, counts of batches and generator, bit for bit."""
    (plain, end), (looked, end_of_looked) = trained(6, look=False), trained(6, look=True)
    assert plain == looked
    assert same(end, end_of_looked)


def accuracy(model):
    wrong = right = 0
    model.eval()
    with torch.no_grad():
        for _, (clips, labels) in Loader(Bars(), SCHEDULE.without_multigrid()[:12], seed=1):
            hit = model(clips).argmax(1) == labels
            right, wrong = right + int(hit.sum()), wrong + int((~hit).sum())
    model.train()
    return right / (right + wrong)


def test_in_a_coarse_stage_an_evaluation_says_what_the_weights_are_worth():
    """Within three points of statistics by hand over many more clips; those of the training are far off."""
    schedule = Schedule(Shape(8, 8, 16, 16), samples=VIDEOS, epochs=200)
    model = net(dropout=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    lr = ScaledLR(torch.optim.lr_scheduler.ConstantLR(optimizer, 1), schedule)
    coarse = schedule[: schedule.stages[0].stop]
    for step, (clips, labels) in Loader(Bars(), coarse):
        with sub_batches(model, step):
            nn.functional.cross_entropy(model(clips), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        lr.step()
    as_trained = accuracy(model)
    with precise_bn(model, full(8)):
        precise = accuracy(model)
    for name, (var, mean) in by_hand(model, full(30)).items():
        model.get_submodule(name).running_mean.copy_(mean)
        model.get_submodule(name).running_var.copy_(var)
    by_many = accuracy(model)
    assert abs(precise - by_many) <= 0.03
    assert as_trained < precise - 0.1


def test_after_an_error_the_training_has_its_own_again():
    model = net()
    before = state(model)
    with pytest.raises(KeyError), precise_bn(model, full(2)):
        raise KeyError
    assert same(state(model), before)
    coarse = Loader(Bars(), SCHEDULE[:2])
    with (
        pytest.raises(ValueError, match=re.escape("step 0, 128x2x8x8, and statistics are of the full shape")),
        precise_bn(model, coarse),
    ):
        pass
    assert same(state(model), before)
    with pytest.raises(ValueError, match="loader has no batches"), precise_bn(model, []):
        pass
    with pytest.raises(TypeError, match=re.escape("forward (3) must be a function")), precise_bn(net(), [], forward=3):
        pass


def test_what_has_no_statistics_of_its_own_reads_nothing():
    with precise_bn(nn.Linear(2, 2), None) as clips:
        assert clips == 0
    model = net()
    for norm in (model[1], model[5]):
        norm.eval()  # frozen, in a model that trains
    with precise_bn(model, None) as clips:
        assert clips == 0
    model[5].train()
    with precise_bn(model, full(1)):
        assert torch.equal(model[1].running_mean, torch.zeros(8))
        assert not torch.equal(model[5].running_mean, torch.zeros(8))


def test_a_compiled_model():
    model = net()
    compiled = torch.compile(model, backend="eager", dynamic=False)
    clips = torch.rand(8, 3, 8, 16, 16)
    with torch.no_grad():
        compiled(clips)
        with precise_bn(model, full(2)):
            want = [norm.running_mean.clone() for norm in (model[1], model[5])]
        with precise_bn(compiled, full(2)):
            assert all(torch.equal(w, n.running_mean) for w, n in zip(want, (model[1], model[5]), strict=True))
            compiled.eval()
            assert torch.equal(compiled(clips), model(clips))


def test_every_process_gets_the_statistics_of_all():
    with precise_bn(net(), full(4)) as clips:
        pass
    alone = net()
    with precise_bn(alone, full(4)):
        processes(one_of_two, clips, [b.clone() for b in alone.buffers()])


def one_of_two(rank, clips, want):
    """Two ranks read the same global batches, half of each."""
    schedule = Schedule(Shape(4, 8, 16, 16), samples=VIDEOS, epochs=40, processes=2)
    model = nn.parallel.DistributedDataParallel(net())
    before = state(model.module)
    with precise_bn(model, Loader(Bars(), schedule.without_multigrid()[:4])) as found:
        assert found == clips
        mine = list(model.module.buffers())
        every = [torch.empty_like(mine[0]) for _ in range(2)]
        torch.distributed.all_gather(every, mine[0])
        assert torch.equal(*every)
        for a, b in zip(mine, want, strict=True):
            if a.is_floating_point():
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert same(state(model.module), before)
