"""Lightning's Trainer: python examples/lightning_trainer.py VIDEOS [CHECKPOINT to resume from]."""

import sys

import lightning
import torch
from small_cnn import SmallCNN

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, VideoDataset, sub_batches

DEVICES, NODES = 1, 1
dataset = VideoDataset.from_folder(sys.argv[1], mean=0.45, std=0.225, stride=2)
schedule = Schedule(Shape(4, 8, 56, 56), samples=len(dataset), epochs=30, processes=DEVICES * NODES)


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = SubBatchNorm.convert(SmallCNN(len(dataset.classes)))

    def train_dataloader(self):  # here the trainer knows its rank; its checkpoints hold where the loader is
        return Loader(dataset, schedule, seed=0, num_workers=2)

    def training_step(self, batch, _):
        step, (clips, labels) = batch
        with sub_batches(self.net, step):  # with activation checkpointing see docs/torch.md, Lightning
            return torch.nn.functional.cross_entropy(self.net(clips), labels)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=schedule.baseline_iterations)
        lr = ScaledLR(cosine, schedule, steps=len(schedule) * self.trainer.max_epochs)  # one "epoch" is the schedule
        return [optimizer], [{"scheduler": lr, "interval": "step"}]


if __name__ == "__main__":
    checkpoint = lightning.pytorch.callbacks.ModelCheckpoint("checkpoints", every_n_train_steps=10, save_top_k=-1)
    trainer = lightning.Trainer(devices=DEVICES, num_nodes=NODES, logger=False, max_epochs=1, callbacks=[checkpoint])
    trainer.fit(Classifier(), ckpt_path=sys.argv[2] if len(sys.argv) > 2 else None)
