"""Batch norm over sub-mini-batches, so that its statistics do not change with the long cycle's batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pymultigrid import Step
from pymultigrid.torch._ranks import normalise_together, sharing
from pymultigrid.torch._unconverted import as_torch_fuses, leave_out, listed, unconverted

Model = TypeVar("Model", bound=nn.Module)

_REVERT = "pass a copy of the trained model with torch's own layers, SubBatchNorm.revert(copy.deepcopy(model)).eval()"

# What a step sets on a layer. It is left out of copies and pickles that are made inside the step.
_OF_THE_STEP = ("splits", "ranks", "clips", "_trained_in_steps")


class SubBatchNorm(_BatchNorm):
    """The base class of SubBatchNorm1d, 2d and 3d; for ``isinstance``, not to be built."""

    plain: ClassVar[type[_BatchNorm]]
    splits: int = 1
    """Sub-batches of the next training forward. Not part of the state; `sub_batches` sets it."""
    ranks: int = 1
    """Minimum number of processes that share the statistics of the next training forward. Likewise not in the state."""
    clips: int = 0
    """Clips of the current step; 0 outside `sub_batches`. Likewise not in the state."""

    @classmethod
    def convert(cls, model: Model) -> Model:
        """Make every batch norm in `model` a sub-batch one, in place, and return the model.

        ``SubBatchNorm.convert`` converts those of 1, 2 and 3 dimensions, ``SubBatchNorm3d.convert`` only its own. The
        modules stay the same objects with the same parameters, buffers, hooks and `state_dict` keys, so optimizers, EMA
        copies and DDP wrappers are not affected.

        Layers with their own forward are left alone and named in a warning: subclasses of torch's classes, norms that
        are already parametrized, SyncBatchNorm.

        >>> import torch
        >>> from pymultigrid.torch import SubBatchNorm
        >>> SubBatchNorm.convert(torch.nn.Sequential(torch.nn.BatchNorm2d(4), torch.nn.BatchNorm3d(4)))
        Sequential(
          (0): SubBatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
          (1): SubBatchNorm3d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
        )

        Raises
        ------
        ValueError
            A batch norm is lazy and not built yet.

        Warns
        -----
        RuntimeWarning
            A batch norm is left alone.
        """
        classes: dict[type, type[SubBatchNorm]] = {ours.plain: ours for ours in cls._concrete()}
        found = unconverted(model, SubBatchNorm)
        for module in found.values():
            if type(module) in classes:
                object.__setattr__(module, "__class__", classes[type(module)])
                module.__dict__["_converted"] = True
        others = {ours.plain for ours in SubBatchNorm._concrete()} - set(classes)
        left = {name: module for name, module in found.items() if not isinstance(module, SubBatchNorm)}
        leave_out(left, chosen=tuple(others))
        return model

    @classmethod
    def revert(cls, model: Model) -> Model:
        """Undo `convert`, in place, and return the model; the running statistics stay.

        Export, quantization and ``torch.jit.script`` support only torch's classes: pass them a reverted copy,
        ``SubBatchNorm.revert(copy.deepcopy(model))``.

        Raises
        ------
        ValueError
            A layer was parametrized or sharded after `convert`, which changed its class.
        """
        kinds = tuple(cls._concrete())
        found = {n: module for n, module in model.named_modules() if isinstance(module, kinds)}
        changed = {n: module for n, module in found.items() if type(module) not in kinds}
        if changed:
            raise ValueError(
                f"revert can't take {listed(changed)}: something has changed their class since convert; undo that "
                "first (torch.nn.utils.parametrize.remove_parametrizations), or build the model anew and load the state"
            )
        for module in found.values():
            for name in (*_OF_THE_STEP, "_converted"):
                module.__dict__.pop(name, None)
            object.__setattr__(module, "__class__", module.plain)
        return model

    @classmethod
    def _concrete(cls) -> list[type[SubBatchNorm]]:
        return [SubBatchNorm1d, SubBatchNorm2d, SubBatchNorm3d] if cls is SubBatchNorm else [cls]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _OF_THE_STEP}

    def __prepare_scriptable__(self) -> nn.Module:
        raise RuntimeError(f"torch.jit.script can't take a {type(self).__name__}: {_REVERT}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise B x C x ...; in training, each of `splits` sub-batches of the B clips with its own statistics."""
        if _is_traced(input):
            raise RuntimeError(f"torch.fx can't trace a {type(self).__name__}: {_REVERT}")
        if not self.training:
            return super().forward(input)
        if not torch.compiler.is_compiling():
            self._check_step(len(input))
        if self.splits == 1 and self.ranks == 1:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if self.ranks > 1:
            out, mean, var, count = normalise_together(input, self.weight, self.bias, self.eps, self.ranks)
            self._track(mean, var, count)
            return out
        batch, cells = input.shape[0], math.prod(input.shape[2:])
        # Every sub-batch needs two values per channel to have a variance. Maps without cells have none.
        splits = min(self.splits, batch if cells > 1 else batch // 2)
        if splits <= 1 or not cells:
            return super().forward(input)
        if batch % splits == 0 and input.is_contiguous():
            return self._folded(input, splits)
        return self._one_by_one(input, splits)

    def _check_step(self, batch: int) -> None:
        """Refuse another number of clips than the step has, and warn, once per layer, of training without a step."""
        if self.clips and batch % self.clips:
            raise ValueError(
                f"a batch norm sees {batch} clips, and the step has {self.clips}: train each mini-batch of the "
                "schedule whole, in one forward, in the sub_batches of its own step; to accumulate "
                "gradients make the schedule for more processes and pass accumulate= to the loader, and start one "
                "process for each GPU instead of DataParallel"
            )
        if not self.clips and self.__dict__.get("_trained_in_steps") and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                f"a {type(self).__name__} runs again in a backward() outside sub_batches, where its step is no longer "
                "known: with activation checkpointing call backward() inside sub_batches(model, step); a "
                "LightningModule does that in its own backward (docs/torch.md, Lightning). To train without a "
                "schedule, SubBatchNorm.revert(model)"
            )
        if not self.clips and self.splits == 1 and self.__dict__.get("_converted") and torch.is_grad_enabled():
            del self.__dict__["_converted"]
            warnings.warn(
                "a training forward of a SubBatchNorm outside sub_batches(model, step): the mini-batch is "
                "normalised as a whole, which for a coarse step is not the baseline's batch norm; put the forward and "
                "backward inside it",
                RuntimeWarning,
                stacklevel=4,
            )

    def _folded(self, x: Tensor, splits: int) -> Tensor:
        """Normalise with sub-batches folded into channels, without a copy: clip i * splits + s is in sub-batch s."""
        channels = splits * x.shape[1]
        weight, bias = (p if p is None else p.repeat(splits) for p in (self.weight, self.bias))
        # With momentum 1 the "running" statistics are the batch's own.
        mean, var = self._blank(x, channels), self._blank(x, channels)
        folded = x.view(x.shape[0] // splits, channels, *x.shape[2:])
        out = F.batch_norm(folded, mean, var, weight, bias, True, 1.0, self.eps)
        spread, centre = torch.var_mean(mean.view(splits, -1), 0, correction=0)
        self._track(centre, var.view(splits, -1).mean(0).add_(spread))
        return out.reshape(x.shape)  # a view, except under vmap

    def _one_by_one(self, x: Tensor, splits: int) -> Tensor:
        """Normalise runs of consecutive clips, which keeps any memory format; statistics are weighted by clips."""
        small, larger = divmod(len(x), splits)
        parts = x.split([small + 1] * larger + [small] * (splits - larger))
        mean, var = (self._blank(x, splits * x.shape[1]).view(splits, -1) for _ in range(2))
        rows = zip(parts, mean, var, strict=True)
        out = torch.cat([F.batch_norm(p, m, v, self.weight, self.bias, True, 1.0, self.eps) for p, m, v in rows])
        share = mean.new_full((splits, 1), small / len(x))
        share[:larger] = (small + 1) / len(x)
        centre = (share * mean).sum(0)
        self._track(centre, (share * (var + (mean - centre) ** 2)).sum(0))
        return out

    def _blank(self, x: Tensor, channels: int) -> Tensor:
        """Return zeros for statistics, in the precision that torch requires beside these weights."""
        if self.running_mean is not None:
            return self.running_mean.new_zeros(channels)
        exact = torch.promote_types(x.dtype, torch.float32)
        return x.new_zeros(channels, dtype=exact if self.weight is None else self.weight.dtype)

    def _track(self, mean: Tensor, var: Tensor, count: Tensor | None = None) -> None:
        """Move the running statistics towards those of the whole batch, as torch does; not if it had no values."""
        running_mean, running_var = self.running_mean, self.running_var
        if not self.track_running_stats or running_mean is None or running_var is None:
            return
        if count is not None:
            mean, var = torch.where(count > 0, mean, running_mean), torch.where(count > 0, var, running_var)
        rate = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if rate is None:
                rate = 1.0 / float(self.num_batches_tracked)
        running_mean.lerp_(mean.to(running_mean.dtype), rate or 0.0)
        running_var.lerp_(var.to(running_var.dtype), rate or 0.0)


class SubBatchNorm1d(SubBatchNorm, nn.BatchNorm1d):
    """`SubBatchNorm3d` for B x C or B x C x L."""

    plain = nn.BatchNorm1d


class SubBatchNorm2d(SubBatchNorm, nn.BatchNorm2d):
    """`SubBatchNorm3d` for B x C x H x W."""

    plain = nn.BatchNorm2d


class SubBatchNorm3d(SubBatchNorm, nn.BatchNorm3d):
    """``torch.nn.BatchNorm3d`` whose training statistics are those of `splits` equal parts of the mini-batch.

    A coarse stage's mini-batch is up to 8 times larger. Normalised as a whole, it would have less noisy statistics than
    the baseline, and that noise is part of the recipe.

    >>> import torch
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import SubBatchNorm3d, sub_batches
    >>> net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, (1, 3, 3)), torch.nn.BatchNorm3d(4))
    >>> SubBatchNorm3d.convert(net)[1]
    SubBatchNorm3d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    >>> schedule = Schedule(Shape(8, 8, 32, 32), samples=1000, epochs=10)
    >>> with sub_batches(net, schedule[0]):
    ...     net[1].splits, net(torch.zeros(64, 3, 2, 23, 23)).shape
    (8, torch.Size([64, 4, 2, 21, 21]))
    >>> net[1].splits
    1

    The arguments, parameters, buffers and `state_dict` keys are torch's; with ``splits == 1``, and in evaluation, so is
    the result. Each training forward moves the running statistics towards the following, over the sub-batches,

        mean = average of the means,   var = average of the variances + variance of the means

    (torch's unbiased variances), so that evaluation is right at any moment.

    If `splits` does not divide the mini-batch, the first sub-batches take one clip more and each is weighted by its
    clips. If a sub-batch would have no variance (fewer than two values per channel), there are fewer of them.

    With ``ranks > 1`` the statistics are those of the clips of that many processes, as in ``torch.nn.SyncBatchNorm``,
    on CPUs too.

    Notes
    -----
    Source: Wu et al. 2020, section 3.1 ("batch normalization"). In a contiguous batch sub-batch s holds the clips
    i * splits + s, as in the authors' code; in a channels-last batch, or if `splits` does not divide it, it holds
    consecutive clips, which keeps the memory format.
    """

    plain = nn.BatchNorm3d


def _is_traced(input: object) -> bool:
    return isinstance(input, fx.Proxy)


@contextmanager
def splitting(norms: list[SubBatchNorm], step: Step, base: int, *, clips: int) -> Iterator[int]:
    """Set the splits of a step on these layers inside the ``with``; `sub_batches` adds the checks."""
    splits, ranks = max(1, step.base.b // base), sharing(-(-base // step.base.b))
    # Bypasses nn.Module.__setattr__, which looks for parameters and takes ten times as long.
    before = [(vars(norm), norm.splits, norm.ranks, norm.clips) for norm in norms]
    for values, *_ in before:
        values["splits"], values["ranks"], values["clips"] = splits, ranks, clips
    try:
        yield splits
    finally:
        for values, *were in before:
            values["splits"], values["ranks"], values["clips"] = were


def norms_of(model: nn.Module) -> list[SubBatchNorm]:
    """Find the layers, at every step so that none is out of date; `model.modules()` takes seven times as long."""
    found: list[SubBatchNorm] = []
    modules: list[nn.Module | None] = [model]
    for module in modules:
        if isinstance(module, SubBatchNorm):
            found.append(module)
        elif module is not None and module._modules:
            modules += module._modules.values()
    return found


def check_converted(model: nn.Module, norms: list[SubBatchNorm]) -> None:
    """Refuse a model whose batch norms were not converted, and warn once of those that no warning has named.

    The layers record that they train in steps, so that they can refuse a checkpointed forward outside of one.
    """
    found = unconverted(model, SubBatchNorm)
    plain = tuple(ours.plain for ours in SubBatchNorm._concrete())
    if not norms and any(type(module) in plain for module in found.values()):
        raise ValueError(
            f"model ({type(model).__name__}) has batch norms and none of them is a SubBatchNorm; call "
            "SubBatchNorm.convert(model) once after building it"
        )
    leave_out(found)
    for norm in norms:
        vars(norm)["_trained_in_steps"] = True


as_torch_fuses({ours.plain: ours for ours in SubBatchNorm._concrete()}, SubBatchNorm.revert)
