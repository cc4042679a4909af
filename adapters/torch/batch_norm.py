"""Batch norm over sub-mini-batches, so that its statistics do not change with the long cycle's batch."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import torch
from pymultigrid import Step
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

Model = TypeVar("Model", bound=nn.Module)


class SubBatchNorm(_BatchNorm):
    """What SubBatchNorm1d, 2d and 3d share; for ``isinstance``, not to be built."""

    plain: ClassVar[type[_BatchNorm]]
    splits: int = 1
    """Sub-batches of the next training forward. No part of the state; `sub_batches` sets it."""

    @classmethod
    def convert(cls, model: Model) -> Model:
        """Make every batch norm of this dimension in `model` a sub-batch one, in place, and return the model.

        The modules stay the same objects with the same parameters, buffers, hooks and `state_dict` keys: optimizers,
        EMA copies and DDP wrappers don't notice. Subclasses of torch's class and SyncBatchNorm are left alone.
        """
        if cls is SubBatchNorm:
            raise TypeError("SubBatchNorm is what the three share; call SubBatchNorm3d.convert(model), or 2d or 1d")
        for module in model.modules():
            if type(module) is cls.plain:
                object.__setattr__(module, "__class__", cls)
        return model

    @classmethod
    def revert(cls, model: Model) -> Model:
        """Undo `convert`, in place, and return the model; the running statistics stay."""
        for module in model.modules():
            if type(module) is cls:
                module.__dict__.pop("splits", None)
                object.__setattr__(module, "__class__", cls.plain)
        return model

    def forward(self, input: Tensor) -> Tensor:
        """Normalise B x C x ...; in training with the statistics of each of `splits` sub-batches of the B clips."""
        if not self.training or self.splits == 1:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        batch, cells = input.shape[0], input[0, 0].numel()
        # Every sub-batch needs two values per channel to have a variance.
        splits = min(self.splits, batch if cells > 1 else batch // 2)
        if splits <= 1:
            return super().forward(input)
        small, larger = divmod(batch, splits)
        if not larger:
            out, mean, var = self._normalise(input, splits)
            self._track(mean.mean(0), var.mean(0) + mean.var(0, correction=0))
            return out
        # The first `larger` sub-batches take one clip more; each counts by its clips.
        cut = larger * (small + 1)
        parts = [self._normalise(input[:cut], larger), self._normalise(input[cut:], splits - larger)]
        mean, var = (torch.cat([part[i] for part in parts]) for i in (1, 2))
        weight = mean.new_full((splits, 1), small / batch)
        weight[:larger] = (small + 1) / batch
        mean_of_means = (weight * mean).sum(0)
        self._track(mean_of_means, (weight * (var + (mean - mean_of_means) ** 2)).sum(0))
        return torch.cat([part[0] for part in parts])

    def _normalise(self, x: Tensor, splits: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return x normalised, and the mean and unbiased variance of each sub-batch, splits x C.

        The sub-batches become channels: clip i * splits + s is in sub-batch s, and a contiguous batch is not copied.
        """
        channels = splits * x.shape[1]
        like = x if self.running_mean is None else self.running_mean
        mean, var = like.new_zeros(channels), like.new_zeros(channels)
        weight, bias = (p if p is None else p.repeat(splits) for p in (self.weight, self.bias))
        folded = x.reshape(x.shape[0] // splits, channels, *x.shape[2:])
        # With momentum 1 the "running" statistics are the batch's own.
        out = F.batch_norm(folded, mean, var, weight, bias, True, 1.0, self.eps).reshape(x.shape)
        for dims, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
            if x.dim() == dims and not x.is_contiguous() and x.is_contiguous(memory_format=layout):
                out = out.contiguous(memory_format=layout)
        return out, mean.view(splits, -1), var.view(splits, -1)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards those of the whole batch, as torch's batch norm does."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        rate = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if rate is None:
                rate = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, rate or 0.0)
        self.running_var.lerp_(var, rate or 0.0)


