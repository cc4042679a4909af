"""DDP: torchrun --nproc-per-node 8 --max-restarts 3 examples/ddp.py VIDEOS; it goes on where it was, on 4 too."""

import gc
import sys
from pathlib import Path

import torch
import torch.distributed.nn.functional  # imported with a group its defaults hold it for good: see docs/torch.md
from small_cnn import SmallCNN

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, VideoDataset, sub_batches


def main() -> None:
    device = torch.device(f"cuda:{torch.distributed.get_node_local_rank()}" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # else what asks for "cuda" alone goes to the first one, in every process
    dataset = VideoDataset.from_folder(sys.argv[1], mean=0.45, std=0.225, stride=2)
    schedule = Schedule(Shape(8, 8, 56, 56), samples=len(dataset), epochs=30)  # 8 over all processes
    schedule = schedule.with_processes(torch.distributed.get_world_size())
    model = SubBatchNorm.convert(SmallCNN(len(dataset.classes))).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    lr = ScaledLR(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.baseline_iterations), schedule)
    loader = Loader(dataset, schedule, num_workers=2)
    parts = {"model": model, "optimizer": optimizer, "lr": lr, "loader": loader}
    saved = torch.load("checkpoint.pt", map_location=device) if Path("checkpoint.pt").exists() else {}
    for name, state in saved.items():
        parts[name].load_state_dict(state)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    for step, (clips, labels) in loader:
        with sub_batches(model, step):
            torch.nn.functional.cross_entropy(wrapped(clips.to(device)), labels.to(device)).backward()
        optimizer.step()
        optimizer.zero_grad()
        lr.step()
        if step.index % 5 == 4 and torch.distributed.get_rank() == 0:
            torch.save({name: part.state_dict() for name, part in parts.items()}, "checkpoint.new")
            Path("checkpoint.new").replace("checkpoint.pt")  # whole or not there


if __name__ == "__main__":
    torch.distributed.init_process_group()
    main()
    gc.collect()  # the wrapper is gone before the group
    torch.distributed.destroy_process_group()
