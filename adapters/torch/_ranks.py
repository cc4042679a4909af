"""Batch norm over the clips of several processes: which ranks share statistics, and how."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pymultigrid.torch._processes import rank_and_processes


def sharing(ranks: int) -> int:
    """Return how many processes can share statistics if `ranks` of them should, and prepare for it.

    Every process must call it with the same number, because it creates missing process groups.
    """
    _, processes = rank_and_processes() or (0, 1)
    if ranks == 1 or processes == 1:
        return 1
    ranks = min(ranks, processes)
    if ranks > 1 and ranks not in (made := _groups.setdefault(distributed.group.WORLD, {})):
        made[ranks] = _make_group(ranks)
    return ranks


def normalise_together(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x normalised with the statistics of about `ranks` processes, then their mean, unbiased variance and count.

    A process may have no values, for example in a branch for regions that has none; so may all processes.
    """
    group = _groups[distributed.group.WORLD][ranks]
    out: tuple[Tensor, Tensor, Tensor, Tensor] = _Together.apply(x, weight, bias, eps, group)  # type: ignore[no-untyped-call]
    return out


# Keyed by the default group, which this must not keep alive after its end, and by the number of ranks asked for.
_groups: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()


def _make_group(ranks: int) -> Any:
    """Return this process's group of at least `ranks` neighbours; all groups are as equal in size as possible.

    None is the default group of all processes, as in torch's functions.
    """
    processes = distributed.get_world_size()
    groups = processes // ranks
    if groups == 1:
        return None
    bounds = [processes * i // groups for i in range(groups + 1)]
    mine, _ = distributed.new_subgroups_by_enumeration([list(range(start, stop)) for start, stop in pairwise(bounds)])
    return mine


class _Together(torch.autograd.Function):
    """Each process contributes mean, variance and count; the gradient needs two sums over the processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Half precision has too few digits for statistics.
        exact = x if x.dtype == torch.float64 else x.float()
        if x.numel():
            var, mean = torch.var_mean(exact, [0, *range(2, x.dim())], correction=0)
        else:
            var = mean = exact.new_zeros(x.shape[1])
        mine = torch.cat([mean, var, mean.new_full((1,), x.numel() // x.shape[1])])
        theirs = [torch.empty_like(mine) for _ in range(distributed.get_world_size(group))]
        distributed.all_gather(theirs, mine, group=group)
        means, variances, counts = torch.stack(theirs).split([len(mean), len(mean), 1], dim=1)
        all_values = counts.sum()
        count = all_values.clamp(min=1)
        mean = (counts * means).sum(0) / count
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps, ctx.group = eps, group
        unbiased = var * (count / (count - 1).clamp(min=1))
        ctx.mark_non_differentiable(mean, unbiased, all_values)
        # A network that is entirely in half precision has half-precision weights too.
        exact_weight, exact_bias = (p if p is None else p.to(mean.dtype) for p in (weight, bias))
        return F.batch_norm(x, mean, var, exact_weight, exact_bias, False, 0.0, eps), mean, unbiased, all_values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, count = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight.to(mean.dtype)
        # First as in evaluation, where the statistics are constants; this also gives the sums of grad * normalised x
        # and grad.
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            grad, x, scale, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([dweight, dbias])
        distributed.all_reduce(sums, group=ctx.group)
        # Then the part of the statistics: (mean of grad + normalised x * mean of grad * normalised x) * weight / std
        slope, level = sums / count * scale * torch.rsqrt(var + ctx.eps)
        slope = slope * torch.rsqrt(var + ctx.eps)
        shape = [1, -1] + [1] * (x.dim() - 2)
        dx -= torch.addcmul((level - slope * mean).view(shape), x, slope.view(shape))
        if weight is None:
            return dx, None, None, None, None
        return dx, dweight.to(weight.dtype), dbias.to(weight.dtype), None, None
