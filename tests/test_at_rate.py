"""Videos read at one rate, whatever their own."""

import re
from bisect import bisect_right
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is missing: rates of real videos are NOT tested; pip install pymultigrid[video]")

import video_bytes
import video_kinds

from pymultigrid import Schedule, Shape, mini_batch
from pymultigrid._files import VideoFiles, Views
from pymultigrid.video import AtRate, Video

UNEVEN = np.cumsum(np.random.default_rng(1).integers(1, 9, 40)).tolist()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Videos of two seconds at several rates, by the exact time in seconds that each of their frames is shown at."""
    root, made = tmp_path_factory.mktemp("rates"), {}
    for rate in (24, 25, 30, 60, Fraction(30000, 1001)):
        for suffix in ("mp4", "mkv"):
            path = root / f"{rate}.{suffix}".replace("/", "-")
            count = int(2 * rate)
            video_bytes.write(path, "libx264", video_bytes.pictures(count), rate=rate, tick=1 / Fraction(rate))
            made[path] = [Fraction(n) / rate for n in range(count)]
    for suffix in ("mp4", "mkv"):
        path = root / f"uneven.{suffix}"
        video_bytes.write(path, "libx264", video_bytes.pictures(40), times=UNEVEN)
        made[path] = [Fraction(time - UNEVEN[0], 25) for time in UNEVEN]
    return made


@pytest.mark.parametrize("fps", [1, 7.5, 12, 24, 25, 29.97, 60, 100])
def test_a_frame_is_the_one_that_is_shown_then(files, fps):
    for path, times in files.items():
        video = Video(path)
        read = AtRate(video, fps)
        assert read.extent == (max(1, int(Fraction(len(times)) / video.rate * read.rate)), *video.extent[1:])
        assert float(read.rate) == pytest.approx(fps)
        assert read.times is None
        for frame, found in enumerate(read.source(range(read.extent[0]))):
            at = frame / read.rate
            # Matroska's clock has milliseconds.
            right = {min(len(times), bisect_right(times, at + late)) - 1 for late in (0, Fraction(1, 1999))}
            assert found in right, (path.name, frame)


def test_at_its_own_rate_a_video_is_itself(files):
    for path, times in files.items():
        video = Video(path)
        if video.times is None:
            assert AtRate(video, float(video.rate)).source(range(len(times))) == list(range(len(times)))
        else:
            np.testing.assert_allclose(video.times, np.array(times, float), atol=1e-3)


def test_the_frame_that_is_shown_at_a_time(files):
    path = next(path for path in files if path.name == "30.mp4")
    assert Video(path).shown([0, 0.1, 0.4, 1 / 3, 59 / 30, 5, -1]) == [0, 3, 12, 10, 59, 59, 0]


def test_frames_and_clips_are_read(files):
    path = next(iter(files))
    whole, read = video_kinds.decoded(path), AtRate(Video(path), 12)
    np.testing.assert_array_equal(read.read([3, 0, 3]), whole[[6, 0, 6]])
    grid = Schedule(Shape(1, 4, 32, 32), iterations=1)[0].grid(read.extent, seed=0, sample=0, stride=2)
    assert read.clip(grid).shape == (3, *tuple(Schedule(Shape(1, 4, 32, 32), iterations=1)[0].shape)[1:])
    with pytest.raises(ValueError, match=re.escape("frame 24 at 12 a second does not exist; there are 0 to 23")):
        read.read([24])


def test_clips_of_a_data_set_last_equally_long(files):
    """Frame k of a clip is shown at the same time after its first, whatever the file's rate."""
    paths = [path for path in files if "uneven" not in path.name]
    dataset = VideoFiles(paths, range(len(paths)), fps=12, stride=2)
    schedule = Schedule(Shape(4, 8, 32, 32), samples=len(paths), epochs=8)
    spans = set()
    for step in list(schedule)[:: max(1, len(schedule) // 8)]:
        for sample in mini_batch(schedule, step, seed=0):
            video = dataset._shown(dataset.videos[sample.index])
            grid = dataset._grid(video, sample)
            seconds = np.array([float(files[paths[sample.index]][n]) for n in video.source(grid.frames(24))])
            wanted = np.array(grid.frames(24)) / 12
            assert (np.abs(seconds - wanted) <= 1 / 24 + 1e-9).all()
            spans.add((float(grid.t.span) / 12, step.shape.t))
    assert len(spans) > 2
    for _, video, frames, grid in dataset.decoded(mini_batch(schedule, schedule[0], seed=0)):
        assert frames.shape[0] == grid.t.size
        assert 0 <= video < len(paths)
    assert "fps=12" in repr(dataset)


def test_the_same_grids_as_by_stride_where_the_rate_is_the_files_own(files):
    path = next(path for path in files if path.name == "25.mp4")
    schedule = Schedule(Shape(2, 8, 32, 32), samples=3, epochs=8)
    plain, at_rate = VideoFiles([path] * 3, range(3), stride=2), VideoFiles([path] * 3, range(3), stride=2, fps=25)
    for step in schedule:
        batch = mini_batch(schedule, step, seed=0)
        for a, b in zip(plain.decoded(batch), at_rate.decoded(batch), strict=True):
            assert (a[:2], a[3]) == (b[:2], b[3])
            np.testing.assert_array_equal(a[2], b[2])


def test_evaluation_counts_in_the_same_frames(files):
    path = next(path for path in files if path.name == "60.mp4")
    dataset = VideoFiles([path], [0], fps=12, stride=2)
    pixels, _ = Views(dataset, Shape(1, 8, 32, 32), clips=2, crops=1).decoded(0)
    whole = video_kinds.decoded(path)
    np.testing.assert_array_equal(pixels[0], whole[[5 * n for n in range(0, 16, 2)]])
    np.testing.assert_array_equal(pixels[1], whole[[5 * n for n in range(8, 24, 2)]])


@pytest.mark.parametrize(("fps", "error"), [(0, ValueError), (-3, ValueError), (1e9, ValueError), ("25", TypeError)])
def test_rates_that_are_none(files, fps, error):
    path = next(iter(files))
    with pytest.raises(error, match="fps"):
        AtRate(Video(path), fps)
    with pytest.raises(error, match="fps"):
        VideoFiles([path], [0], fps=fps)
