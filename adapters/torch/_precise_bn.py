"""Batch norm's running statistics at the full shape, for evaluation in the middle of a schedule."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pymultigrid import Step, _arguments
from pymultigrid.torch._batch_norm import norms_of, splitting
from pymultigrid.torch._evaluate import evaluating
from pymultigrid.torch._kinds import check_model
from pymultigrid.torch._passes import as_written
from pymultigrid.torch._processes import rank_and_processes


@contextmanager
def precise_bn(
    model: nn.Module,
    loader: Iterable[tuple[Step, Any]],
    *,
    base: int = 8,
    forward: Callable[[Any], object] | None = None,
) -> Iterator[int]:
    """Evaluate with running statistics of full-shape clips, and restore the training's statistics on exit.

    In a coarse stage batch norm's running statistics are those of coarse clips, so evaluation at the full shape says
    little about the weights. This recomputes them from training clips at the full shape: the mean and the variance of
    every value that each batch norm sees, over all clips of `loader`. It yields the number of clips.

    >>> import torch
    >>> from pymultigrid import Schedule, Shape
    >>> from pymultigrid.torch import Loader, SubBatchNorm, precise_bn
    >>> class Noise(torch.utils.data.Dataset):  # the training's data set
    ...     def __len__(self):
    ...         return 100
    ...     def __getitem__(self, sample):
    ...         return torch.rand(3, *tuple(sample.step.shape)[1:]), 0
    >>> schedule = Schedule(Shape(4, 4, 16, 16), samples=100, epochs=10)
    >>> net = SubBatchNorm.convert(torch.nn.BatchNorm3d(3))
    >>> full = Loader(Noise(), schedule.without_multigrid()[:16])  # 16 mini-batches of the full shape: 64 clips
    >>> with precise_bn(net, full) as clips:
    ...     clips, [round(float(mean), 1) for mean in net.running_mean]  # evaluate(net, views) here
    (64, [0.5, 0.5, 0.5])
    >>> net.running_mean
    tensor([0., 0., 0.])

    The clips are those that training would see at the full shape, the same at every call, normalised in sub-batches as
    in training. Other layers are in evaluation mode, so dropout is off. Weights, statistics, modes and random numbers
    of the training are restored bit for bit, also after an error. 64 clips are enough (docs/curves.md); for a model
    without batch norm none are read. A frozen batch norm, in evaluation mode while the model is in training mode, keeps
    its statistics; so enter this before ``model.eval()``.

    Under ``torch.distributed`` all processes must enter this; each reads its share, and all get the same statistics.

    Parameters
    ----------
    model
        The model that is trained, or an EMA copy of it; it may be compiled or wrapped in DistributedDataParallel.
    loader
        Yields (step, batch) of the full shape: ``Loader(dataset, schedule.without_multigrid()[:n])``, for streams too.
    base
        As in `sub_batches`.
    forward
        Runs the model on a batch. None: ``model(clips)`` on the model's device, where `clips` is the batch's first
        part.

    Raises
    ------
    ValueError
        The loader yields clips of another shape than the full one, or none at all.

    Notes
    -----
    Source: "precise BN" of the authors' released code. There statistics are averaged over mini-batches; here they are
    those of all clips at once.
    """
    check_model(model)
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError("model has scripted modules, whose batch norms take no hooks; pass the model as it was before")
    if forward is not None:
        _arguments.function("forward", forward)
    if _arguments.whole("base", base) < 1:
        raise ValueError(f"base ({base}) must be at least 1: the clips of a sub-batch")
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    norms: list[Any] = [module for module in inner.modules() if _is_trained(module, inner.training)]
    if not norms:
        yield 0
        return
    kept = [
        (norm._buffers, name, buffer.clone())
        for norm in norms
        for name, buffer in norm._buffers.items()
        if buffer is not None
    ]
    try:
        try:
            clips, pools = _pooled(inner, norms, loader, base, forward or _caller(inner))
        finally:
            _restore(kept)
        for norm, pool in zip(norms, pools, strict=True):
            pool.write(norm)
        yield clips
    finally:
        _restore(kept)


class _Pool:
    """Mean and sum of squared differences, per channel, of the values that a batch norm has seen."""

    def __init__(self, norm: _BatchNorm) -> None:
        mean = norm.running_mean
        assert mean is not None
        exact = torch.promote_types(mean.dtype, torch.float32)
        self.state = torch.zeros(1 + 2 * norm.num_features, dtype=exact, device=mean.device)

    def see(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add the input of a batch norm; used as its forward pre-hook."""
        x = (args[0] if args else kwargs["input"]).detach()
        if x.numel():
            var, mean = torch.var_mean(x.to(self.state.dtype), [0, *range(2, x.dim())], correction=0)
            count = x.numel() // x.shape[1]
            self.add(torch.cat([mean.new_full((1,), count), mean, var * count]))

    def add(self, other: Tensor) -> None:
        """Add the values of another pool's state."""
        n, mean, squares = _parts(self.state)
        m, its_mean, its_squares = _parts(other)
        whole = (n + m).clamp(min=1)
        apart = its_mean - mean
        squares += its_squares + apart**2 * (n * m / whole)
        mean += apart * (m / whole)
        n += m

    def write(self, norm: _BatchNorm) -> None:
        """Write the running statistics, with torch's unbiased variance; a norm that saw nothing keeps its own."""
        n, mean, squares = _parts(self.state)
        if n > 0 and norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(squares / (n - 1).clamp(min=1))


