import doctest
import importlib
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="PyAV is missing: real video files are NOT tested; pip install pymultigrid[video]")

import av
import mp4
from torch.utils.data import ConcatDataset, DataLoader, random_split

import pymultigrid.torch
from pymultigrid import Schedule, Shape, video, view_grids
from pymultigrid.torch import BatchSampler, VideoDataset, resample
from pymultigrid.video import Video

SCHEDULE = Schedule(Shape(2, 8, 32, 32), samples=6, epochs=8, lr_drops=(4,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mp4.write_classes(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def paths(folder):
    return sorted(folder.glob("*/*.mp4"))


def test_a_clip_is_the_video_on_the_samples_grid(paths):
    dataset = VideoDataset(paths, list("aabbcc"), mean=[0.4, 0.45, 0.5], std=0.225, stride=2, flip=1.0)
    for batch in list(BatchSampler(SCHEDULE, seed=4))[::3]:
        clip, label = dataset[batch[0]]
        index = batch[0].index
        grid = batch[0].grid(Video(paths[index]).extent, stride=2, flip=1.0)
        whole = torch.from_numpy(mp4.decode(paths[index]))
        assert label == "aabbcc"[index]
        assert torch.equal(clip, resample(whole, grid, mean=[0.4, 0.45, 0.5], std=0.225))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_dtype(paths, dtype):
    sample = next(iter(BatchSampler(SCHEDULE)))[0]
    clip, _ = VideoDataset(paths, range(6), dtype=dtype)[sample]
    assert clip.dtype == dtype


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (2, "spawn")])
def test_a_whole_training_through_real_workers(folder, workers, context):
    dataset = VideoDataset.from_folder(folder, std=0.5)
    sampler = BatchSampler(SCHEDULE)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=workers, multiprocessing_context=context)
    seen = 0
    for step, samples, (clips, labels) in zip(SCHEDULE, sampler, loader, strict=True):
        b, t, h, w = step.shape
        assert clips.shape == (b, 3, t, h, w)
        assert labels.tolist() == [sample.index // 2 for sample in samples]
        if seen % 8 == 0:
            assert torch.equal(clips[0], dataset[samples[0]][0])
        seen += 1
    assert seen == len(SCHEDULE)


def test_from_folder(folder, paths):
    dataset = VideoDataset.from_folder(folder)
    assert len(dataset) == 6
    assert dataset.classes == ("cat", "dog", "eel")
    assert list(dataset.labels) == [0, 0, 1, 1, 2, 2]
    assert [video.path for video in dataset.videos] == list(map(str, paths))


def test_it_prints_what_it_holds(folder, paths):
    dataset = VideoDataset.from_folder(folder, std=[0.2, 0.25, 0.3], stride=2, flip=0, resample_on="device")
    held = "std=[0.2, 0.25, 0.3], dtype=torch.float32, resample_on='device', stride=2, flip=0)"
    assert repr(dataset) == f"VideoDataset(videos=6, classes=3, {held}"
    assert repr(dataset.subset([0, 4])) == f"VideoDataset(videos=2, classes=3, {held}"
    assert repr(VideoDataset(paths, range(6))) == "VideoDataset(videos=6, dtype=torch.float32)"
    views = dataset.evaluation(SCHEDULE.shape, clips=2, crops=3)
    assert repr(views) == "VideoViews(videos=6, clips=2, crops=3, each 8x32x32)"
    assert all(video._index is None for video in dataset.videos)  # no file was opened for it


def test_a_file_is_probed_once(paths, monkeypatch):
    probes = []
    probe = video.probe
    monkeypatch.setattr(video, "probe", lambda source, *a, **k: probes.append(source.name) or probe(source, *a, **k))
    dataset = VideoDataset(paths, range(6))
    assert not probes
    for batch in BatchSampler(SCHEDULE):
        _ = dataset[batch[0]]
    assert len(probes) == len(set(probes)) <= 6


def test_a_file_is_opened_once_for_a_batch(paths, monkeypatch):
    opened = []
    av_open = av.open
    monkeypatch.setattr(av, "open", lambda file, **options: opened.append(file) or av_open(file, **options))
    dataset = VideoDataset(paths, range(6))
    for visit in range(2):
        for batch in list(BatchSampler(SCHEDULE, repeats=2))[:4]:
            dataset.__getitems__(batch)
            assert len(opened) == len(set(opened)) == len(set(batch.indices)), visit
            opened.clear()


# -- clips of one video in a batch -------------------------------------------------------------------------------------


def reads(monkeypatch):
    """The videos that are read from now on, in order."""
    seen = []
    read = Video.read
    monkeypatch.setattr(Video, "read", lambda self, frames: seen.append(self.path) or read(self, frames))
    return seen


@pytest.mark.parametrize("resample_on", ["worker", "device"])
def test_clips_of_one_video_are_read_together(paths, monkeypatch, resample_on):
    dataset = VideoDataset(paths, range(6), std=0.5, resample_on=resample_on)
    for batch in list(BatchSampler(SCHEDULE, repeats=3, seed=2))[::4]:
        seen = reads(monkeypatch)
        together = dataset.__getitems__(batch)
        assert sorted(seen) == sorted({dataset.videos[index].path for index in batch.indices})
        for sample, (clip, label) in zip(batch, together, strict=True):
            alone, want = dataset[sample]
            assert label == want == sample.index
            assert torch.equal(clip.to("cpu"), alone.to("cpu"))


def test_repeats_in_a_loader_read_each_video_once(paths, monkeypatch):
    seen = reads(monkeypatch)
    sampler = BatchSampler(SCHEDULE[:6], repeats=2)
    for step, batch, (clips, labels) in zip(
        SCHEDULE, sampler, DataLoader(VideoDataset(paths, range(6)), batch_sampler=sampler), strict=False
    ):
        assert clips.shape == (step.shape.b, 3, *tuple(step.shape)[1:])
        assert labels.tolist() == list(batch.indices)
        assert len(set(seen)) == len(seen) == len(set(batch.indices)) < len(batch)
        seen.clear()


def test_a_subclass_has_its_own_item(paths):
    class Doubled(VideoDataset):
        def __getitem__(self, sample):
            clip, label = super().__getitem__(sample)
            return 2 * clip, label

    for batch in list(BatchSampler(SCHEDULE))[:2]:
        (plain,), (doubled,) = (
            DataLoader(kind(paths, range(6)), batch_sampler=[batch]) for kind in (VideoDataset, Doubled)
        )
        assert torch.equal(doubled[0], 2 * plain[0])


# -- parts of a data set -----------------------------------------------------------------------------------------------


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


# -- evaluation --------------------------------------------------------------------------------------------------------


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


# -- errors ------------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=re.escape("of the full shape, which training comes to; pass beyond=")):
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


# -- the package -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["batch_norm", "dataset", "decoded", "resample", "sampler", "scaled_lr", "stream"])
def test_examples_run(name):
    failed, tried = doctest.testmod(importlib.import_module(f"pymultigrid.torch._{name}"))
    assert tried
    assert not failed


def test_every_public_name_is_documented():
    for name in pymultigrid.torch.__all__:
        assert getattr(pymultigrid.torch, name).__doc__, name


def test_the_adapter_needs_no_video_decoder():
    code = "import sys; sys.modules['av'] = None\nimport pymultigrid.torch"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch_the_error_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None\nimport pymultigrid.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install pymultigrid[torch]" in done.stderr
