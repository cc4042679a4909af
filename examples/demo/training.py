"""Train the network from the files with one schedule, and evaluate it: what a multigrid training loop looks like."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from network import Network
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from tqdm import tqdm
from videos import DIGITS, MOTIONS, Split

from pymultigrid import Cycles, Schedule, Shape, Step
from pymultigrid.torch import Loader, ScaledLR, SubBatchNorm, VideoDataset, sub_batches

FULL = Shape(8, 8, 40, 40)
PLANS = {
    "baseline": Cycles(long=None, short=None),
    "short": Cycles(long=None),
    "long": Cycles(short=None),
    "long+short": Cycles(),
}
# The best of three rates each, tried on other renderings: 0.05, 0.1, 0.2 for the baseline, 0.025, 0.05, 0.1 for
# long+short. Long takes the latter's, whose scaled rates it shares; short takes the baseline's: nothing scales it.
BASE_LR = {"baseline": 0.1, "short": 0.1, "long": 0.05, "long+short": 0.05}
WARM_UP = 0.1  # of the training


@dataclass(frozen=True)
class Outcome:
    """What one training run cost and reached."""

    kind: str
    schedule: Schedule
    seconds_data: float  # waiting for clips
    seconds_model: float
    accuracy: float  # digit and motion both right
    digit_accuracy: float
    motion_accuracy: float
    test_videos: int

    @property
    def seconds(self) -> float:
        """Training time, without evaluation."""
        return self.seconds_data + self.seconds_model

    def lr(self, step: Step) -> float:
        """Return the learning rate of a step, as `ScaledLR` set it."""
        return BASE_LR[self.kind] * relative_lr(step.progress) * step.lr_scale

    @property
    def epochs(self) -> float:
        """How often each training video was seen."""
        return self.schedule.clips / self.schedule.samples

    @property
    def standard_error(self) -> float:
        """Of the accuracy, from the number of test videos alone."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.test_videos)


def plan(kind: str, samples: int, epochs: float) -> Schedule:
    """Return the schedule for a baseline of so many epochs; with a cycle it takes 1.5 times as many, as the paper."""
    return Schedule(FULL, samples=samples, epochs=epochs, plan=PLANS[kind], multiple_of=4)


def read(split: Split) -> VideoDataset:
    dataset = VideoDataset(split.paths, split.labels, mean=0.45, std=0.2, stride=3, flip=0.0)
    for video in dataset.videos:
        _ = video.extent  # counted here once, instead of by each run's workers
    return dataset


def loading() -> dict[str, Any]:
    """Decode in as many processes as there are cores, far ahead: a coarse mini-batch has up to 16 times more clips."""
    workers = min(8, os.cpu_count() or 1)
    return {"num_workers": workers, "prefetch_factor": 8, "pin_memory": torch.cuda.is_available()}


def relative_lr(progress: float) -> float:
    """Return the baseline's policy: linear warm-up, then a cosine."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))


def run(kind: str, schedule: Schedule, training: VideoDataset, test: VideoDataset, seed: int, title: str) -> Outcome:
    """Train from the same first weights on `schedule`, then evaluate at the full shape."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    model = SubBatchNorm.convert(Network(DIGITS, MOTIONS)).to(device)
    seconds_data, seconds_model = train(model, schedule, training, device, BASE_LR[kind], seed, title)
    right = evaluate(model, schedule, test, device)
    digit, motion = right.float().mean(0).tolist()
    both = right.all(1).float().mean().item()
    return Outcome(kind, schedule, seconds_data, seconds_model, both, digit, motion, len(test))


def train(
    model: Network,
    schedule: Schedule,
    dataset: VideoDataset,
    device: torch.device,
    base_lr: float,
    seed: int,
    title: str,
) -> tuple[float, float]:
    """Train in place; return the seconds spent waiting for clips and in the model."""
    optimizer = torch.optim.SGD(model.parameters(), lr=base_lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
    policy = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda iteration: relative_lr((iteration + 1) / (schedule.baseline_iterations + 1))
    )
    lr = ScaledLR(policy, schedule)
    batches = iter(Loader(dataset, schedule, seed=seed, **loading()))
    seconds_data = seconds_model = 0.0
    model.train()
    with progress_bar(desc=title, total=len(schedule)) as bar:
        for _ in schedule:
            start = perf_counter()
            step, (clips, labels) = next(batches)
            ready = perf_counter()
            with sub_batches(model, step):
                loss = loss_of(model, clips.to(device), [label.to(device) for label in labels])
                optimizer.zero_grad()
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            seconds_data += ready - start
            bar.set_postfix_str(f"{step.shape} lr {lr.get_last_lr()[0]:.3f} loss {loss.item():.2f}", refresh=False)
            lr.step()
            bar.update()
            seconds_model += perf_counter() - ready
    return seconds_data, seconds_model


def loss_of(model: Network, clips: Tensor, labels: list[Tensor]) -> Tensor:
    digit, motion = model(clips)
    return cross_entropy(digit, labels[0]) + cross_entropy(motion, labels[1])


@torch.no_grad()
def evaluate(model: Network, schedule: Schedule, dataset: VideoDataset, device: torch.device) -> Tensor:
    """Return whether (digit, motion) is right for each video, at the full shape."""
    model.eval()
    right = []
    for views, labels in DataLoader(dataset.evaluation(schedule.shape), batch_size=32, **loading()):
        logits = model(views.flatten(0, 1).to(device))
        right.append(torch.stack([out.cpu().argmax(1) == label for out, label in zip(logits, labels, strict=True)], 1))
    return torch.cat(right)


progress_bar = partial(
    tqdm,
    unit="step",
    mininterval=0.2 if sys.stderr.isatty() else 20,  # a log file gets a line now and then
    bar_format="{desc} {percentage:3.0f}%|{bar:16}| step {n}/{total} [{elapsed}, {remaining} left]{postfix}",
)
