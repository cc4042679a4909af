"""Runs every shape of a schedule before training: does the network accept it, and in what time and memory."""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from pymultigrid import Report, Schedule, Shape, ShapeCost, Step, _arguments, mini_batch
from pymultigrid._preflight import Extents, feature_maps, iterations, planned_steps
from pymultigrid._progress import bar
from pymultigrid.torch._batch_norm import check_converted, norms_of
from pymultigrid.torch._kinds import check_model
from pymultigrid.torch._loader import check_fits
from pymultigrid.torch._passes import At, Loss, Passes, is_compiled, tensors
from pymultigrid.torch._position_embeddings import fixed_positions
from pymultigrid.torch._resample import torch_dtype
from pymultigrid.torch._snapshot import as_it_was

_READ = 4  # clips to read when timing a data set

Patch = tuple[int, int, int]
_Memory = tuple[float, float, int]


def preflight(
    model: nn.Module,
    schedule: Schedule,
    loss: Loss | None = None,
    *,
    channels: int = 3,
    dtype: torch.dtype = torch.float32,
    at: At | None = None,
    repeats: int = 3,
    dataset: Any = None,
    progress: bool = True,
) -> Report:
    """Run forward and backward at every shape of a schedule before training, and report time, memory and what is wrong.

    The mini-batches are random clips on the model's device, the largest first. The model is restored bit for bit, even
    if it changes itself in its forward: parameters, gradients, buffers (running statistics), attributes and hooks of
    its modules, and the random state of torch, NumPy and Python. Hooks that step an optimizer inside backward are
    disabled meanwhile. Afterwards a compiled model is compiled for each shape, and cuDNN has seen the shapes.

    >>> import torch
    >>> from pymultigrid import Cycles, Schedule, Shape
    >>> from pymultigrid.torch import SubBatchNorm, preflight
    >>> model = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3, padding=1), torch.nn.BatchNorm3d(4))
    >>> model = SubBatchNorm.convert(model)
    >>> schedule = Schedule(Shape(2, 4, 16, 16), samples=100, epochs=10, plan=Cycles(short=None))
    >>> report = preflight(model, schedule, repeats=1, progress=False)
    >>> row = report[schedule.shape]
    >>> row.fits, row.feature_map, 0 < row.seconds < 10
    (2, (4, 16, 16), True)
    >>> schedule = Schedule(Shape(2, 4, 16, 16), samples=100, epochs=10, plan=Cycles(short=None), costs=report.costs)

    Parameters
    ----------
    model
        On the device it will train on; may be compiled or wrapped in DDP. A model in training mode is run as it is
        (layers in evaluation mode stay so); otherwise it is put into training mode meanwhile.
    schedule
        All shapes of the whole schedule are run, also for a slice.
    loss
        ``loss(model, clips)`` returns the scalar to call ``backward()`` on, for clips of B x channels x T x H x W and
        any B; autocast, labels and other inputs of the model belong there. None: the mean of squares of the model's
        outputs.
    channels, dtype
        Channels and dtype of the clips; ``torch.uint8`` gives 0..255.
    at
        ``at(step)`` is the context around each pass: `PositionEmbeddings.at` for a video transformer.
    repeats
        Number of timed passes; their median counts.
    dataset
        If given, some of its clips are read for each shape, as by a DataLoader, to report how many workers keep up.
    progress
        Show a progress bar if tqdm is installed.

    Warns
    -----
    RuntimeWarning
        A shape does not fit into memory, is too coarse for the network, is not whole patches, or will not be compiled;
        the model keeps positions of the full shape's patches and `at` was not given; or batch norms are not converted.

    Raises
    ------
    TypeError
        `schedule` is not a Schedule, `dtype` not a torch dtype, or `dataset` a stream.
    ValueError
        `repeats` is below 1, or the data set's length is not the schedule's ``samples``; or the model can't be
        restored, because it has lazy layers or optimizers that torch has put into its backward.
    RuntimeError
        The model failed at a shape, and not for lack of memory.

    Notes
    -----
    Memory is what the mini-batch, its forward and its backward pass hold at their peak, above the parameters, buffers
    and gradients that are held between steps. On a GPU it is what PyTorch's allocator counts
    (``torch.cuda.max_memory_allocated``). On a CPU it is the bytes of all tensors that are alive at once, run without
    compilation; temporary memory inside a kernel is not counted. The optimizer's state (Adam's is twice the parameters)
    and time are not included.

    With several processes all must call it; the slowest time and the largest memory count. DDP's exchange of gradients
    and the statistics that ranks share are left out, so that no process waits for one that is out of memory.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule ({schedule!r}) must be a pymultigrid.Schedule; write Schedule(shape, ...)")
    check_model(model)
    _arguments.flag("progress", progress)
    for name, function in (("loss", loss), ("at", at)):
        if function is not None:
            _arguments.function(name, function)
    _arguments.count("channels", channels)
    if _arguments.whole("repeats", repeats) < 1:
        raise ValueError(f"repeats ({repeats}) must be at least 1: the passes that are timed")
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            f"dataset ({type(dataset).__name__}) is a stream, which can't be asked for a clip; pass a VideoDataset of "
            "a few such files, or leave it out"
        )
    if dataset is not None:
        if not hasattr(dataset, "__getitem__") or isinstance(dataset, str):
            raise TypeError(
                f"dataset ({dataset!r}) must be a data set that is indexed by samples, such as a VideoDataset"
            )
        check_fits(dataset, schedule)
    whole = schedule.whole
    steps = planned_steps(whole)
    passes = Passes(model, loss or _mean_of_squares, channels, torch_dtype(dtype), at, whole.processes)
    reads = [] if dataset is None else [shape for shape in steps if iterations(whole, shape)]
    with as_it_was(model, passes.device):
        memory, times, maps, patch = _measured(passes, steps, repeats, progress and passes.is_first)
        read = {shape: passes.most(_read_seconds(dataset, whole, steps[shape][0]))[0] for shape in reads}
    rows = []
    for shape, (_, size, _) in memory.items():
        seconds, fits = times[shape]
        rows.append(ShapeCost(shape, iterations(whole, shape), seconds, size, fits, maps[shape], read.get(shape)))
    held = int(max((held for held, _, clips in memory.values() if clips), default=0))
    versions = sum(map(len, steps.values())) if passes.norms else len(steps)
    notes = (*_not_compiled(model, versions), *_not_fitted(model, whole.shape, list(steps), at), *_not_converted(model))
    report = Report(whole, passes.device_name, held, tuple(rows), notes, patch)
    for text in report.warnings:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return report


def _measured(
    passes: Passes, steps: dict[Shape, list[Step]], repeats: int, show: bool
) -> tuple[dict[Shape, _Memory], dict[Shape, tuple[float, int]], dict[Shape, Extents | None], Patch | None]:
    """Return each shape's `Passes.memory`, its median seconds and fitting clips, its feature map; and the patch."""
    layers = {shape: passes.feature_maps(shape, steps[shape][0]) for shape in steps}
    shapes = bar(list(steps), show, desc="preflight: memory", unit="shape")
    memory = {shape: passes.memory(shape, steps[shape]) for shape in shapes}
    fits = {shape: clips for shape, (_, _, clips) in memory.items()}
    seconds: dict[Shape, list[float]] = {shape: [] for shape in steps}
    for shape in bar(list(steps) * repeats, show, desc="preflight: time", unit="shape"):
        took, fits[shape] = passes.seconds(shape, steps[shape][0], fits[shape])
        seconds[shape].append(took)
    times = {shape: (statistics.median(seconds[shape]), fits[shape]) for shape in steps}
    return memory, times, feature_maps(layers), _patch(passes.model, layers)


