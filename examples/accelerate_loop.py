"""Hugging Face Accelerate: accelerate launch examples/accelerate_loop.py VIDEOS."""

import sys

import torch
import torch.distributed.nn.functional  # imported with a group its defaults hold it for good: see docs/torch.md
from accelerate import Accelerator
from small_cnn import SmallCNN

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, VideoDataset, evaluate, sub_batches


def main() -> None:
    accelerator = Accelerator()
    dataset = VideoDataset.from_folder(sys.argv[1], mean=0.45, std=0.225, stride=2)
    schedule = Schedule(Shape(4, 8, 56, 56), samples=len(dataset), epochs=30, processes=accelerator.num_processes)
    loader = Loader(dataset, schedule, seed=0, num_workers=2)

    model = SubBatchNorm.convert(SmallCNN(len(dataset.classes)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    lr = ScaledLR(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.baseline_iterations), schedule)
    model, optimizer = accelerator.prepare(model, optimizer)  # the loader and lr know their rank

    for step, (clips, labels) in loader:
        with sub_batches(model, step):
            logits = model(clips.to(accelerator.device))
            accelerator.backward(torch.nn.functional.cross_entropy(logits, labels.to(accelerator.device)))
        optimizer.step()
        optimizer.zero_grad()
        lr.step()

    found = evaluate(model, dataset.evaluation(schedule.shape, clips=2))
    accelerator.print(f"accuracy {found.accuracy():.3f}")
    model, optimizer = accelerator.free_memory(model, optimizer)  # the wrapper is gone before the group
    accelerator.end_training()


if __name__ == "__main__":
    main()
