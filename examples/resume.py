"""A loop that may be killed at any moment: python examples/resume.py VIDEOS. Started again, it goes on."""

import sys
from pathlib import Path

import torch
from small_cnn import SmallCNN

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, VideoDataset, sub_batches


def main() -> None:
    dataset = VideoDataset.from_folder(sys.argv[1], mean=0.45, std=0.225, stride=2)
    schedule = Schedule(Shape(4, 8, 56, 56), samples=len(dataset), epochs=30)
    model = SubBatchNorm.convert(SmallCNN(len(dataset.classes)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=schedule.baseline_iterations)
    lr = ScaledLR(cosine, schedule)
    loader = Loader(dataset, schedule, seed=0, num_workers=2)
    parts = {"model": model, "optimizer": optimizer, "lr": lr, "loader": loader}
    if Path("checkpoint.pt").exists():
        for name, state in torch.load("checkpoint.pt").items():
            parts[name].load_state_dict(state)
    for step, (clips, labels) in loader:
        torch.manual_seed(step.index)  # dropout draws what is this step's, whatever came before
        with sub_batches(model, step):
            torch.nn.functional.cross_entropy(model(clips), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        lr.step()
        if step.index % 5 == 4:  # a checkpoint is whole or not there
            torch.save({name: part.state_dict() for name, part in parts.items()}, "checkpoint.new")
            Path("checkpoint.new").replace("checkpoint.pt")


if __name__ == "__main__":
    main()
