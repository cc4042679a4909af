"""Views: labelled video files on their evaluation grids."""

import re

import pytest
import torch

pytest.importorskip("av", reason="PyAV is missing: real video files are NOT tested; pip install pymultigrid[video]")

import mp4
from torch.utils.data import DataLoader

from pymultigrid import Schedule, Shape, view_grids
from pymultigrid.torch import VideoDataset, resample

SCHEDULE = Schedule(Shape(2, 8, 32, 32), samples=6, epochs=8, lr_drops=(4,))


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (2, 1), (1, 3), (3, 3)])
def test_views(paths, clips, crops):
    views = VideoDataset(paths, range(6), std=0.5, stride=2).evaluation(SCHEDULE.shape, clips=clips, crops=crops)
    assert len(views) == 6
    for i in range(6):
        got, label = views[i]
        whole = torch.from_numpy(mp4.decode(paths[i]))
        grids = view_grids(SCHEDULE.shape, whole.shape[:3], clips=clips, crops=crops, stride=2)
        assert got.shape == (clips * crops, 3, 8, 32, 32)
        assert label == i
        assert torch.equal(got, torch.stack([resample(whole, grid, std=0.5) for grid in grids]))


def test_views_of_a_data_set_of_segments(paths):
    """Trained on frames from all over the video, it is evaluated so too."""
    views = VideoDataset(paths, range(6), std=0.5, segments=True).evaluation(SCHEDULE.shape, clips=2)
    whole = torch.from_numpy(mp4.decode(paths[3]))
    grids = view_grids(SCHEDULE.shape, whole.shape[:3], clips=2, segments=True)
    assert torch.equal(views[3][0], torch.stack([resample(whole, grid, std=0.5) for grid in grids]))


def test_views_in_a_loader(paths):
    views = VideoDataset(paths, range(6)).evaluation(SCHEDULE.shape, crops=3)
    shapes = [(batch.shape, labels.tolist()) for batch, labels in DataLoader(views, batch_size=4, num_workers=1)]
    assert shapes == [((4, 3, 3, 8, 32, 32), [0, 1, 2, 3]), ((2, 3, 3, 8, 32, 32), [4, 5])]


def test_views_refuse_bad_numbers_at_once(paths):
    with pytest.raises(ValueError, match=re.escape("crops (0)")):
        VideoDataset(paths, range(6)).evaluation(SCHEDULE.shape, crops=0)
