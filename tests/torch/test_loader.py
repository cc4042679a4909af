"""What real data loaders make of the sampler and the data set: any of their options, and clips for a device."""

import pytest
import torch

pytest.importorskip("av", reason="PyAV is missing: real video files are NOT tested; pip install pymultigrid[video]")

import mp4
from torch.utils.data import DataLoader

from pymultigrid import Axis, Grid, Schedule, Shape
from pymultigrid.torch import BatchSampler, DecodedClips, VideoDataset, resample
from pymultigrid.torch._decoded import cut

SCHEDULE = Schedule(Shape(2, 8, 32, 32), samples=6, epochs=8, lr_drops=(4,))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Six videos of different lengths and sizes."""
    root = tmp_path_factory.mktemp("videos")
    sizes = [(24 + 4 * i, 48 + 16 * (i % 2), 64 + 16 * (i // 2)) for i in range(6)]
    return [mp4.write(root / f"{i}.mp4", frames, height=h, width=w) for i, (frames, h, w) in enumerate(sizes)]


# -- resampled on the device -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "context", "dtype"),
    [(0, None, torch.float32), (2, "fork", torch.float32), (1, "spawn", torch.uint8)],
)
def test_device_mode_gives_the_clips_of_worker_mode(paths, workers, context, dtype):
    """The same loop and the same clips: flipped ones, cut boxes and whole frames among them."""
    batches = []
    for on in ("worker", "device"):
        dataset = VideoDataset(paths, range(6), stride=2, area=(0.2, 1.0), flip=0.5, dtype=dtype, resample_on=on)
        loader = DataLoader(
            dataset,
            batch_sampler=BatchSampler(SCHEDULE[:10], seed=5),
            num_workers=workers,
            multiprocessing_context=context,
        )
        batches.append([(clips.shape, clips.to("cpu", non_blocking=True), labels) for clips, labels in loader])
    for step, (before, want, same), (shape, clips, labels) in zip(SCHEDULE, *batches, strict=False):
        assert before == shape == clips.shape == (step.shape.b, 3, *tuple(step.shape)[1:])
        assert clips.dtype == dtype
        assert torch.equal(clips, want)
        assert torch.equal(labels, same)


def test_what_travels_to_the_device_is_the_box(paths):
    dataset = VideoDataset(paths, range(6), area=(0.25, 0.25), aspect=(1, 1), resample_on="device")
    clips, _ = next(iter(DataLoader(dataset, batch_sampler=BatchSampler(SCHEDULE))))
    assert isinstance(clips, DecodedClips)
    assert clips.pixels.dtype == torch.uint8
    batch = next(iter(BatchSampler(SCHEDULE)))
    extents = [dataset.videos[sample.index].extent for sample in batch]
    whole = sum(batch.step.shape.t * height * width * 3 for _, height, width in extents)
    assert whole / 4 <= clips.pixels.nbytes <= whole / 3  # a quarter of the area, and the pixels at its border


@pytest.mark.parametrize("crops", [1, 3])
def test_views_on_the_device(paths, crops):
    here, there = (
        VideoDataset(paths, range(6), std=0.5, resample_on=on).evaluation(SCHEDULE.shape, clips=2, crops=crops)
        for on in ("worker", "device")
    )
    for (want, _), (views, _) in zip(DataLoader(here, batch_size=4), DataLoader(there, batch_size=4), strict=True):
        assert torch.equal(views.to("cpu"), want)
    assert torch.equal(there[0][0].to("cpu"), here[0][0])
    assert there[0][0].shape == here[0][0].shape


def test_cut_to_boxes_at_every_fraction_of_a_pixel(paths):
    """Wherever the box's borders lie, read forwards or backwards: the same clip, to the last place of a float32."""
    whole = torch.from_numpy(mp4.decode(paths[0]))[:4]
    frames, height, width, _ = whole.shape
    for i in range(60):
        start, span = i * 0.4375 / 3, 20 + i / 7
        columns = Axis(start + span, -span, 9) if i % 2 else Axis(start, span, 9)
        grid = Grid(Axis(0, frames, frames), Axis(height - 20 - i / 3, 20 + i / 3, 11), columns)
        part, over = cut(whole, grid)
        assert part.shape[1] <= 22 + i / 3
        assert part.shape[2] <= span + 2
        torch.testing.assert_close(resample(part, over), resample(whole, grid), rtol=0, atol=2e-7)
    assert i / 3 < height - 20
    assert start + span < width


def test_pinned_memory(paths):
    """Without a GPU a DataLoader says that it does not pin; the batches are the same."""
    if torch.cuda.is_available():
        pytest.skip("a GPU is there: that pinning is left out without one is NOT tested")
    dataset = VideoDataset(paths, range(6), resample_on="device")
    sampler = BatchSampler(SCHEDULE[:3])
    with pytest.warns(UserWarning, match="'pin_memory' argument is set as true but no accelerator is found"):
        pinned = [clips.to("cpu") for clips, _ in DataLoader(dataset, batch_sampler=sampler, pin_memory=True)]
    for clips, (want, _) in zip(pinned, DataLoader(dataset, batch_sampler=sampler), strict=True):
        assert torch.equal(clips, want.to("cpu"))


def test_pinned_memory_for_a_gpu(paths):
    if not torch.cuda.is_available():
        pytest.skip("no GPU: page-locked memory and the transfer to the device were NOT tested")
    dataset = VideoDataset(paths, range(6), resample_on="device")
    loader = DataLoader(dataset, batch_sampler=BatchSampler(SCHEDULE[:3]), pin_memory=True, num_workers=1)
    for clips, _ in loader:
        assert clips.pixels.is_pinned()
        assert clips.to("cuda", non_blocking=True).device.type == "cuda"


# -- the data loader's own options -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_one_process(paths):
    loader = DataLoader(VideoDataset(paths, range(6)), batch_sampler=BatchSampler(SCHEDULE[:8], seed=7))
    return list(loader)


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (2, {"multiprocessing_context": "fork", "prefetch_factor": 1}),
        (1, {"multiprocessing_context": "spawn", "prefetch_factor": 4}),
        (2, {"multiprocessing_context": "forkserver", "persistent_workers": True}),
        (1, {"persistent_workers": True, "prefetch_factor": 8}),
    ],
)
def test_any_loader_gives_the_same_batches(paths, in_one_process, workers, options):
    dataset = VideoDataset(paths, range(6))
    loader = DataLoader(dataset, batch_sampler=BatchSampler(SCHEDULE[:8], seed=7), num_workers=workers, **options)
    assert len(loader) == 8
    for _ in range(2 if "persistent_workers" in options else 1):
        for (clips, labels), (want, same) in zip(loader, in_one_process, strict=True):
            assert torch.equal(clips, want)
            assert torch.equal(labels, same)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata's own
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_goes_on_where_it_was(paths, in_one_process, workers):
    stateful = pytest.importorskip(
        "torchdata.stateful_dataloader", reason="torchdata is missing: StatefulDataLoader was NOT tested"
    )

    def loader():
        dataset = VideoDataset(paths, range(6))
        return stateful.StatefulDataLoader(
            dataset, batch_sampler=BatchSampler(SCHEDULE[:8], seed=7), num_workers=workers
        )

    first = loader()
    batches = iter(first)
    seen = [next(batches) for _ in range(3)]
    again = loader()
    again.load_state_dict(first.state_dict())
    seen += list(again)
    for (clips, labels), (want, same) in zip(seen, in_one_process, strict=True):
        assert torch.equal(clips, want)
        assert torch.equal(labels, same)
