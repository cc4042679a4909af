"""Labelled video files: what is read, and how often."""

import pytest
import torch

pytest.importorskip("av", reason="PyAV is missing: real video files are NOT tested; pip install pymultigrid[video]")

import av
import mp4
from torch.utils.data import DataLoader

from pymultigrid import Schedule, Shape, video
from pymultigrid.torch import BatchSampler, VideoDataset, resample
from pymultigrid.video import Video

SCHEDULE = Schedule(Shape(2, 8, 32, 32), samples=6, epochs=8, lr_drops=(4,))


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
