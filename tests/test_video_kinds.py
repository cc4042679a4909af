"""Frame n is the n-th picture that decoding the whole file gives, for every kind of file and in whatever order."""

import io
import pickle
import random
import threading

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is missing: kinds of video files are NOT tested; pip install pymultigrid[video]")

import av
import video_bytes
import video_kinds
from video_bytes import FRAMES, HEIGHT, WIDTH

from pymultigrid.video import DamagedVideo, Video

BY_INDEX = ("mp4", "mov", "3gp", "mkv", "webm")
# In these containers, and yet only the decoder knows.
COUNTED = (
    *("edit list at the start", "edit list at the end", "edit list at both", "edit list of segments", "two frames"),
    *("open GOP cut", "invented times", "negative start"),
)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Give the file of a kind, and every picture in it, made when first asked for."""
    folder, known = tmp_path_factory.mktemp("kinds"), {}

    def of(kind):
        if kind not in known:
            try:
                path = video_kinds.make(kind, folder)
            except (av.codec.codec.UnknownCodecError, av.error.EncoderNotFoundError) as error:
                pytest.skip(f"PyAV has no encoder for it ({error}): files of {kind} are NOT tested")
            known[kind] = path, video_kinds.decoded(path)
        return known[kind]

    return of


@pytest.mark.parametrize("kind", video_kinds.KINDS)
def test_frames_in_any_order_are_those_of_the_whole_file(kind, made):
    path, whole = made(kind)
    video, in_memory = Video(path), Video(path.read_bytes())
    assert video.extent == in_memory.extent == whole.shape[:3]
    copied, numbers = pickle.loads(pickle.dumps(video)), random.Random(kind)
    with video.open() as held:
        for turn in range(12):
            chosen = [numbers.randrange(len(whole)) for _ in range(numbers.randrange(1, 6))]
            reader = (held, copied, in_memory)[turn % 3]
            np.testing.assert_array_equal(reader.read(chosen), whole[chosen])
    for number in random.Random(0).sample(range(len(whole)), len(whole)):
        np.testing.assert_array_equal(video.read([number])[0], whole[number])
    np.testing.assert_array_equal(Video(path).read(range(len(whole))), whole)


@pytest.mark.parametrize("kind", video_kinds.KINDS)
def test_files_whose_packets_can_be_trusted_are_not_decoded_to_be_counted(kind, made):
    path, _ = made(kind)
    by_index = any(f" {suffix}" in f"{kind}," or f".{suffix}" == path.suffix for suffix in BY_INDEX)
    expected = "index" if by_index and not any(word in kind for word in COUNTED) else "decoder"
    assert Video(path)._probed().how == expected


def test_every_picture_of_the_files_is_another_one(made):
    _, whole = made("h264 mp4")
    assert len({picture.tobytes() for picture in whole}) == FRAMES == len(whole)


@pytest.mark.parametrize(
    ("suffix", "codec", "sound"),
    [
        ("mp4", "libx264", "aac"),
        ("mkv", "libx264", "ac3"),
        ("webm", "libvpx", "libopus"),
        ("avi", "mpeg4", "mp2"),
        ("ts", "libx264", "mp2"),
        ("mpg", "mpeg2video", "mp2"),
        ("flv", "libx264", "aac"),
        ("wmv", "wmv2", "mp2"),
    ],
)
def test_a_video_with_sound(tmp_path, suffix, codec, sound):
    path = tmp_path / f"loud.{suffix}"
    video_bytes.with_sound(path, codec, sound, gop_size=12)
    whole, video = video_kinds.decoded(path), Video(path)
    assert video.extent == whole.shape[:3]
    assert video.rate == 25
    chosen = random.Random(0).sample(range(len(whole)), 20)
    np.testing.assert_array_equal(video.read(chosen), whole[chosen])
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if suffix not in ("ts", "mpg"):  # which end anywhere
        with pytest.raises(DamagedVideo, match=r"truncated|damaged"):
            Video(cut).read(range(Video(cut).extent[0]))


@pytest.mark.parametrize("kind", ["h264 ts, open GOP", "mpeg2 ts", "hevc ts", "h264 m2ts", "mpeg2 mpg"])
def test_a_recording_that_begins_inside(kind, made, tmp_path):
    path, _ = made(kind)
    data, unit = path.read_bytes(), 2048 if "mpg" in kind else 192 if "m2ts" in kind else 188
    piece = tmp_path / f"piece{path.suffix}"
    piece.write_bytes(data[len(data) // 3 // unit * unit :])
    whole, video = video_kinds.decoded(piece), Video(piece)
    assert video.extent == whole.shape[:3]
    chosen = random.Random(0).sample(range(len(whole)), 10)
    np.testing.assert_array_equal(video.read(chosen), whole[chosen])


def test_frames_that_change_their_size_are_refused(tmp_path):
    for name, size in (("small", (48, 64)), ("large", (96, 128))):
        video_bytes.write(tmp_path / f"{name}.ts", "libx264", video_bytes.pictures(20, *size))
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "small.ts").read_bytes() + (tmp_path / "large.ts").read_bytes())
    with pytest.raises(
        ValueError, match=r"both.ts: the frames change from 64x48 to 128x96 pixels; rewrite the file at"
    ):
        _ = Video(path, damaged="use").extent
    with pytest.raises(DamagedVideo, match=r"both.ts: the file is damaged: packets are missing at byte \d+"):
        _ = Video(path).extent


@pytest.mark.parametrize("refresh", [5, 16, 33])
def test_intra_refresh(tmp_path, refresh):
    path = tmp_path / "refresh.mp4"
    params = f"intra-refresh=1:keyint={refresh}:bframes=0:ref=1"
    video_bytes.write(path, "libx264", video_bytes.pictures(120), options={"x264-params": params})
    whole, video = video_kinds.decoded(path), Video(path)
    for number in range(0, 120, 7):
        np.testing.assert_array_equal(video.read([number])[0], whole[number])


# -- as a person sees it -----------------------------------------------------------------------------------------------

TURNS = {
    (1, 0, 0, 1): (0, lambda f: f),
    (0, 1, -1, 0): (90, lambda f: np.rot90(f, -1)),
    (-1, 0, 0, -1): (180, lambda f: f[::-1, ::-1]),
    (0, -1, 1, 0): (270, lambda f: np.rot90(f, 1)),
    (-1, 0, 0, 1): (0, lambda f: f[:, ::-1]),
    (1, 0, 0, -1): (180, lambda f: f[::-1]),
    (0, 1, 1, 0): (270, lambda f: f.transpose(1, 0, 2)),
    (0, -1, -1, 0): (90, lambda f: f[::-1, ::-1].transpose(1, 0, 2)),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_frames_are_turned_as_the_file_says(tmp_path, matrix):
    degrees, upright = TURNS[matrix]
    path = tmp_path / "turned.mp4"
    video_bytes.turned(path, matrix)
    stored = video_kinds.decoded(path)
    shown = np.stack([upright(frame) for frame in stored])
    video = Video(path)
    assert video.rotation == degrees
    assert video.extent == shown.shape[:3]
    np.testing.assert_array_equal(video.read([30, 2, 2]), shown[[30, 2, 2]])
    lying = Video(path, rotate=False)
    assert (lying.extent, lying.rotation) == ((FRAMES, HEIGHT, WIDTH), degrees)
    np.testing.assert_array_equal(lying.read([30, 2, 2]), stored[[30, 2, 2]])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_frames_that_the_stream_turns(tmp_path, suffix):
    path = tmp_path / f"turned.{suffix}"
    video_bytes.turned_in_the_stream(path)
    stored = video_kinds.decoded(path)
    video = Video(path)
    assert (video.rotation, video.extent) == (270, (FRAMES, WIDTH, HEIGHT))
    np.testing.assert_array_equal(video.read([30, 0, 3]), np.rot90(stored[[30, 0, 3]], axes=(1, 2)))


def test_frames_turned_by_no_right_angle_are_refused(tmp_path):
    path = tmp_path / "turned.mp4"
    video_bytes.turned(path, (1, 1, -1, 1))
    with pytest.raises(ValueError, match=r"turned.mp4: the file says to turn its frames by 45 degrees.*rotate=False"):
        _ = Video(path).extent
    assert Video(path, rotate=False).extent == (FRAMES, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("kind", "rate", "constant"),
    [
        ("h264 mp4", 25, True),
        ("h264 mkv", 25, True),
        ("h264 avi", 25, True),
        ("h264 ts", 25, True),
        ("h264 mp4, variable rate", None, False),
        ("mjpeg avi, empty chunks", None, False),
        ("h264 mp4, a tick apart", None, False),
    ],
)
def test_rate_times_and_duration(kind, rate, constant, made):
    path, whole = made(kind)
    video = Video(path)
    with av.open(str(path)) as file:
        shown = [float(frame.pts * frame.time_base) for frame in file.decode(video=0)]
    if constant:
        assert video.rate == rate
        assert video.times is None
    else:
        np.testing.assert_allclose(video.times, np.subtract(shown, shown[0]), atol=1e-9)
        assert float(video.rate) == pytest.approx((len(whole) - 1) / (shown[-1] - shown[0]))
    assert video.duration == pytest.approx(len(whole) / float(video.rate))


# -- damage ------------------------------------------------------------------------------------------------------------


def concealed(data):
    """What the decoder makes of a file, whatever it says."""
    frames = []
    with av.open(io.BytesIO(data)) as file:
        stream = file.streams.best("video")
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        packets = file.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError, av.error.FFmpegError):
                return np.stack(frames)
            try:
                frames += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
            except av.error.FFmpegError:
                continue


SIZED = ("h264 mp4", "h264 mov", "h264 mkv", "vp9 webm", "mpeg4 avi", "mjpeg avi", "flv1 flv", "wmv2 wmv", "gif")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", SIZED)
def test_a_file_that_was_cut_short(kind, share, made, tmp_path):
    path, _ = made(kind)
    data = path.read_bytes()
    cut = tmp_path / f"cut{path.suffix}"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DamagedVideo, match=f"{cut.name}: .*(truncated|damaged).*leave it out"):
        Video(cut).read(range(Video(cut).extent[0]))


@pytest.mark.parametrize("kind", ["h264 mp4", "h264 mkv", "mpeg4 avi", "h264 ts", "mpeg2 ts", "hevc ts", "h264 m2ts"])
def test_bytes_missing_inside(kind, made, tmp_path):
    path, whole = made(kind)
    data = path.read_bytes()
    unit, low, high = (192, 24, 40) if "m2ts" in kind else (188, 20, 30)
    caught = 0
    for place in range(low, high):
        cut = tmp_path / f"cut{path.suffix}"
        cut.write_bytes(data[: place * unit] + data[(place + 1) * unit :])
        video = Video(cut)
        try:
            found = video.read(range(video.extent[0]))
        except DamagedVideo as error:
            caught += str(cut) in str(error)
        else:  # a packet that only filled
            np.testing.assert_array_equal(found, whole)
    assert caught


@pytest.mark.parametrize("kind", ["h264 mp4", "h264 mkv", "mpeg4 avi, B-frames", "mpeg2 mpg", "h264 ts", "vp9 webm"])
def test_flipped_bits_are_told_or_used(kind, made):
    data, told = made(kind)[0].read_bytes(), 0
    for at in range(len(data) // 4, len(data) * 3 // 5, len(data) // 40):
        damaged = bytearray(data)
        damaged[at] ^= 16
        damaged = bytes(damaged)
        used = Video(damaged, damaged="use")
        want = concealed(damaged)
        assert used.extent[0] == len(want)
        numbers = random.Random(at).sample(range(len(want)), 12)
        # Where a picture that others refer to is lost, the decoder may take what a buffer happens to hold.
        assert sum((a == b).all() for a, b in zip(used.read(numbers), want[numbers], strict=True)) >= 8
        try:
            Video(damaged).read(range(Video(damaged).extent[0]))
        except DamagedVideo as error:
            told += "copy the file again" in str(error)
    assert told or "vp9" in kind  # whose decoder takes anything for a picture


def test_damage_elsewhere_does_not_matter(made, tmp_path):
    path, whole = made("h264 mp4")
    with av.open(str(path)) as file:
        places = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    at, size = places[14]
    data[at + size // 2 : at + size] = b"\xff" * (size - size // 2)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    video = Video(damaged)
    np.testing.assert_array_equal(video.read([0, 5, 39]), whole[[0, 5, 39]])
    with pytest.raises(DamagedVideo, match=r"damaged.mp4: frame 1\d \(at 0.\d\d s\) .*: the file is damaged; copy"):
        video.read(range(12, 24))


def test_a_failure_is_remembered(made, tmp_path, monkeypatch):
    data = made("h264 ts")[0].read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(data[:5640] + data[5640 + 188 :])
    video = Video(path)
    with pytest.raises(DamagedVideo) as first:
        _ = video.extent
    path.unlink()
    for known in (video, pickle.loads(pickle.dumps(video))):
        with pytest.raises(DamagedVideo) as again:
            known.read([0])
        assert str(again.value) == str(first.value)


# -- threads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["h264 mp4", "h264 ts"])
def test_threads_share_a_file_that_is_held_open(kind, made):
    path, whole = made(kind)
    wrong = []

    def work(held, first):
        for n in range(40):
            number = (first + 7 * n) % FRAMES
            if not np.array_equal(held.read([number])[0], whole[number]):
                wrong.append(number)

    with Video(path).open() as held:
        threads = [threading.Thread(target=work, args=(held, first)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_packet_that_gives_no_picture_is_no_frame(suffix, tmp_path):
    """XviD writes "the same again" for a frame that equals the one before, and decoders give nothing for it."""
    plain, path = tmp_path / f"plain.{suffix}", tmp_path / f"same.{suffix}"
    video_bytes.write(plain, "mpeg4", gop_size=12)
    with av.open(str(plain)) as source, av.open(str(path), "w") as file:
        (stream,) = source.streams
        copy = file.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in source.demux(stream) if packet.size):
            kept = _same_again(packet) if number in (5, 17) else packet
            kept.stream = copy
            file.mux(kept)
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    with av.open(str(plain)) as file:
        assert len(frames) == sum(1 for _ in file.decode(video=0)) - 2
    video = Video(path)
    assert video.extent[0] == len(frames)
    order = np.random.default_rng(0).permutation(len(frames))
    assert all(np.array_equal(video.read([n])[0], frames[n]) for n in order)


def _same_again(packet):
    """Return an MPEG-4 packet of this time whose picture is not coded (ISO 14496-2, 6.2.5, of 25 ticks a second)."""
    data = bytes(packet)
    start = data.index(b"\0\0\1\xb6") + 4
    bits = "".join(f"{byte:08b}" for byte in data[start : start + 8])
    end = bits.index("0", 2) + 1 + 1 + 5 + 1  # whole seconds, a marker, the ticks, a marker
    bits = bits[:end] + "0" + "0"
    bits += "1" * (-len(bits) % 8)
    same = av.Packet(data[:start] + int(bits, 2).to_bytes(len(bits) // 8, "big"))
    same.pts, same.dts, same.time_base, same.duration = packet.pts, packet.dts, packet.time_base, packet.duration
    return same