def _read_seconds(dataset: Any, schedule: Schedule, step: Step) -> float:
    """Return how long one process takes to read a mini-batch, from a few of its clips that the system has cached."""
    samples = mini_batch(schedule, step, seed=0, rank=0)[:_READ]
    read = getattr(dataset, "__getitems__", lambda batch: [dataset[sample] for sample in batch])
    read(samples)
    start = time.perf_counter()
    read(samples)
    return (time.perf_counter() - start) * step.shape.b / len(samples)


def _patch(model: nn.Module, found: dict[Shape, dict[str, tuple[Extents, Extents]]]) -> Patch | None:
    """Return the patch of a network whose only convolutions cut the clips into patches without overlap."""
    patches = set()
    for shape, layers in found.items():
        for name, (given, _) in layers.items():
            conv: Any = model.get_submodule(name)
            if given != tuple(shape)[-len(given) :] or conv.kernel_size != conv.stride or max(conv.stride) == 1:
                return None
            frames, rows, columns = (1, *conv.stride)[-3:]
            patches.add((frames, rows, columns))
    return patches.pop() if len(patches) == 1 else None


def _not_fitted(model: nn.Module, full: Shape, shapes: list[Shape], at: At | None) -> tuple[str, ...]:
    """Return a note about positions of the full shape that are not fitted to the steps."""
    if at is not None or all(tuple(shape)[1:] == tuple(full)[1:] for shape in shapes):
        return ()
    names = fixed_positions(model, full)
    if not names:
        return ()
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"the model keeps positions of the full shape's patches ({', '.join(names[:3])}{more}), and at= was not given: "
        "at other shapes a patch may take another's place, without an error. Pass at=PositionEmbeddings(model, "
        "schedule.shape, patch=...).at, here and around each step; a model that fits them to its input itself needs "
        "nothing",
    )


def _not_converted(model: nn.Module) -> tuple[str, ...]:
    """Return what `sub_batches` will say about the model's batch norms."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_converted(model, norms_of(model))
    except ValueError as error:
        return (str(error),)
    return tuple(str(warning.message) for warning in caught)


def _not_compiled(model: nn.Module, versions: int) -> tuple[str, ...]:
    """Return a note if torch.compile gives up before the last shape."""
    if not is_compiled(model):
        return ()
    config = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    limit = getattr(config, name)
    if limit > versions:
        return ()
    return (
        f"torch.compile keeps {limit} versions of a function, and training needs up to {versions}, evaluation one "
        "more; later ones silently run uncompiled: "
        f"set torch._dynamo.config.{name} = {2 * versions} before the first pass",
    )


def _mean_of_squares(model: nn.Module, clips: Tensor) -> Tensor:
    outputs = [t for t in tensors(model(clips)) if t.is_floating_point()]
    if not outputs:
        raise TypeError(f"model ({type(model).__name__}) returns no tensor of floats; pass loss=")
    return torch.stack([t.float().square().mean() for t in outputs]).sum()
