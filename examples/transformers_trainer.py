"""Hugging Face Trainer: python examples/transformers_trainer.py VIDEOS [CHECKPOINT to resume from]."""

import sys

import torch
import transformers
from small_cnn import SmallCNN

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, VideoDataset, sub_batches


class Trainer(transformers.Trainer):
    def get_train_dataloader(self):
        length = {"samples": len(self.train_dataset), "epochs": 30, "processes": self.args.world_size}
        self.schedule = Schedule(Shape(4, 8, 56, 56), **length)
        return Loader(self.train_dataset, self.schedule, seed=0, num_workers=2)

    def create_scheduler(self, num_training_steps, optimizer=None):
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=self.schedule.baseline_iterations)
        self.lr_scheduler = ScaledLR(cosine, self.schedule, steps=num_training_steps)
        return self.lr_scheduler

    def training_step(self, model, inputs, *args):
        step, batch = inputs
        with sub_batches(model, step):
            return super().training_step(model, batch, *args)

    def compute_loss(self, model, inputs, **_):
        return torch.nn.functional.cross_entropy(model(inputs[0]), inputs[1])


if __name__ == "__main__":
    dataset = VideoDataset.from_folder(sys.argv[1], mean=0.45, std=0.225, stride=2)
    model = SubBatchNorm.convert(SmallCNN(len(dataset.classes)))
    # One "epoch" is the whole schedule.
    args = transformers.TrainingArguments("checkpoints", num_train_epochs=1, save_steps=10, report_to="none")
    args = args.set_optimizer("sgd", learning_rate=0.02, args="momentum=0.9")
    Trainer(model, args, train_dataset=dataset).train(resume_from_checkpoint=sys.argv[2] if len(sys.argv) > 2 else None)
