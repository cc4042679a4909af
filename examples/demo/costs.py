"""What the demo's mini-batches cost, and where the saving goes: ``python examples/demo/costs.py``.

First the preflight of its schedule, then real steps of the first long cycle: forward and backward, the rest of the
step, and reading the clips in the same process. docs/preflight.md shows what it printed.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import torch
from network import Network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from training import plan, read
from videos import DIGITS, MOTIONS, write_split

from pymultigrid import Schedule
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, VideoDataset, preflight, sub_batches


def loss(model: nn.Module, clips: Tensor) -> Tensor:
    label = torch.zeros(len(clips), dtype=torch.long)
    return sum((cross_entropy(logits, label) for logits in model(clips)), torch.zeros(()))


def seconds_per_clip(dataset: VideoDataset, steps: Schedule) -> tuple[float, float, float]:
    """Train on the steps, and return the CPU seconds a clip took: forward and backward, with the rest, with reading."""
    model = SubBatchNorm.convert(Network(DIGITS, MOTIONS))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    lr = ScaledLR(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0), steps)
    passes = rest = reading = 0.0
    batches = iter(Loader(dataset, steps, seed=0))
    for _ in steps:
        times = [process_time()]
        step, (clips, _) = next(batches)
        times.append(process_time())
        with sub_batches(model, step):
            optimizer.zero_grad()
            loss(model, clips).backward()
        times.append(process_time())
        optimizer.step()
        lr.step()
        times.append(process_time())
        reading += times[1] - times[0]
        passes += times[2] - times[1]
        rest += times[3] - times[2]
    return passes / steps.clips, (passes + rest) / steps.clips, (passes + rest + reading) / steps.clips


def compare(dataset: VideoDataset, schedule: Schedule, baseline: Schedule, rounds: int) -> None:
    """Print how many times cheaper than the baseline's the clips of the first long cycle are."""
    # Whole short cycles, and as many steps of the baseline.
    parts = [baseline[:6], *(schedule[stage.stop - 6 : stage.stop] for stage in schedule.stages[:4])]
    found = [[seconds_per_clip(dataset, part) for part in parts] for _ in range(rounds)]
    medians = [[statistics.median(times) for times in zip(*part, strict=True)] for part in zip(*found, strict=True)]
    full = math.prod(tuple(schedule.shape)[1:])
    print("stage  sampling points  forward, backward  with the optimizer  with reading in the same process")
    for number, (part, times) in enumerate(zip(parts[1:], medians[1:], strict=True)):
        nominal = part.clips * full / sum(math.prod(step.shape) for step in part)
        savings = [base / time for base, time in zip(medians[0], times, strict=True)]
        print(f"{number:5}  {nominal:14.2f}x  {savings[0]:16.2f}x  {savings[1]:17.2f}x  {savings[2]:31.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what the demo's mini-batches cost.")
    parser.add_argument("--videos", type=int, default=64, help="files that are written")
    parser.add_argument("--rounds", type=int, default=5, help="of measurement, over all shapes in turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        dataset = read(write_split(Path(folder), "train", options.videos, seed=0))
        epochs = 2400 * 8 / options.videos  # 2400 iterations of the baseline
        schedule = plan("long+short", options.videos, epochs)
        model = SubBatchNorm.convert(Network(DIGITS, MOTIONS))
        print(preflight(model, schedule, loss, dataset=dataset, repeats=options.rounds))
        print()
        compare(dataset, schedule, plan("baseline", options.videos, epochs), options.rounds)


if __name__ == "__main__":
    main()
