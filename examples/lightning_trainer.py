"""Lightning's Trainer: python examples/lightning_trainer.py VIDEOS [CHECKPOINT to resume from]."""

import sys

import lightning
import torch
from pymultigrid.torch import BatchSampler, ScaledLR, SubBatchNorm3d, VideoDataset, sub_batches
from small_cnn import SmallCNN

from pymultigrid import Schedule, Shape

DEVICES, NODES = 1, 1
dataset = VideoDataset.from_folder(sys.argv[1], mean=0.45, std=0.225, stride=2)
schedule = Schedule(Shape(4, 8, 56, 56), samples=len(dataset), epochs=30, processes=DEVICES * NODES)


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = SubBatchNorm3d.convert(SmallCNN(len(dataset.classes)))

    def train_dataloader(self):  # here the trainer knows its rank and, when it resumes, its step
        rest = schedule[self.trainer.global_step :]
        return torch.utils.data.DataLoader(dataset, batch_sampler=BatchSampler(rest, seed=0), num_workers=2)

    def training_step(self, batch, _):
        with sub_batches(self.net, schedule[self.global_step]):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=schedule.baseline_iterations)
        return [optimizer], [{"scheduler": ScaledLR(cosine, schedule), "interval": "step"}]


if __name__ == "__main__":
    ours = {"max_steps": len(schedule), "reload_dataloaders_every_n_epochs": 1, "use_distributed_sampler": False}
    checkpoint = lightning.pytorch.callbacks.ModelCheckpoint("checkpoints", every_n_train_steps=10, save_top_k=-1)
    trainer = lightning.Trainer(devices=DEVICES, num_nodes=NODES, callbacks=[checkpoint], logger=False, **ours)
    trainer.fit(Classifier(), ckpt_path=sys.argv[2] if len(sys.argv) > 2 else None)
