"""A layer of sub-mini-batch batch norm against the definition."""

import copy

import pytest
import torch
from torch import nn

from pymultigrid.torch import SubBatchNorm1d, SubBatchNorm2d, SubBatchNorm3d

KINDS = [
    (SubBatchNorm1d, nn.BatchNorm1d, (12,)),
    (SubBatchNorm1d, nn.BatchNorm1d, (12, 7)),
    (SubBatchNorm2d, nn.BatchNorm2d, (12, 5, 6)),
    (SubBatchNorm3d, nn.BatchNorm3d, (12, 3, 5, 6)),
]


def filled(norm):
    torch.manual_seed(0)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        if tensor is not None:
            nn.init.uniform_(tensor.detach(), 0.5, 1.5)
    return norm


def pair(cls, plain, channels, **options):
    """A sub-batch norm and torch's with the same values."""
    ours, theirs = filled(cls(channels, **options)), filled(plain(channels, **options))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    return ours, theirs


def batch(b, rest, **kind):
    return torch.randn(b, *rest, generator=torch.Generator().manual_seed(b), **kind) * 3 + 1


def by_hand(norm, x, groups):
    """Output and new running statistics, each group of clips on its own, from the definition in float64."""
    x, dims = x.double(), [0, *range(2, x.dim())]
    shape = [1, -1] + [1] * (x.dim() - 2)
    out, means, variances = torch.empty_like(x), [], []
    for clips in groups:
        part = x[clips]
        mean, var = part.mean(dims), part.var(dims, correction=0)
        out[clips] = (part - mean.view(shape)) / (var.view(shape) + norm.eps).sqrt()
        means.append(mean)
        variances.append(part.var(dims, correction=1))
    if norm.weight is not None:
        out = out * norm.weight.double().view(shape) + norm.bias.double().view(shape)
    share = torch.tensor([len(clips) / len(x) for clips in groups]).double().view(-1, 1)
    means, variances = torch.stack(means), torch.stack(variances)
    mean = (share * means).sum(0)
    return out, mean, (share * (variances + (means - mean) ** 2)).sum(0)


def close(got, want, tolerance=2e-5):
    torch.testing.assert_close(got.double(), want.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("cls", "plain", "rest"), KINDS)
@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}, {"eps": 0.1}]
)
def test_one_split_is_torchs_batch_norm(cls, plain, rest, options):
    ours, theirs = pair(cls, plain, rest[0], **options)
    for training in (True, True, False):
        ours.train(training)
        theirs.train(training)
        x = batch(8, rest)
        assert torch.equal(ours(x), theirs(x))
        assert all(
            torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        )


