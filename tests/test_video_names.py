"""Which files are opened, and what is said of those that are not."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is missing: opening videos is NOT tested; pip install pymultigrid[video]")

import av
import mp4
import video_kinds

from pymultigrid.video import DamagedVideo, Video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return mp4.write(tmp_path_factory.mktemp("names") / "clip.mp4", frames=12)


@pytest.mark.parametrize(
    "name",
    ["2021-03-04T10:20:30.mp4", "http:a.mp4", "concat:a.mp4|b.mp4", "file:a.mp4", "%03d.mp4", "-i.mp4", "a b'.mp4"],
)
def test_a_path_is_never_a_url(clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(clip.read_bytes())
    for path in (name, tmp_path / name):
        np.testing.assert_array_equal(Video(path).read([7, 2]), mp4.decode(clip)[[7, 2]])
    with pytest.raises(FileNotFoundError, match=re.escape("http://127.0.0.1/a.mp4: there is no such file")):
        _ = Video("http://127.0.0.1/a.mp4").extent


def test_a_name_that_is_no_utf_8(clip, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    path.write_bytes(clip.read_bytes())
    assert Video(path).extent[0] == 12


SDP = (
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.sdp", SDP),
        ("a.mp4", SDP),
        ("a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n"),
        ("a.ts", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n"),
        ("a.ffconcat", b"ffconcat version 1.0\nfile {clip}\n"),
        ("a.mpd", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>'),
    ],
)
def test_a_file_that_names_others_is_refused(clip, tmp_path, name, text):
    path = tmp_path / name
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    path.write_bytes(text.replace(b"{clip}", b"clip.mp4"))
    for video in (Video(path), Video(path.read_bytes())):
        with pytest.raises(ValueError, match=re.escape(f"{video.path}: the file cannot be read as a video")):
            _ = video.extent


def test_a_codec_that_nobody_decodes(clip, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip.read_bytes().replace(b"avc1\0\0\0\0\0\0\0\1", b"xyz9\0\0\0\0\0\0\0\1"))
    with pytest.raises(ValueError, match=re.escape(f"{path}: no decoder for its video codec")) as caught:
        _ = Video(path).extent
    assert not isinstance(caught.value, DamagedVideo)


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are NOT tested here")
@pytest.mark.parametrize("first", ["Video(path).extent", "None"])
def test_too_many_open_files(clip, first):
    code = f"""
import os, resource, sys
from pymultigrid.video import Video
path = sys.argv[1]
{first}
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
kept, video = [], Video(path)
try:
    while True:
        kept.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
try:
    video.extent
except OSError as error:
    assert f"{{path}}: too many files are open" in str(error), error
else:
    raise AssertionError("read")
os.close(kept.pop()), os.close(kept.pop())
assert video.extent[0] == 12  # it is not taken for a bad file
"""
    done = subprocess.run([sys.executable, "-c", code, str(clip)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="giving rights away is NOT tested: not root")
def test_no_permission(clip, tmp_path):
    # As nobody, in a process of its own; imports come first, as the interpreter may lie where nobody may read.
    path = tmp_path / "a.mp4"
    path.write_bytes(clip.read_bytes())
    path.chmod(0o600)
    code = """
import os, sys
from pymultigrid.video import Video
Video(sys.argv[2]).extent
os.setuid(65534)
try:
    Video(sys.argv[1]).extent
except PermissionError as error:
    assert "no permission" in str(error), error
else:
    raise AssertionError("read")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(clip)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# -- what it may cost --------------------------------------------------------------------------------------------------


def grown(code, *arguments):
    """Megabytes by which a process grows in `code`, in which `path` is the first argument."""
    measured = f"""
import resource, sys
from pymultigrid.video import Video
path = sys.argv[1]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{code}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", measured, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_counting_frames_does_not_keep_their_bytes(tmp_path):
    path = tmp_path / "large.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=30, width=640, height=480, pix_fmt="yuvj420p")
        stream.codec_context.qmin = stream.codec_context.qmax = 1
        noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
        picture = bytes((stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")) + stream.encode())[0])
        for number in range((96 << 20) // len(picture)):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number, number, True
            packet.time_base = stream.codec_context.time_base
            out.mux(packet)
    assert grown("Video(path).extent", path) < 40


def test_frames_a_tick_apart_do_not_make_a_list_of_ticks(tmp_path):
    path = video_kinds.make("h264 mp4, a tick apart", tmp_path)
    assert grown("assert Video(path).extent[0] == 40", path) < 40


def test_a_header_that_promises_millions_of_frames(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    at = data.index(b"stsz") + 4
    data[at + 4 : at + 8] = (1).to_bytes(4, "big")  # all samples have one byte,
    data[at + 8 : at + 12] = (20_000_000).to_bytes(4, "big")  # and there are so many
    path = tmp_path / "promises.mp4"
    path.write_bytes(data)
    code = """
import time
video = Video(path)
for _ in range(2):
    start = time.process_time()
    try:
        video.extent
    except ValueError as error:
        assert path in str(error)
    else:
        raise AssertionError("read")
assert time.process_time() - start < 0.01  # it is not tried again
"""
    assert grown(code, path) < 2000
