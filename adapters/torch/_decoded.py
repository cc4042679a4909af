"""Decoded clips that are resampled on the device they are moved to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from pymultigrid import Axis, Grid, _core
from pymultigrid.torch._resample import resample


@dataclass(frozen=True, eq=False)
class DecodedClips:
    """Clips that are decoded but not yet resampled: uint8 pixels, and the grids to read them on.

    A `VideoDataset` with ``resample_on="device"`` returns this in place of a clip: the frames that its grid picks, cut
    to its box. It passes through collation, ``pin_memory`` and workers like a tensor, and `to` turns it into the
    tensor, so the line ``clips = clips.to(device)`` of a loop does not change. On the CPU the result equals resampling
    uncut frames, except for the last place of a value if a weight rounds the other way:

    >>> import torch
    >>> from pymultigrid import Axis, Grid
    >>> from pymultigrid.torch import DecodedClips, resample
    >>> frames = torch.randint(256, (8, 48, 64, 3), dtype=torch.uint8)
    >>> grid = Grid(Axis(0, 8, 8), Axis(5, 40, 32), Axis(60, -40, 32))
    >>> clip = DecodedClips.of([frames], [grid], {"mean": 0.5}, batch=())
    >>> batch = torch.utils.data.default_collate([(clip, 0), (clip, 1)])
    >>> clips, labels = batch
    >>> clips = clips.to("cpu")
    >>> clips.shape, torch.equal(clips[1], resample(frames, grid, mean=0.5))
    (torch.Size([2, 3, 8, 32, 32]), True)

    Parameters
    ----------
    pixels
        The pixels of all clips, one after the other, in one tensor, so that one transfer moves them.
    sizes
        Frames, height, width and channels of each clip's pixels.
    grids
        The grid of each clip, over its pixels.
    batch
        The axes before C x T x H x W: () for one clip, (B,) for a batch.
    output
        How to resample them: options of `pymultigrid.torch.resample`.
    """

    pixels: Tensor
    sizes: tuple[tuple[int, ...], ...]
    grids: tuple[Grid, ...]
    batch: tuple[int, ...]
    output: Mapping[str, Any]

    @classmethod
    def of(
        cls, videos: Sequence[Tensor], grids: Sequence[Grid], output: Mapping[str, Any], *, batch: tuple[int, ...]
    ) -> DecodedClips:
        """Copy the boxes of videos T x H x W x C, as many as `batch` holds, each with its grid."""
        boxes, moved = zip(*map(cut, videos, grids), strict=True)
        sizes = tuple(tuple(box.shape) for box in boxes)
        pixels = torch.empty(sum(map(math.prod, sizes)), dtype=torch.uint8)
        for part, box in zip(_parts(pixels, sizes), boxes, strict=True):
            part.copy_(box)
        return cls(pixels, sizes, moved, batch, output)

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Tensor:
        """Move the pixels to `device`, once, and resample them there: float (or ``dtype``) B x C x T x H x W."""
        pixels = self.pixels.to(device, non_blocking=non_blocking)
        clips = resample(_parts(pixels, self.sizes), self.grids, **self.output)
        return clips.view(self.shape)

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor that `to` returns."""
        grid = self.grids[0]
        return torch.Size((*self.batch, self.sizes[0][-1], grid.t.size, grid.h.size, grid.w.size))

    def pin_memory(self) -> DecodedClips:
        """Return the same clips in page-locked memory; a DataLoader with ``pin_memory=True`` calls it."""
        return replace(self, pixels=self.pixels.pin_memory())


def _parts(pixels: Tensor, sizes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Return each video in the pixels of all, views T x H x W x C."""
    parts = pixels.split([math.prod(size) for size in sizes])
    return [part.view(size) for part, size in zip(parts, sizes, strict=True)]


def cut(video: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """Return the part of a video that the box of `grid` touches, a view, and the grid over that part."""
    top, bottom, left, right = _core.touched_box(grid, *video.shape[1:3])
    rows, columns = (Axis(axis.start - low, axis.span, axis.size) for axis, low in ((grid.h, top), (grid.w, left)))
    return video[:, top:bottom, left:right], Grid(grid.t, rows, columns, grid.beyond)


def _collate(clips: Sequence[DecodedClips], *, collate_fn_map: object = None) -> DecodedClips:
    return DecodedClips(
        torch.cat([clip.pixels for clip in clips]),
        tuple(size for clip in clips for size in clip.sizes),
        tuple(grid for clip in clips for grid in clip.grids),
        (len(clips), *clips[0].batch),
        clips[0].output,
    )


# Registers the type with torch's default_collate, as its documentation describes.
default_collate_fn_map[DecodedClips] = _collate