def _parts(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n, mean, squares = state.split([1, len(state) // 2, len(state) // 2])
    return n, mean, squares


def _is_trained(module: nn.Module, training: bool) -> bool:
    """Return whether a module is a batch norm with statistics that is not frozen (in evaluation mode in training)."""
    tracks = isinstance(module, _BatchNorm) and module.track_running_stats and module.running_mean is not None
    return tracks and (module.training or not training)


def _restore(kept: list[tuple[dict[str, Tensor], str, Tensor]]) -> None:
    """Copy the training's statistics back into the buffers, which stay the same tensors unless the model was moved."""
    for buffers, name, was in kept:
        buffers[name].copy_(was)


def _caller(model: nn.Module) -> Callable[[Any], object]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def forward(batch: Any) -> object:
        clips = batch[0] if isinstance(batch, (tuple, list)) else batch
        return model(clips.to(device))

    return forward


def _pooled(
    model: nn.Module,
    norms: list[Any],
    loader: Iterable[tuple[Step, Any]],
    base: int,
    forward: Callable[[Any], object],
) -> tuple[int, list[_Pool]]:
    """Run the model over the loader's clips, in all processes; return their number and a pool for each norm."""
    pools = [_Pool(norm) for norm in norms]
    clips = 0
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        devices = {t.device for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"}
        stack.enter_context(torch.random.fork_rng(sorted(device.index for device in devices)))
        stack.enter_context(as_written(model))  # compiled code does not call new hooks
        stack.enter_context(evaluating(model))
        for norm, pool in zip(norms, pools, strict=True):
            norm.training = True
            handle = norm.register_forward_pre_hook(pool.see, with_kwargs=True)
            stack.callback(handle.remove)
        for step, batch in _pairs(loader):
            if step.shape != step.baseline:
                raise ValueError(
                    f"loader gives clips of step {step.index}, {step.shape}, and statistics are of the full shape, "
                    f"{step.baseline}; pass Loader(dataset, schedule.without_multigrid()[:n])"
                )
            with splitting(norms_of(model), step, base, clips=step.shape.b):
                forward(batch)
            clips += step.shape.b
    if not clips:
        raise ValueError("loader has no batches; take some steps of schedule.without_multigrid()")
    _, processes = rank_and_processes() or (0, 1)
    if processes > 1:
        _share(pools)
    return clips * processes, pools


def _pairs(loader: Any) -> Iterator[tuple[Step, Any]]:
    """Give the loader's (step, batch); what gives anything else is refused."""
    if not isinstance(loader, Iterable):
        raise TypeError(f"loader ({reprlib.repr(loader)}) must be Loader(dataset, schedule.without_multigrid()[:n])")
    for pair in loader:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], Step):
            raise TypeError(
                f"loader gives {reprlib.repr(pair)}, which is not (step, batch); pass "
                "Loader(dataset, schedule.without_multigrid()[:n])"
            )
        yield pair[0], pair[1]


def _share(pools: list[_Pool]) -> None:
    """Combine the pools of all processes, in the same order in each process."""
    mine = torch.cat([pool.state for pool in pools])
    every = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, mine)
    for pool in pools:
        pool.state.zero_()
    sizes = [len(pool.state) for pool in pools]
    for states in every:
        for pool, state in zip(pools, states.split(sizes), strict=True):
            pool.add(state)
