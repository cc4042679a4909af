"""A loop that may be killed at any moment: python examples/resume.py VIDEOS. Started again, it goes on."""

import sys
from pathlib import Path

import torch
from pymultigrid.torch import BatchSampler, ScaledLR, SubBatchNorm3d, VideoDataset, sub_batches
from small_cnn import SmallCNN

from pymultigrid import Schedule, Shape


def main() -> None:
    dataset = VideoDataset.from_folder(sys.argv[1], mean=0.45, std=0.225, stride=2)
    schedule = Schedule(Shape(4, 8, 56, 56), samples=len(dataset), epochs=30)
    model = SubBatchNorm3d.convert(SmallCNN(len(dataset.classes)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=schedule.baseline_iterations)
    parts = {"model": model, "optimizer": optimizer, "lr": ScaledLR(cosine, schedule)}
    if Path("checkpoint.pt").exists():
        saved = torch.load("checkpoint.pt")
        schedule = Schedule.from_dict(saved["rest"])
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=BatchSampler(schedule, seed=0), num_workers=2)
    for step, (clips, labels) in zip(schedule, loader, strict=True):
        torch.manual_seed(step.index)  # dropout draws what is this step's, whatever came before
        with sub_batches(model, step):
            torch.nn.functional.cross_entropy(model(clips), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        parts["lr"].step()
        if step.index % 5 == 4:  # a checkpoint is whole or not there
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save(state | {"rest": schedule.whole[step.index + 1 :].to_dict()}, "checkpoint.new")
            Path("checkpoint.new").replace("checkpoint.pt")


if __name__ == "__main__":
    main()
