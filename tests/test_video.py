import doctest
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip(
    "av", reason="PyAV is missing: real video files are NOT tested; pip install pymultigrid[video]"
)

import mp4  # noqa: E402

import pymultigrid  # noqa: E402
from pymultigrid import Axis, Grid, Schedule, Shape, resample, video  # noqa: E402
from pymultigrid.video import DamagedVideo, Video  # noqa: E402
from pymultigrid.video._decoding import Decoding  # noqa: E402


@pytest.fixture(scope="module")
def clip40(tmp_path_factory):
    return mp4.write(tmp_path_factory.mktemp("video") / "clip.mp4")


KINDS = {
    "key frame every 12": ("clip.mp4", {"gop": 12}),
    "one key frame": ("clip.mp4", {"gop": 250}),
    "no B-frames": ("clip.mp4", {"gop": 12, "b_frames": 0}),
    "all key frames": ("clip.mp4", {"gop": 1, "b_frames": 0}),
    "mpeg4 in avi": ("clip.avi", {"gop": 12, "b_frames": 2, "codec": "mpeg4"}),
}


@pytest.fixture(scope="module", params=KINDS)
def file(request, tmp_path_factory):
    name, options = KINDS[request.param]
    return mp4.write(tmp_path_factory.mktemp("video") / name, **options)


def test_extent_counts_frames(file):
    assert Video(file).extent == (40, mp4.HEIGHT, mp4.WIDTH)


def test_a_file_held_open_reads_as_one_opened_each_time(file):
    video = Video(file)
    with video.open() as held:
        assert held.extent == (40, mp4.HEIGHT, mp4.WIDTH)
        for frames in ([39], [5, 5, 30, 3], [0], []):
            np.testing.assert_array_equal(held.read(frames), mp4.decode(file)[frames])
        with pytest.raises(ValueError, match=re.escape(f"{file}: frame 40 does not exist")):
            held.read([40])
    assert pickle.loads(pickle.dumps(video)).extent == (40, mp4.HEIGHT, mp4.WIDTH)  # numbers only
    np.testing.assert_array_equal(video.read([7]), mp4.decode(file)[[7]])


def test_the_bytes_of_a_file_are_a_video(file):
    video = pickle.loads(pickle.dumps(Video(file.read_bytes())))
    assert video.extent == (40, mp4.HEIGHT, mp4.WIDTH)
    np.testing.assert_array_equal(video.read([5, 30, 3]), mp4.decode(file)[[5, 30, 3]])


def test_damaged_bytes_say_how_many_they_are():
    with pytest.raises(ValueError, match=re.escape("<9 bytes>: the file cannot be read as a video")):
        _ = Video(b"no video.").extent


@pytest.mark.parametrize(
    "frames", [[0], [39], [5, 5, 30, 3, 5], list(range(40)), list(range(39, -1, -1)), [1, 2, 38], [11, 12, 13, 36], []]
)
def test_reads_exactly_the_frames_asked_for(file, frames):
    got = Video(file).read(frames)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, mp4.decode(file)[frames])


def test_any_frames_of_a_long_file(tmp_path):
    path = mp4.write(tmp_path / "long.mp4", frames=300, gop=30)
    whole, reader, rng = mp4.decode(path), Video(path), np.random.default_rng(0)
    for _ in range(20):
        frames = rng.integers(0, 300, rng.integers(1, 12)).tolist()
        np.testing.assert_array_equal(reader.read(frames), whole[frames])


@pytest.fixture
def given(monkeypatch):
    """The time stamps of the frames that the decoder gives."""
    stamps = []
    decoded = Decoding._decoded

    def noted(self, *args):
        for frame in decoded(self, *args):
            stamps.append(frame.pts)
            yield frame

    monkeypatch.setattr(Decoding, "_decoded", noted)
    return stamps


def test_a_far_frame_is_reached_over_its_key_frame(tmp_path, given):
    path = mp4.write(tmp_path / "long.mp4", frames=300, gop=30)
    Video(path).read([3, 275])
    assert 2 <= len(given) < 20


def test_frames_in_between_are_not_all_decoded(clip40, given):
    Video(clip40).read([0, 11])
    assert 2 <= len(given) < 12


def test_a_seek_that_leads_elsewhere_is_made_good(clip40):
    reader = Video(clip40)
    index = reader._probed()
    whole = mp4.decode(clip40)
    for made_up in ((0, 20, 24), (0, 36), (20,)):  # frame 20 is no key frame
        reader._index = replace(index, keys=made_up)
        np.testing.assert_array_equal(reader.read([3, 21, 39]), whole[[3, 21, 39]])
        np.testing.assert_array_equal(reader.read([21]), whole[[21]])
    assert reader._probed().keys == ()  # it is not tried again


def test_variable_frame_rate(tmp_path):
    path = tmp_path / "vfr.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, width=64, height=48, pix_fmt="yuv420p")
        times = np.cumsum(np.random.default_rng(0).integers(1, 9, 30))
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 8, np.uint8), format="rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    reader = Video(path)
    assert reader.extent[0] == 30
    np.testing.assert_array_equal(reader.read([29, 0, 13]), mp4.decode(path)[[29, 0, 13]])