class SubBatchNorm1d(SubBatchNorm, nn.BatchNorm1d):
    """`SubBatchNorm3d` for B x C or B x C x L."""

    plain = nn.BatchNorm1d


class SubBatchNorm2d(SubBatchNorm, nn.BatchNorm2d):
    """`SubBatchNorm3d` for B x C x H x W."""

    plain = nn.BatchNorm2d


class SubBatchNorm3d(SubBatchNorm, nn.BatchNorm3d):
    """``torch.nn.BatchNorm3d`` whose training statistics are those of `splits` equal parts of the mini-batch.

    A coarse stage's mini-batch is up to 8 times larger; normalised as a whole its statistics would be less noisy than
    the baseline's, and that noise is part of the recipe.

    >>> import torch
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import SubBatchNorm3d, sub_batches
    >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.BatchNorm3d(4))
    >>> SubBatchNorm3d.convert(net)[1]
    SubBatchNorm3d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    >>> schedule = Schedule.from_epochs(Shape(8, 8, 32, 32), samples=1000, epochs=10)
    >>> with sub_batches(net, schedule[0]):
    ...     net[1].splits, net(torch.zeros(64, 3, 8, 11, 11)).shape
    (8, torch.Size([64, 4, 6, 9, 9]))
    >>> net[1].splits
    1

    The arguments, parameters, buffers and `state_dict` keys are torch's; with ``splits == 1``, and in evaluation, so is
    the result. Each training forward moves the running statistics towards, over the sub-batches,

        mean = average of the means,   var = average of the variances + variance of the means

    (torch's unbiased variances), so that evaluation is right at any moment.

    Where `splits` does not divide the mini-batch, the first sub-batches take one clip more and each weighs by its
    clips; where a sub-batch would have no variance (fewer than two values per channel) there are fewer of them.

    Notes
    -----
    Source: Wu et al. 2020, section 3.1 ("batch normalization"); sub-batch s holds the clips i * splits + s, as in the
    authors' code.
    """

    plain = nn.BatchNorm3d


@contextmanager
def sub_batches(model: nn.Module, step: Step, base: int = 8) -> Iterator[int]:
    """Split the mini-batch of every SubBatchNorm in `model` for one step, and undo it on exit.

    The number of splits, which ``with ... as splits`` gives, is ``max(1, step.base.b // base)``: about `base` clips
    each with respect to the long cycle, held over the short cycle, whose larger mini-batches have larger sub-batches.
    With activation checkpointing keep ``backward()`` inside the ``with``: it runs the forward again.

    >>> import torch
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import SubBatchNorm3d, sub_batches
    >>> schedule = Schedule.from_epochs(Shape(8, 8, 32, 32), samples=1000, epochs=10)
    >>> net = SubBatchNorm3d.convert(torch.nn.BatchNorm3d(4))
    >>> with sub_batches(net, schedule[0], base=16) as splits:
    ...     splits
    4

    Raises
    ------
    ValueError
        `base` is below 1, or the model has no SubBatchNorm.

    Notes
    -----
    Source: Wu et al. 2020, section 3.1.
    """
    if not isinstance(step, Step):
        raise TypeError(f"step ({step!r}) must be a Step; take it from zip(schedule, loader)")
    if operator.index(base) < 1:
        raise ValueError(f"base ({base}) must be at least 1: the clips of a sub-batch")
    modules = [module for module in model.modules() if isinstance(module, SubBatchNorm)]
    if not modules:
        raise ValueError(
            f"model ({type(model).__name__}) has no SubBatchNorm; call SubBatchNorm3d.convert(model) once after "
            "building it (2d or 1d for other batch norms; SyncBatchNorm is left alone), and leave sub_batches out "
            "for a model without batch norm"
        )
    splits = max(1, step.base.b // base)
    before = [module.splits for module in modules]
    # Past nn.Module.__setattr__, which looks for parameters and takes ten times as long.
    for module in modules:
        module.__dict__["splits"] = splits
    try:
        yield splits
    finally:
        for module, was in zip(modules, before, strict=True):
            module.__dict__["splits"] = was
