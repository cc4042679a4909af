"""What an evaluation in the middle of the demo's training says: ``python examples/demo/curves.py``.

One long+short training. Where a stage ends, the test's accuracy with the running statistics of the training, and with
`precise_bn` of more and more training clips. docs/curves.md shows what it printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from network import Network
from torch import Tensor
from torch.utils.data import DataLoader
from training import BASE_LR, FULL, loading, loss_of, plan, progress_bar, read, relative_lr
from videos import DIGITS, MOTIONS, write_split

from pymultigrid import Schedule
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, VideoDataset, precise_bn, sub_batches

CLIPS = (16, 32, 64, 128, 512)


def accuracy(model: Network, views: Tensor, labels: list[Tensor]) -> float:
    """Return the share of videos whose digit and motion are right, in percent."""
    model.eval()
    with torch.no_grad():
        logits = [torch.cat(part) for part in zip(*(model(some) for some in views.split(32)), strict=True)]
    model.train()
    right = [out.argmax(1) == label for out, label in zip(logits, labels, strict=True)]
    return 100 * (right[0] & right[1]).float().mean().item()


def look(model: Network, dataset: VideoDataset, schedule: Schedule, views: Tensor, labels: list[Tensor]) -> list[float]:
    """Return the accuracies: with the training's statistics, and with those of so many clips; and the seconds of 64."""
    found, seconds = [accuracy(model, views, labels)], 0.0
    for clips in CLIPS:
        full = Loader(dataset, schedule.without_multigrid()[: clips // FULL.b], seed=1, **loading())
        start = perf_counter()
        with precise_bn(model, full):
            seconds = perf_counter() - start if clips == 64 else seconds
            found.append(accuracy(model, views, labels))
    return [*found, seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what evaluations in the middle of a training say.")
    parser.add_argument("--videos", type=int, default=1200, help="training videos; a third as many for the test")
    parser.add_argument("--epochs", type=float, default=8.0, help="of the baseline")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    with TemporaryDirectory() as folder:
        dataset = read(write_split(Path(folder), "train", options.videos, options.seed))
        test = read(write_split(Path(folder), "test", options.videos // 3, options.seed))
        views, labels = next(iter(DataLoader(test.evaluation(FULL), batch_size=len(test))))
        schedule = plan("long+short", options.videos, options.epochs)
        model = SubBatchNorm.convert(Network(DIGITS, MOTIONS))
        rate = BASE_LR["long+short"]
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
        iterations = schedule.baseline_iterations
        policy = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: relative_lr((i + 1) / (iterations + 1)))
        lr = ScaledLR(policy, schedule)
        lines = []
        for step, (clips, answers) in progress_bar(Loader(dataset, schedule, seed=options.seed, **loading())):
            with sub_batches(model, step):
                optimizer.zero_grad()
                loss_of(model, clips, answers).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lr.step()
            stage = schedule.stages[step.stage]
            if step.index + 1 == stage.stop:
                *found, seconds = look(model, dataset, schedule, views.flatten(0, 1), labels)
                row = " | ".join(f"{x:.0f}" for x in found)
                lines.append(f"| {step.stage} | {stage.base} | {stage.lr_scale:g} | {row} | {seconds:.1f} |")
    print(
        "| stage | its shape | lr x | training's statistics |", " | ".join(f"{n} clips" for n in CLIPS), "| s for 64 |"
    )
    print("|---|---|---|---|", "|".join("---" for _ in CLIPS), "|---|", sep="")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
