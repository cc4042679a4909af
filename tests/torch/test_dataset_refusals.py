"""What a data set of video files refuses, and when."""

import re

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="PyAV is missing: real video files are NOT tested; pip install pymultigrid[video]")

import mp4
from torch.utils.data import ConcatDataset, DataLoader

from pymultigrid import Schedule, Shape
from pymultigrid.torch import BatchSampler, Loader, VideoDataset, preflight

SCHEDULE = Schedule(Shape(2, 8, 32, 32), samples=6, epochs=8, lr_drops=(4,))


def test_bad_arguments(paths):
    with pytest.raises(ValueError, match=re.escape("paths is empty; pass the video files, or use")):
        VideoDataset([], [])
    with pytest.raises(ValueError, match=re.escape("paths has 6 files and labels 5; pass one label for each file")):
        VideoDataset(paths, range(5))
    with pytest.raises(FileNotFoundError, match=re.escape("none.mp4: there is no such file; check paths")):
        VideoDataset([paths[0], "none.mp4"], [0, 1])
    with pytest.raises(
        TypeError, match=re.escape("sride is no option of VideoDataset; sampling takes stride, fps, short_side")
    ):
        VideoDataset(paths, range(6), sride=2)
    with pytest.raises(ValueError, match=re.escape("stride (0) must be at least 1")):
        VideoDataset(paths, range(6), stride=0)
    with pytest.raises(ValueError, match=re.escape("flip (2) must be a probability in [0, 1]")):
        VideoDataset(paths, range(6), flip=2)
    with pytest.raises(ValueError, match=re.escape("leave out stride (2)")):
        VideoDataset(paths, range(6), segments=True, stride=2)
    with pytest.raises(ValueError, match=re.escape("short_side (40, 30) must be a rising pair above 0")):
        VideoDataset(paths, range(6), short_side=(40, 30))


def test_sampling_that_does_not_suit_the_schedule_is_refused_before_a_file_is_opened(paths):
    dataset = VideoDataset(paths, range(6), short_side=(20, 30))
    said = "short_side (20, 30) must begin at the baseline's crop (32) or above"
    parts = ConcatDataset([ConcatDataset([dataset.subset(range(4))]), dataset.subset([4, 5])])
    for whole in (dataset, parts):
        with pytest.raises(ValueError, match=re.escape(said)):
            Loader(whole, SCHEDULE)
    with pytest.raises(ValueError, match=re.escape(said)):
        preflight(torch.nn.Conv3d(3, 1, 1), SCHEDULE, dataset=dataset)
    assert all(video._index is None for video in dataset.videos)
    assert len(Loader(VideoDataset(paths, range(6), short_side=(32, 40)), SCHEDULE)) == len(SCHEDULE)


def test_bad_output_is_refused_at_once(paths):
    for wrong, meant in (("uint8", "uint8"), (np.float16, "float16"), (torch.int64, "float32"), (None, "float32")):
        rule = "must be one of torch.uint8, torch.float16, torch.float32, torch.bfloat16"
        with pytest.raises(TypeError, match=re.escape(f"dtype ({wrong!r}) {rule}; pass torch.{meant}") + "$"):
            VideoDataset(paths, range(6), dtype=wrong)
    with pytest.raises(ValueError, match="std"):
        VideoDataset(paths, range(6), std=0.0)


def test_bad_folders(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=re.escape(f"{tmp_path / 'none'}: there is no such folder; pass one with")
    ):
        VideoDataset.from_folder(tmp_path / "none")
    with pytest.raises(
        ValueError, match=re.escape(f"{tmp_path}: the folder has no sub-folders; put the videos of each")
    ):
        VideoDataset.from_folder(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'cat'}: the folder has no videos (.3g2, .3gp, .asf")):
        VideoDataset.from_folder(tmp_path)


def test_an_index_is_no_sample(paths):
    with pytest.raises(TypeError, match="a VideoDataset is indexed by Sample, not int: read it by"):
        VideoDataset(paths, range(6))[0]


def test_a_schedule_for_fewer_videos(paths):
    """Some would never be read, and nobody would notice."""
    few = Schedule(Shape(2, 8, 32, 32), samples=4, epochs=8)
    dataset = VideoDataset(paths, range(6))
    wrong = (
        "the schedule is for 4 videos and the data set has 6, of which 2 would never be read; build it with samples=6"
    )
    with pytest.raises(ValueError, match=re.escape(wrong)):
        next(iter(DataLoader(dataset, batch_sampler=BatchSampler(few))))
    assert len(list(DataLoader(dataset.subset(range(4)), batch_sampler=BatchSampler(few[:2])))) == 2


def test_where_to_resample(paths):
    with pytest.raises(ValueError, match=re.escape("""resample_on ('gpu') must be "worker" or "device\"""")):
        VideoDataset(paths, range(6), resample_on="gpu")


def test_a_schedule_for_more_videos(paths):
    sample = next(s for batch in BatchSampler(SCHEDULE) for s in batch if s.index >= 4)
    with pytest.raises(ValueError, match=re.escape(f"asks for video {sample.index} of 4; build it with samples=4")):
        VideoDataset(paths[:4], range(4))[sample]


def test_a_short_video_names_itself_and_loops_when_told(tmp_path):
    path = mp4.write(tmp_path / "short.mp4", frames=5)
    sample = list(BatchSampler(SCHEDULE))[-1][0]
    dataset = VideoDataset([path] * 6, range(6))
    with pytest.raises(ValueError, match=re.escape(f"{path}: the video has 5 frames, fewer than the clip's 8 frames")):
        dataset[sample]
    with pytest.raises(ValueError, match=re.escape(f"{path}: the video has 5 frames")):
        dataset.evaluation(SCHEDULE.shape)[0]
    for beyond in ("clamp", "loop"):
        dataset = VideoDataset([path] * 6, range(6), beyond=beyond)
        assert dataset[sample][0].shape == (3, 8, 32, 32)
        assert dataset.evaluation(SCHEDULE.shape, clips=2)[0][0].shape == (2, 3, 8, 32, 32)


def test_a_short_video_is_refused_at_the_first_coarse_step(tmp_path):
    """Long enough for the first stage only: said at once, not when the first finer stage begins."""
    path = mp4.write(tmp_path / "short.mp4", frames=5)
    sample = next(iter(BatchSampler(SCHEDULE)))[0]
    assert sample.step.shape.t < 5 < SCHEDULE.shape.t
    with pytest.raises(ValueError, match=re.escape("of the full shape, which training reaches later; pass beyond=")):
        VideoDataset([path] * 6, range(6))[sample]


def test_kinds_are_refused_by_name(paths):
    with pytest.raises(TypeError, match=re.escape("must be a list of files; VideoDataset.from_folder takes a folder")):
        VideoDataset(str(paths[0]), [0])
    with pytest.raises(TypeError, match=r"shape \(<Schedule: .*>\) must be a Shape; pass schedule.shape"):
        VideoDataset(paths, range(len(paths))).evaluation(SCHEDULE)


def test_a_truncated_file_in_a_worker_names_itself(tmp_path):
    path = tmp_path / "cut.mp4"
    whole = mp4.write(tmp_path / "whole.mp4").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    loader = DataLoader(VideoDataset([path] * 6, range(6)), batch_sampler=BatchSampler(SCHEDULE), num_workers=1)
    with pytest.raises(ValueError, match=re.escape(f"{path}: the file is truncated: at least")):
        next(iter(loader))
