"""What multigrid adds to a step of a PyTorch loop, and sub-mini-batch BN against torch's batch norm.

The targets are 1 % of a step of 20 ms for sampler, learning rate, batch norm and position embeddings together, and 1.15
times batch norm on the same batch. Every ratio is the median of interleaved pairs on one core.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import nn

from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler, PositionEmbeddings, ScaledLR, SubBatchNorm3d, sub_batches

STEP = 20e-3
PAIRS = 15
# Clips, channels, frames, rows and columns of a feature map, and the sub-batches: of a SlowFast-R50's coarse stages,
# down to maps so small that the time is that of the calls.
MAPS = (
    (64, 64, 2, 40, 40, 8),
    (32, 64, 4, 40, 40, 4),
    (16, 64, 4, 56, 56, 2),
    (64, 256, 2, 20, 20, 8),
    (64, 512, 2, 5, 5, 8),
    (64, 24, 4, 7, 7, 8),
    (16, 16, 2, 4, 4, 2),
)


def seconds(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def norm_ratio(b: int, c: int, t: int, h: int, w: int, splits: int, layout: torch.memory_format) -> tuple[float, float]:
    """Return the seconds of torch's batch norm, forward and backward, and ours over it."""
    x = torch.randn(b, c, t, h, w).contiguous(memory_format=layout).requires_grad_()
    grad = torch.randn_like(x)
    plain, ours = nn.BatchNorm3d(c), SubBatchNorm3d(c)
    ours.splits = splits

    def both(norm: nn.Module) -> None:
        x.grad = None
        norm(x).backward(grad)

    calls = max(1, min(200, 2_000_000 // x.numel()))
    pairs = [(seconds(lambda: both(plain), calls), seconds(lambda: both(ours), calls)) for _ in range(PAIRS)]
    return statistics.median(p for p, _ in pairs), statistics.median(o / p for p, o in pairs)


def norms() -> None:
    print("sub-mini-batch BN over batch norm          contiguous            channels last")
    for b, c, t, h, w, splits in MAPS:
        row = f"{b}x{c}x{t}x{h}x{w} in {splits}".ljust(32)
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            plain, ratio = norm_ratio(b, c, t, h, w, splits, layout)
            row += f"{plain * 1e3:10.2f} ms {ratio:6.2f}x  "
        print(row)


def convolutional() -> nn.Module:
    """53 batch norms in blocks of three, as in a ResNet-50; what they compute does not matter here."""
    units = [nn.Sequential(nn.Conv3d(1, 1, 1), nn.BatchNorm3d(1), nn.ReLU()) for _ in range(53)]
    return SubBatchNorm3d.convert(nn.Sequential(*(nn.Sequential(*units[i : i + 3]) for i in range(0, 53, 3))))


class Tokens(nn.Module):
    """The table of a ViT-B over 16 x 224 x 224 in a model of as many modules."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 8 * 14 * 14, 768))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 1, 8) for _ in range(12))


def rate(parameters: Iterable[nn.Parameter], schedule: Schedule) -> ScaledLR:
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    optimizer.step()
    return ScaledLR(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.baseline_iterations), schedule)


def per_step(schedule: Schedule) -> dict[str, float]:
    """Return the seconds of each part, the median of its calls over coarse steps."""
    model, tokens = convolutional(), Tokens()
    # One goes on with every call; the other stands at the step that sub_batches compares it with.
    lr, standing = (rate(parameters, schedule) for parameters in (tokens.parameters(), model.parameters()))
    assert standing.current == schedule[0]
    batches = iter(BatchSampler(schedule, seed=0))
    embeddings = PositionEmbeddings(tokens, schedule.shape, patch=(2, 16, 16))
    step = schedule[0]

    def normed() -> None:
        with sub_batches(model, step):
            pass

    def fitted() -> None:
        with embeddings.at(step):
            pass

    parts: dict[str, Callable[[], object]] = {
        f"BatchSampler, {step.shape.b} clips": lambda: next(batches),
        "ScaledLR.step, cosine": lr.step,
        "sub_batches, 53 batch norms, and its ScaledLR": normed,
        "PositionEmbeddings.at, ViT-B": fitted,
    }
    return {name: statistics.median(seconds(run, 1) for _ in range(300)) for name, run in parts.items()}


def main() -> None:
    torch.set_num_threads(1)
    schedule = Schedule(Shape(8, 16, 224, 224), samples=240_436, epochs=239, multiple_of=16)
    print(f"added to a step of {STEP * 1e3:.0f} ms ({schedule[0].shape})")
    parts = per_step(schedule)
    for name, took in parts.items():
        print(f"{name:46}{took * 1e6:10.1f} us {took / STEP:7.2%}")
    print(f"{'together':46}{sum(parts.values()) * 1e6:10.1f} us {sum(parts.values()) / STEP:7.2%}")
    print()
    norms()


if __name__ == "__main__":
    main()