def test_constant_frame_rate_costs_no_memory(clip40):
    assert isinstance(Video(clip40)._probed().times, range)


def test_frame_outside(clip40):
    for number in (-1, 40):
        with pytest.raises(ValueError, match=re.escape(f"clip.mp4: frame {number} does not exist; the video has the")):
            Video(clip40).read([0, number])


def test_pickles_with_its_index_and_keeps_no_file_open(clip40):
    reader = Video(clip40)
    assert reader.extent == pickle.loads(pickle.dumps(reader)).extent
    assert pickle.loads(pickle.dumps(reader))._index == reader._index


# -- clips -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [Axis(4, 16, 4), Axis(20, -16, 8), Axis(0.5, 7, 7), Axis(0, 2, 8)])
def test_clip_equals_resampling_the_whole_video(clip40, t):
    grid = Grid(t, Axis(3.5, 40, 20), Axis(60, -48, 24))
    want = resample(mp4.decode(clip40), grid, mean=0.45, std=0.225)
    got = Video(clip40).clip(grid, mean=0.45, std=0.225)
    assert got.shape == (3, t.size, 20, 24)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("beyond", ["clamp", "loop"])
def test_clip_of_a_short_video(tmp_path, beyond):
    path = mp4.write(tmp_path / "short.mp4", frames=5)
    grid = Grid(Axis(2, 16, 8), Axis(0, 48, 24), Axis(0, 64, 24), beyond=beyond)
    frames = grid.frames(5)
    assert max(frames) <= 4
    want = np.stack([resample(mp4.decode(path)[f : f + 1], (1, 24, 24))[:, 0] for f in frames], 1)
    np.testing.assert_array_equal(Video(path).clip(grid), want)


def test_every_grid_of_a_schedule_reads(clip40):
    schedule = Schedule(Shape(2, 8, 32, 32), samples=10, epochs=6, lr_drops=(3,))
    reader = Video(clip40)
    for step in schedule:
        grid = step.grid(reader.extent, seed=0, sample=step.first, stride=2)
        assert reader.clip(grid, dtype="uint8").shape == (3, step.shape.t, step.shape.h, step.shape.w)


def test_clip_refuses_to_blend_frames(clip40):
    grid = Grid(Axis(4, 16, 4), Axis(0, 48, 24), Axis(0, 64, 24))
    with pytest.raises(ValueError, match=re.escape("temporal ('linear') must be \"nearest\" here")):
        Video(clip40).clip(grid, temporal="linear")


# -- bad files ---------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    path = tmp_path / "none.mp4"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{path}: there is no such file; check the path")):
        _ = Video(path).extent


# Without faststart the header is at the end, and the very last bytes are only the encoder's name.
@pytest.mark.parametrize(("share", "faststart"), [*((s, f) for s in (0.0, 0.1, 0.5, 0.9) for f in (0, 1)), (0.999, 1)])
def test_truncated_file(tmp_path, share, faststart):
    options = {"movflags": "+faststart"} if faststart else {}
    whole = mp4.write(tmp_path / "whole.mp4", frames=100, **options).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        ValueError, match=re.escape(str(path)) + ".*truncated.*copy (it|the file) again or leave it out"
    ):
        _ = Video(path).extent


def test_damaged_in_the_middle(tmp_path):
    path = mp4.write(tmp_path / "damaged.mp4", frames=100, gop=250, b_frames=0)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 2000
    data[start : start + 800] = bytes(800)
    path.write_bytes(bytes(data))
    try:  # FFmpeg conceals what it can; what it cannot is an error that names the file
        Video(path).read(range(100))
        said = str(path)
    except ValueError as error:
        said = str(error)
    assert str(path) in said


def test_a_frame_that_the_decoder_does_not_give(clip40, monkeypatch):
    decoded = Decoding._decoded
    lost = Video(clip40)._probed().times[30]
    monkeypatch.setattr(Decoding, "_decoded", lambda *args: (f for f in decoded(*args) if f.pts != lost))
    with pytest.raises(
        DamagedVideo,
        match=re.escape(f"{clip40}: frame 30 (at 1.00 s) cannot be decoded: the file is damaged; copy the file again"),
    ):
        Video(clip40).read([3, 30, 31])


@pytest.mark.parametrize("content", [b"", b"hello" * 100, bytes(5000)])
def test_not_a_video(tmp_path, content):
    path = tmp_path / "junk.mp4"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: the file cannot be read as a video")):
        _ = Video(path).extent


def test_a_folder(tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}: it is a folder, not a video; VideoDataset.from")):
        _ = Video(tmp_path).extent


def test_no_video_stream(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(ValueError, match=re.escape(f"{path}: the file has no video stream; leave it out")):
        _ = Video(path).extent


# -- the module --------------------------------------------------------------------------------------------------------


def test_examples_run():
    failed, tried = doctest.testmod(video)
    assert tried
    assert not failed


def test_importing_pymultigrid_loads_no_decoder():
    code = "import pymultigrid, sys; assert not {'av', 'torch', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "video" not in pymultigrid.__all__


def test_without_pyav_the_error_says_what_to_install():
    code = "import sys; sys.modules['av'] = None\nimport pymultigrid.video"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install pymultigrid[video]" in done.stderr
