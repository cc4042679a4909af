"""A training that meets a damaged video goes on from its checkpoint without it."""

import warnings

import pytest
import torch

pytest.importorskip("av", reason="PyAV is missing: damaged videos are NOT tested; pip install pymultigrid[video]")

import mp4

from pymultigrid import Schedule, Shape
from pymultigrid.torch import Loader, VideoDataset
from pymultigrid.video import DamagedVideo

COUNT, BAD = 12, 7
SCHEDULE = Schedule(Shape(2, 8, 32, 32), samples=COUNT, epochs=6)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    return [mp4.write(root / f"{n:02}.mp4", frames=48, gop=12, tint=10 * n) for n in range(COUNT)]


def trained(loader, states=()):
    """What a loop saw: by step, clips and labels. `states` takes the loader's state behind each step."""
    seen = {}
    for step, (clips, labels) in loader:
        seen[step.index] = clips, labels
        if isinstance(states, list):
            states.append((loader.state_dict(), seen))
    return seen


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:other videos are read in place of damaged clips")
def test_a_run_goes_on_from_its_checkpoint(paths, tmp_path, workers):
    labels = list(range(COUNT))
    whole = trained(Loader(VideoDataset(paths, labels), SCHEDULE, seed=3))
    bytes_ = paths[BAD].read_bytes()
    broken = [*paths[:BAD], tmp_path / paths[BAD].name, *paths[BAD + 1 :]]
    broken[BAD].write_bytes(bytes_[: len(bytes_) // 3])

    loader = Loader(VideoDataset(broken, labels), SCHEDULE, seed=3, num_workers=workers)
    states = [(loader.state_dict(), {})]
    with pytest.raises(DamagedVideo, match='damaged="skip" draws other videos in its place, and a run goes on with it'):
        trained(loader, states)
    state, seen = states[-1]

    dataset = VideoDataset(broken, labels, damaged="skip")
    resumed = Loader(dataset, SCHEDULE, seed=3, num_workers=workers)
    resumed.load_state_dict(state)
    rest = trained(resumed)
    assert sorted([*seen, *rest]) == sorted(whole)
    replaced = 0
    for index, (clips, targets) in {**seen, **rest}.items():
        for clip, target, right, of in zip(clips, targets, *whole[index], strict=True):
            if of == BAD:
                replaced += 1
                assert target != BAD
            else:
                assert target == of
                assert torch.equal(clip, right)
    assert replaced >= 4
    if not workers:
        assert list(dataset.skipped) == [str(broken[BAD])]
    again = trained(Loader(VideoDataset(broken, labels, damaged="skip"), SCHEDULE, seed=3))
    assert all(torch.equal(again[i][0], clips) and torch.equal(again[i][1], of) for i, (clips, of) in rest.items())


@pytest.mark.filterwarnings("ignore:other videos are read in place of damaged clips")
def test_labels_follow_the_video_that_is_read(paths, tmp_path):
    """On the device, too: the tint of a clip tells which video it is."""
    bytes_ = paths[BAD].read_bytes()
    broken = [*paths[:BAD], tmp_path / paths[BAD].name, *paths[BAD + 1 :]]
    broken[BAD].write_bytes(bytes_[: len(bytes_) // 3])
    for resample_on in ("worker", "device"):
        dataset = VideoDataset(broken, range(COUNT), damaged="skip", resample_on=resample_on)
        for _, (clips, labels) in Loader(dataset, SCHEDULE):
            brightness = clips.to("cpu").mean((1, 2, 3, 4)) * 255
            assert BAD not in labels
            if len(labels) > 1 and labels.max() - labels.min() > 4:
                assert brightness[labels.argmax()] > brightness[labels.argmin()]


def test_videos_of_many_rates_train_together(tmp_path):
    paths = [mp4.write(tmp_path / f"{rate}.mp4", frames=2 * rate, rate=rate) for rate in (12, 24, 25, 30, 60)]
    dataset = VideoDataset(paths, range(5), fps=8, rotate=False)
    assert repr(dataset) == "VideoDataset(videos=5, dtype=torch.float32, fps=8)"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step, (clips, _) in Loader(dataset, Schedule(Shape(2, 8, 32, 32), samples=5, epochs=4)):
            assert tuple(clips.shape[2:]) == tuple(step.shape)[1:]
    views, label = dataset.evaluation(Shape(1, 16, 32, 32), clips=2)[4]
    assert (views.shape, label) == ((2, 3, 16, 32, 32), 4)