@pytest.mark.parametrize(("cls", "plain", "rest"), KINDS)
@pytest.mark.parametrize("splits", [2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": 0.3}])
def test_statistics_are_those_of_each_sub_batch(cls, plain, rest, splits, options):
    norm, _ = pair(cls, plain, rest[0], **options)
    before, x = copy.deepcopy(norm), batch(16, rest)
    norm.splits = splits
    out, mean, var = by_hand(norm, x, [list(range(s, 16, splits)) for s in range(splits)])
    close(norm(x), out)
    rate = norm.momentum
    close(norm.running_mean, (1 - rate) * before.running_mean + rate * mean)
    close(norm.running_var, (1 - rate) * before.running_var + rate * var)
    assert int(norm.num_batches_tracked) == 1


@pytest.mark.parametrize(
    ("b", "splits", "sizes"), [(10, 4, (3, 3, 2, 2)), (7, 2, (4, 3)), (3, 8, (1, 1, 1)), (9, 8, (2,) + (1,) * 7)]
)
def test_a_batch_that_splits_do_not_divide(b, splits, sizes):
    norm, _ = pair(SubBatchNorm3d, nn.BatchNorm3d, 12)
    norm.splits, x = splits, batch(b, (12, 3, 5, 6))
    out, mean, var = by_hand(norm, x, [part.tolist() for part in torch.arange(b).split(sizes)])
    before = copy.deepcopy(norm)
    close(norm(x), out)
    close(norm.running_mean, 0.9 * before.running_mean + 0.1 * mean)
    close(norm.running_var, 0.9 * before.running_var + 0.1 * var)


def test_a_sub_batch_always_has_a_variance():
    norm = SubBatchNorm1d(12)
    norm.splits = 8
    assert norm(batch(9, (12,))).isfinite().all()
    assert norm(batch(2, (12,))).isfinite().all()
    assert norm.running_var.isfinite().all()


def test_running_statistics_are_those_of_the_whole_batch():
    """Mean of variances + variance of means is the variance of it all: evaluation does not see the splits."""
    split, whole = SubBatchNorm3d(12, momentum=1.0), nn.BatchNorm3d(12, momentum=1.0)
    split.splits = 8
    x = batch(64, (12, 3, 5, 6))
    split(x)
    whole(x)
    close(split.running_mean, whole.running_mean)
    close(split.running_var, whole.running_var, 0.02)  # the unbiased factors of 8 and of 64 clips differ
    split.eval()
    whole.eval()
    close(split(x), whole(x), 0.02)


def test_the_running_variance_is_the_datas_and_larger_than_the_references():
    """Its splits keep running means, which average away what the sub-batches' means vary by (docs/schedule.md)."""
    generator, shared = torch.Generator().manual_seed(0), 0.5
    norm = SubBatchNorm3d(16)
    norm.splits = 8
    means, variances = torch.zeros(8, 16), torch.ones(8, 16)
    for _ in range(20):
        # Variance 1, half of it between the clips.
        x = shared**0.5 * torch.randn(64, 16, 1, 1, 1, generator=generator)
        x = x + (1 - shared) ** 0.5 * torch.randn(64, 16, 2, 4, 4, generator=generator)
        norm(x)
        parts = torch.stack([x[s::8].transpose(0, 1).flatten(1) for s in range(8)])
        means, variances = means.lerp(parts.mean(2), 0.1), variances.lerp(parts.var(2), 0.1)
    reference = variances.mean(0) + means.var(0, correction=0)
    assert norm.running_var.mean() == pytest.approx(1, abs=0.02)
    assert (norm.running_var / reference).mean() == pytest.approx(1 + shared / 8, abs=0.02)


def test_cumulative_average():
    norm = SubBatchNorm3d(4, momentum=None)
    norm.splits = 2
    means = []
    for b in (4, 8, 6):
        x = batch(b, (4, 2, 3, 3))
        means.append(x.double().mean([0, 2, 3, 4]))
        norm(x)
    close(norm.running_mean, torch.stack(means).mean(0))


def test_gradients():
    norm, plain = pair(SubBatchNorm3d, nn.BatchNorm3d, 4)
    x = batch(8, (4, 2, 3, 3)).requires_grad_()
    weight = batch(8, (4, 2, 3, 3)).cos()
    norm.splits = 4
    (norm(x) * weight).sum().backward()
    got = x.grad.clone(), norm.weight.grad, norm.bias.grad
    x.grad = None
    sum((plain(x[s::4]) * weight[s::4]).sum() for s in range(4)).backward()
    for a, b in zip(got, (x.grad, plain.weight.grad, plain.bias.grad), strict=True):
        close(a, b)


def test_a_contiguous_batch_stays_so():
    norm = SubBatchNorm3d(4)
    norm.splits = 4
    x = batch(8, (4, 2, 3, 3))
    assert norm(x).is_contiguous()
    assert norm(x)._base.shape == (2, 16, 2, 3, 3)  # a view: nothing is copied
    assert norm.splits == 4


@pytest.mark.parametrize(
    ("cls", "rest", "layout"),
    [(SubBatchNorm2d, (4, 3, 3), torch.channels_last), (SubBatchNorm3d, (4, 2, 3, 3), torch.channels_last_3d)],
)
def test_channels_last_stays_so_forward_and_backward(cls, rest, layout):
    norm = cls(4)
    norm.splits = 4
    x = batch(8, rest).contiguous(memory_format=layout).requires_grad_()
    want, mean, var = by_hand(norm, x.detach(), [[0, 1], [2, 3], [4, 5], [6, 7]])
    seen = []
    x.register_hook(lambda grad: seen.append(grad.is_contiguous(memory_format=layout)))
    out = norm(x)
    out.backward(torch.ones_like(out))
    assert out.is_contiguous(memory_format=layout)
    assert seen == [True]
    close(out.detach(), want)
    close(norm.running_mean, 0.1 * mean)
    close(norm.running_var, 0.9 + 0.1 * var)


def test_any_other_memory_layout():
    norm = SubBatchNorm3d(4)
    norm.splits = 4
    x = batch(8, (4, 2, 3, 3)).transpose(3, 4)
    out, *_ = by_hand(norm, x, [[0, 1], [2, 3], [4, 5], [6, 7]])
    close(norm(x), out)


def test_half_precision_and_autocast():
    norm = SubBatchNorm3d(4)
    norm.splits = 4
    x = batch(8, (4, 2, 3, 3))
    want = norm(x)
    for dtype in (torch.bfloat16, torch.float16):
        got = norm(x.to(dtype))
        assert got.dtype == dtype
        close(got, want, 0.05)
    assert norm.running_mean.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        got = nn.Sequential(nn.Conv3d(4, 4, 1), norm)(x)
    assert got.dtype == torch.bfloat16
    assert got.isfinite().all()
    untracked = SubBatchNorm3d(4, track_running_stats=False)
    untracked.splits = 4
    close(untracked(x.bfloat16()), want, 0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("b", [8, 9])
def test_a_network_of_one_precision_without_running_statistics(dtype, affine, b):
    options = {"track_running_stats": False, "affine": affine}
    norm, exact = (SubBatchNorm3d(4, **options).to(kind) for kind in (dtype, torch.float64))
    norm.splits = exact.splits = 4
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        x = batch(b, (4, 2, 3, 3)).to(dtype).contiguous(memory_format=layout).requires_grad_()
        y = x.detach().double().requires_grad_()
        out = norm(x)
        assert out.dtype == nn.BatchNorm3d(4, **options).to(dtype)(x).dtype == dtype
        out.double().cos().sum().backward()
        exact(y).cos().sum().backward()
        close(out, exact(y), 0.05)
        close(x.grad, y.grad, 0.05)


@pytest.mark.parametrize("rest", [(4, 0), (4, 0, 3), (4, 3, 0), (4, 2, 0, 3)])
def test_maps_without_a_cell_are_torchs(rest):
    kinds = {2: (SubBatchNorm1d, nn.BatchNorm1d), 3: (SubBatchNorm2d, nn.BatchNorm2d)}
    ours, theirs = pair(*kinds.get(len(rest), (SubBatchNorm3d, nn.BatchNorm3d)), 4)
    ours.splits = 8
    for splits in (1, 4, 8):
        ours.splits = splits
        assert ours(torch.zeros(8, *rest)).shape == theirs(torch.zeros(8, *rest)).shape == (8, *rest)
        for got, want in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("dim", range(5))
def test_vmap_over_any_axis(dim):
    """As of an ensemble: each model's batch in sub-batches of its own, whatever lies between its clips in memory."""
    norm = SubBatchNorm3d(4, track_running_stats=False)
    norm.splits = 4
    x = batch(3, (8, 4, 2, 5, 5))
    moved = x.movedim(0, dim).contiguous()
    found = torch.func.vmap(norm, in_dims=dim)(moved)
    groups = [[0, 4], [1, 5], [2, 6], [3, 7]] if dim == 0 else [[0, 1], [2, 3], [4, 5], [6, 7]]
    for got, part in zip(found, x, strict=True):
        close(got, by_hand(norm, part, groups)[0])


def test_wrong_input_is_torchs_error():
    norm = SubBatchNorm3d(4)
    norm.splits = 2
    with pytest.raises(ValueError, match="expected 5D input"):
        norm(torch.zeros(4, 4, 3, 3))


@pytest.mark.parametrize("b", [8, 9])
def test_compiles_to_one_graph_per_number_of_splits(b):
    norm = SubBatchNorm3d(4)
    plain = copy.deepcopy(norm)
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=True, dynamic=False)
    for splits in (2, 4, 1, 2):
        plain.splits = norm.splits = splits
        x, y = (batch(b, (4, 2, 3, 3)).requires_grad_() for _ in range(2))
        compiled(x).cos().sum().backward()
        plain(y).cos().sum().backward()
        close(x.grad, y.grad)
        for got, want in zip(norm.state_dict().values(), plain.state_dict().values(), strict=True):
            close(got, want)
