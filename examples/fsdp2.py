"""FSDP2, sharded checkpoints: torchrun --nproc-per-node 8 --max-restarts 3 examples/fsdp2.py VIDEOS; or 4, later."""

import sys
from pathlib import Path

import torch
from small_cnn import SmallCNN
from torch.distributed import checkpoint, fsdp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, VideoDataset, sub_batches


def main() -> None:
    torch.distributed.init_process_group()
    dataset = VideoDataset.from_folder(sys.argv[1], mean=0.45, std=0.225, stride=2)
    schedule = Schedule(Shape(8, 8, 56, 56), samples=len(dataset), epochs=30)  # 8 over all processes
    schedule = schedule.with_processes(torch.distributed.get_world_size())
    model = SubBatchNorm.convert(SmallCNN(len(dataset.classes)))
    for part in (model.features, model):  # the parts of yours, then the whole
        fsdp.fully_shard(part)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    lr = ScaledLR(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.baseline_iterations), schedule)
    if saved := sorted(Path("checkpoints").glob("*/.metadata")):  # the last file of a checkpoint: it is whole
        weights, moments = get_state_dict(model, optimizer)
        checkpoint.load({"model": weights, "optimizer": moments, "lr": lr}, checkpoint_id=saved[-1].parent)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
    device = next(model.parameters()).device
    for step, (clips, labels) in Loader(dataset, schedule[lr.last_epoch :], num_workers=2):
        with sub_batches(model, step):
            torch.nn.functional.cross_entropy(model(clips.to(device)), labels.to(device)).backward()
        optimizer.step()
        optimizer.zero_grad()
        lr.step()
        if step.index % 5 == 4:
            weights, moments = get_state_dict(model, optimizer)
            state = {"model": weights, "optimizer": moments, "lr": lr}
            checkpoint.save(state, checkpoint_id=f"checkpoints/{step.index:08}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
