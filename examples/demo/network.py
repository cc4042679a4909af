"""The network: a small residual (2+1)-D CNN with two heads, written without a thought of multigrid."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (16, 24, 48, 64)
STRIDES = ((1, 2), (2, 1), (1, 1))  # (in time, in space) of the blocks; with the stem's, 4 in space: 40 -> 10, 20 -> 5


class Block(nn.Module):
    """Convolve in space, then in time, beside a shortcut."""

    def __init__(self, width_in: int, width: int, stride: tuple[int, int]) -> None:
        super().__init__()
        time, space = stride
        self.body = nn.Sequential(
            nn.Conv3d(width_in, width, (1, 3, 3), (1, space, space), (0, 1, 1), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Conv3d(width, width, (3, 1, 1), (time, 1, 1), (1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
        )
        self.shortcut = nn.Sequential(
            nn.Conv3d(width_in, width, 1, (time, space, space), bias=False), nn.BatchNorm3d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map features to features."""
        return F.relu(self.body(x) + self.shortcut(x))


class Network(nn.Module):
    """Clips B x 3 x T x H x W, any T, H and W, to the logits of digit and motion."""

    def __init__(self, digits: int, motions: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, WIDTHS[0], (1, 5, 5), (1, 2, 2), (0, 2, 2), bias=False), nn.BatchNorm3d(WIDTHS[0]), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(Block(a, b, s) for (a, b), s in zip(pairwise(WIDTHS), STRIDES, strict=True)))
        self.norm = nn.LayerNorm(2 * WIDTHS[-1])
        self.digit = nn.Linear(2 * WIDTHS[-1], digits)
        self.motion = nn.Linear(2 * WIDTHS[-1], motions)

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two heads' logits."""
        cells = self.blocks(self.stem(clips))
        features = self.norm(torch.cat([cells.mean((2, 3, 4)), cells.mean(2).amax((2, 3))], 1))
        return self.digit(features), self.motion(features)
