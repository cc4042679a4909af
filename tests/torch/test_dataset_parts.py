"""Parts of a data set, and a whole that is made of several."""

import re

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="PyAV is missing: real video files are NOT tested; pip install pymultigrid[video]")

from torch.utils.data import ConcatDataset, DataLoader, random_split

from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler, VideoDataset

SCHEDULE = Schedule(Shape(2, 8, 32, 32), samples=6, epochs=8, lr_drops=(4,))


def test_a_split_is_a_subset(paths):
    whole = VideoDataset(paths, "abcdef", std=0.5, stride=2)
    halves = random_split(whole, [0.5, 0.5], generator=torch.Generator().manual_seed(0))
    schedule = Schedule(Shape(1, 8, 32, 32), samples=3, epochs=4)
    for half in halves:
        part = whole.subset(half.indices)
        assert [video.path for video in part.videos] == [str(paths[i]) for i in half.indices]
        assert list(part.labels) == ["abcdef"[i] for i in half.indices]
        for step, (clips, labels) in zip(schedule, DataLoader(part, batch_sampler=BatchSampler(schedule)), strict=True):
            assert clips.shape[2:] == tuple(step.shape)[1:]
            assert set(labels) <= set(part.labels)
        with pytest.raises(TypeError, match=re.escape("random_split lose the grid: take dataset.subset(part.indices)")):
            next(iter(DataLoader(half, batch_sampler=BatchSampler(schedule))))
    assert len(whole) == 6


def test_bad_subsets(paths):
    dataset = VideoDataset(paths, range(6))
    with pytest.raises(ValueError, match=re.escape("indices is empty; choose at least one video")):
        dataset.subset([])
    with pytest.raises(ValueError, match=re.escape("indices has 6, which must lie in [0, 6), the data set's videos")):
        dataset.subset([0, 6])
    with pytest.raises(TypeError, match=re.escape("indices (0.5) must be a whole number")):
        dataset.subset([0.5])


def test_concatenated_video_data_sets(paths):
    parts = [VideoDataset(paths[:2], "ab", flip=0), VideoDataset(paths[2:], "cdef", flip=0)]
    whole = VideoDataset(paths, "abcdef", flip=0)
    for (clips, labels), (want, same) in zip(
        DataLoader(ConcatDataset(parts), batch_sampler=BatchSampler(SCHEDULE[:6])),
        DataLoader(whole, batch_sampler=BatchSampler(SCHEDULE[:6])),
        strict=True,
    ):
        assert torch.equal(clips, want)
        assert labels == same


@pytest.mark.parametrize("sizes", [(2, 4), (4, 2), (2, 2, 2), (1, 1, 2, 2)])
@pytest.mark.parametrize("samples", [1, 3, 5])
def test_a_schedule_for_a_part_of_a_whole(paths, sizes, samples):
    ends = np.cumsum(sizes)
    parts = [
        VideoDataset(paths[end - size : end], range(end - size, end)) for size, end in zip(sizes, ends, strict=True)
    ]
    few = Schedule(Shape(2, 8, 32, 32), samples=samples, epochs=8)
    with pytest.raises(
        ValueError, match=f"samples={samples}, and the data set has at least [3-6] videos|is for {samples} videos and"
    ):
        list(DataLoader(ConcatDataset(parts), batch_sampler=BatchSampler(few)))


def test_a_whole_of_data_sets_of_ones_own():
    """Which of its parts is read is decided by comparing numbers, and the second one would never be."""

    class Numbers(torch.utils.data.Dataset):
        def __init__(self, videos):
            self.videos = range(videos)

        def __len__(self):
            return len(self.videos)

        def __getitem__(self, sample):
            return self.videos[sample]

    whole = Numbers(5) + Numbers(7)
    read = [n for batch in DataLoader(whole, batch_sampler=BatchSampler(of(12)[:9])) for n in batch.tolist()]
    assert set(read) == set(range(7))
    said = "the schedule was made for samples=5, and the data set has at least 12 videos: some would never be read"
    with pytest.raises(ValueError, match=re.escape(said)):
        list(DataLoader(whole, batch_sampler=BatchSampler(of(5))))


def of(samples):
    return Schedule(Shape(2, 8, 32, 32), samples=samples, epochs=8)
