"""Forward and backward passes over random mini-batches: their time, their memory, and their feature maps."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from pymultigrid import Shape, Step
from pymultigrid._preflight import Extents
from pymultigrid.torch._batch_norm import norms_of, splitting
from pymultigrid.torch._layer_errors import layer_errors, out_of_memory
from pymultigrid.torch._processes import rank_and_processes

Loss = Callable[[nn.Module, Tensor], Tensor]
At = Callable[[Step], AbstractContextManager[object]]


class Passes:
    """Forward and backward passes of a model, on one process or on several in lockstep."""

    def __init__(
        self, model: nn.Module, loss: Loss, channels: int, dtype: torch.dtype, at: At | None, processes: int
    ) -> None:
        self.model, self.loss, self.channels, self.dtype = model, loss, channels, dtype
        self.at: At = at or (lambda step: nullcontext())
        parameter = next(model.parameters(), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device
        if self.device.type not in ("cpu", "cuda"):
            raise ValueError(f"model is on {self.device}, where memory can't be measured; move it to cpu or cuda")
        self.on_gpu = self.device.type == "cuda"
        self.device_name = torch.cuda.get_device_name(self.device) if self.on_gpu else "the CPU"
        running = rank_and_processes() if processes > 1 else None
        self.several = running is not None
        self.is_first = running is None or running[0] == 0
        self.norms = norms_of(model)

    def memory(self, shape: Shape, steps: list[Step]) -> tuple[float, float, int]:
        """Warm up; return the bytes held before a pass, the bytes it takes at its peak, and how many clips fitted."""

        def attempt(clips: int) -> tuple[float, float]:
            for step in steps:
                self._backward(shape, self._batch(shape, clips), step)
            return (self._allocated if self.on_gpu else self._alive)(shape, clips, steps[0])

        (held, size), clips = self._fitting(attempt, shape.b)
        return held, size * shape.b / max(1, clips), clips

    def seconds(self, shape: Shape, step: Step, clips: int) -> tuple[float, int]:
        """Return the seconds of a pass, and how many of `clips` clips fitted."""

        def attempt(clips: int) -> tuple[float, float]:
            batch = self._batch(shape, clips)
            self._wait()
            start = time.perf_counter()
            self._backward(shape, batch, step)
            self._wait()
            return time.perf_counter() - start, 0.0

        (seconds, _), clips = self._fitting(attempt, clips)
        return seconds * shape.b / max(1, clips), clips

    def feature_maps(self, shape: Shape, step: Step) -> dict[str, tuple[Extents, Extents]]:
        """Return the extents of each convolution's smallest input and output, from a forward pass of two clips.

        Convolutions inside an attention layer make queries and keys, not feature maps; they are left out.
        """
        smallest: dict[str, tuple[Extents, Extents]] = {}

        def watch(name: str) -> Callable[[nn.Module, Any, Any, Tensor], None]:
            def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
                (given,) = tensors((args, kwargs))
                maps = tuple(given.shape[2:]), tuple(output.shape[2:])
                smallest[name] = min(smallest.get(name, maps), maps, key=lambda each: math.prod(each[1]))

            return hook

        inside = {id(m) for a in self.model.modules() if "attention" in type(a).__name__.lower() for m in a.modules()}
        hooks = [
            module.register_forward_hook(watch(name), with_kwargs=True)
            for name, module in self.model.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Conv3d)) and id(module) not in inside
        ]
        try:
            with torch.no_grad(), as_written(self.model), self._naming(shape), self.at(step):
                self.loss(self.model, self._batch(shape, 2))
        finally:
            for hook in hooks:
                hook.remove()
        return smallest

    def _fitting(self, attempt: Callable[[int], tuple[float, float]], clips: int) -> tuple[tuple[float, ...], int]:
        """Attempt a pass, halving the number of clips until they fit; return the slowest process's result."""
        while clips:
            found = self._attempt(attempt, clips)
            (failed,) = self.most(found is None)
            if not failed and found is not None:
                return self.most(*found), clips
            clips //= 2
        return (math.nan, math.nan), 0

    def _attempt(self, attempt: Callable[[int], tuple[float, float]], clips: int) -> tuple[float, float] | None:
        # Gradients are not exchanged: a process that is out of memory would leave the others waiting.
        alone: Any = getattr(self.model, "no_sync", nullcontext)
        try:
            with alone():
                return attempt(clips)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if self.on_gpu:
            torch.cuda.empty_cache()
        return None

    def most(self, *values: float) -> tuple[float, ...]:
        """Return the largest of each number over the processes."""
        if not self.several:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return tuple(shared.tolist())

    def _allocated(self, shape: Shape, clips: int, step: Step) -> tuple[int, int]:
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self._backward(shape, self._batch(shape, clips), step)
        return before, torch.cuda.max_memory_allocated(self.device) - before

    def _alive(self, shape: Shape, clips: int, step: Step) -> tuple[int, int]:
        parameters = list(self.model.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        before = sum(tensor.nbytes for tensor in (*parameters, *gradients, *self.model.buffers()))
        with as_written(self.model), Alive() as made:
            self._backward(shape, self._batch(shape, clips), step)
        return before, made.peak

    def _backward(self, shape: Shape, batch: Tensor, step: Step) -> None:
        # Ranks that share statistics would wait for one that is out of memory; with this base none share.
        base = min(8, step.base.b)
        with self._naming(shape), self.at(step), splitting(self.norms, step, base, clips=1):
            self.loss(self.model, batch).backward()

    def _batch(self, shape: Shape, clips: int) -> Tensor:
        size = (clips, self.channels, shape.t, shape.h, shape.w)
        if self.dtype.is_floating_point:
            return torch.rand(size, dtype=self.dtype, device=self.device)
        return torch.randint(256, size, dtype=self.dtype, device=self.device)

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    @contextmanager
    def _naming(self, shape: Shape) -> Iterator[None]:
        """Make an error name the mini-batch and the layer; out-of-memory errors keep their text."""
        try:
            with layer_errors(self.model):
                yield
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(f"the mini-batch {shape} failed: {error}") from error


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors made inside: `now` are alive, `peak` were alive at once at most."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing compiled runs inside, and the guard would import torch's compiler, which takes seconds

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._count((args, kwargs), of_ours=False)  # a tensor that an operation changes in place and returns is not new
        out = func(*args, **(kwargs or {}))
        self._count(out, of_ours=True)
        return out

    def _count(self, values: Any, *, of_ours: bool) -> None:
        for tensor in tensors(values):
            storage = tensor.untyped_storage()
            if id(storage) not in self._known:
                size = storage.nbytes() if of_ours else 0
                self._known.add(id(storage))
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, id(storage), size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def tensors(values: Any) -> list[Tensor]:
    """Return the tensors in a model's output: nested tuples, lists and dicts."""
    return [leaf for leaf in tree_flatten(values)[0] if isinstance(leaf, Tensor)]


def is_compiled(model: nn.Module) -> bool:
    """Return whether torch.compile made the model or a part of it."""
    return any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())


def as_written(model: nn.Module) -> AbstractContextManager[Any]:
    """Run a compiled model uncompiled, so that its layers and tensors can be observed."""
    return torch.compiler.set_stance("force_eager") if is_compiled(model) else nullcontext()
