"""A plain PyTorch loop: python examples/plain_loop.py VIDEOS, a folder with a sub-folder for each class."""

import sys

import torch
from small_cnn import SmallCNN

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, VideoDataset, evaluate, sub_batches


def main() -> None:
    dataset = VideoDataset.from_folder(sys.argv[1], mean=0.45, std=0.225, stride=2)
    # The training you have today: its mini-batch (clips, frames, height, width) and its length.
    schedule = Schedule(Shape(4, 8, 56, 56), samples=len(dataset), epochs=30)
    loader = Loader(dataset, schedule, seed=0, num_workers=2)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = SubBatchNorm.convert(SmallCNN(len(dataset.classes))).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=schedule.baseline_iterations)
    lr = ScaledLR(cosine, schedule)

    for step, (clips, labels) in loader:  # the whole training: there is no loop over epochs around it
        with sub_batches(model, step):
            loss = torch.nn.functional.cross_entropy(model(clips.to(device)), labels.to(device))
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step.index} {step.shape} lr {lr.get_last_lr()[0]:.4f} loss {loss:.4f}")
        lr.step()

    found = evaluate(model, dataset.evaluation(schedule.shape, clips=2), num_workers=2)  # in yours, on other videos
    print(f"accuracy {found.accuracy():.3f}")


if __name__ == "__main__":
    main()
