"""What is known of video files, saved and read again."""

import gzip
import json
import os
import pickle
import re

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is missing: indexes of videos are NOT tested; pip install pymultigrid[video]")

import av
import mp4
import video_bytes
import video_kinds

from pymultigrid import video
from pymultigrid._files import VideoFiles
from pymultigrid.video import DamagedVideo, _saved_index

KINDS = (
    "h264 mp4",
    "h264 mkv",
    "h264 mp4, variable rate",
    "h264 avi",
    "mjpeg avi, empty chunks",
    "h264 ts",
    "raw avi, palette",
)


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    paths = [video_kinds.make(kind, folder) for kind in KINDS]
    video_bytes.turned(folder / "turned.mp4", (0, 1, -1, 0))
    return [*paths, folder / "turned.mp4"]


@pytest.fixture
def probes(monkeypatch):
    """The names of files that are looked through from now on."""
    seen, probe = [], video.probe
    monkeypatch.setattr(video, "probe", lambda source, *a, **k: seen.append(source.name) or probe(source, *a, **k))
    return seen


def test_a_saved_index_is_what_looking_through_gives(paths, tmp_path, probes):
    place = tmp_path / "videos.index"
    plain = VideoFiles(paths, range(len(paths)))
    assert plain.save_index(place) == {}
    assert sorted(probes) == sorted(map(str, paths))
    probes.clear()
    known = pickle.loads(pickle.dumps(VideoFiles(paths, range(len(paths)), index=place)))
    for path, a, b in zip(paths, plain.videos, known.videos, strict=True):
        assert a._probed() == b._probed()
        assert (a.extent, a.rate, a.duration, a.rotation) == (b.extent, b.rate, b.duration, b.rotation)
        chosen = [7, 0, a.extent[0] - 1, 7]
        if "turned" not in path.name:
            np.testing.assert_array_equal(b.read(chosen), video_kinds.decoded(path)[chosen])
    assert not probes
    assert [entry.name for entry in tmp_path.iterdir() if "index" in entry.name] == ["videos.index"]


def test_files_that_changed_are_looked_through_again(paths, tmp_path, probes):
    place = tmp_path / "videos.index"
    VideoFiles(paths, range(len(paths))).save_index(place, workers=1)
    probes.clear()
    mp4.write(paths[0], frames=15)
    later = paths[1].stat().st_mtime_ns + 1
    os.utime(paths[1], ns=(later, later))
    known = VideoFiles(paths, range(len(paths)), index=place)
    assert known.videos[0].extent[0] == 15
    assert known.videos[1].extent[0] == known.videos[2].extent[0] == 40
    with known.videos[0].open() as held:
        assert held.extent[0] == 15
    assert probes == [str(paths[0]), str(paths[1])]


def test_files_and_index_may_be_moved_together(paths, tmp_path, probes):
    VideoFiles(paths, range(len(paths))).save_index(tmp_path / "videos" / "all.index")
    probes.clear()
    moved = (tmp_path / "videos").rename(tmp_path / "elsewhere")
    there = [moved / path.name for path in paths]
    known = VideoFiles([*there[1:], there[0]], range(len(paths)), index=moved / "all.index")  # in any order
    assert [v.extent[0] for v in known.videos] == [
        v.extent[0] for v in VideoFiles([*there[1:], there[0]], range(len(paths))).videos
    ]
    assert len(probes) == len(paths)


def test_damaged_files_are_known_too(paths, tmp_path, probes):
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    paths[1].write_bytes(b"no video" * 10)
    failures = VideoFiles(paths, range(len(paths))).save_index(tmp_path / "videos.index")
    assert list(failures) == [str(paths[0]), str(paths[1])]
    assert "truncated" in failures[str(paths[0])]
    probes.clear()
    known = VideoFiles(paths, range(len(paths)), index=tmp_path / "videos.index")
    with pytest.raises(DamagedVideo, match=re.escape(failures[str(paths[0])])):
        known.videos[0].read([0])
    with pytest.raises(DamagedVideo), known.videos[0].open():
        pass
    assert not probes
    paths[0].write_bytes(whole)
    assert VideoFiles(paths, range(len(paths)), index=tmp_path / "videos.index").videos[0].extent[0] == 40


def test_what_was_taken_as_it_is_is_no_index_of_whole_files(paths, tmp_path, probes):
    VideoFiles(paths, range(len(paths)), damaged="use").save_index(tmp_path / "videos.index")
    probes.clear()
    assert VideoFiles(paths, range(len(paths)), index=tmp_path / "videos.index").videos[0].extent[0] == 40
    assert len(probes) == 1
    used = VideoFiles(paths, range(len(paths)), damaged="use", index=tmp_path / "videos.index")
    assert used.videos[0].extent[0] == 40
    assert len(probes) == 1


def test_another_ffmpeg_counts_anew_where_it_decoded(paths, tmp_path, probes, monkeypatch):
    VideoFiles(paths, range(len(paths))).save_index(tmp_path / "videos.index")
    probes.clear()
    monkeypatch.setattr(_saved_index, "_ffmpeg", lambda: "99.0.0")
    for v in VideoFiles(paths, range(len(paths)), index=tmp_path / "videos.index").videos:
        _ = v.extent
    assert probes == [str(path) for path in paths if path.suffix in (".avi", ".ts")]


def test_an_index_that_is_none(paths, tmp_path):
    place = tmp_path / "videos.index"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{place}: there is no such index; write it once with")):
        VideoFiles(paths, range(len(paths)), index=place)
    VideoFiles(paths, range(len(paths))).save_index(place)
    good = place.read_bytes()
    for cut in (0, 5, len(good) // 2, len(good) - 4):
        place.write_bytes(good[:cut])
        with pytest.raises(ValueError, match=re.escape(f"{place}: the index is damaged") + ".*remove it, and write"):
            VideoFiles(paths, range(len(paths)), index=place)
    for at in range(20, len(good), 97):
        place.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ValueError, match=re.escape(f"{place}: the index is damaged")):
            VideoFiles(paths, range(len(paths)), index=place)
    place.write_bytes(gzip.compress(b'{"a": 1}\n'))
    with pytest.raises(ValueError, match=re.escape(f"{place}: the file is no index of videos; pass one that")):
        VideoFiles(paths, range(len(paths)), index=place)
    lines = gzip.decompress(good).splitlines()
    header = json.loads(lines[0]) | {"version": 2}
    place.write_bytes(gzip.compress(b"\n".join([json.dumps(header).encode(), *lines[1:]])))
    with pytest.raises(ValueError, match=re.escape(f"{place}: the index has version 2, and this pymultigrid reads 1")):
        VideoFiles(paths, range(len(paths)), index=place)


def test_the_format(paths, tmp_path):
    """What version 1 looks like: a change of it is a change of the version."""
    VideoFiles(paths, range(len(paths))).save_index(tmp_path / "videos.index")
    lines = [json.loads(line) for line in gzip.decompress((tmp_path / "videos.index").read_bytes()).splitlines()]
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    assert lines[0] == {"format": "pymultigrid index", "version": 1, "ffmpeg": ffmpeg, "use_damaged": False}
    found = paths[0].stat()
    common = {
        "height": 48,
        "width": 64,
        "rotation": 0,
        "mirrored": False,
        "even": True,
        "tick": "1/12800",
        "rate": "25",
    }
    times, keys = [0, 39 * 512 + 1, 512, "range"], [0, 37, 12, "range"]
    assert lines[1] == [
        "videos/h264-mp4.mp4",
        found.st_size,
        found.st_mtime_ns,
        {"how": "index", **common, "times": times, "keys": keys},
    ]
    counted = lines[1 + KINDS.index("h264 avi")][3]
    assert (counted["how"], len(counted["sums"]), counted["marks"][-1] is not None) == ("decoder", 40, True)


def test_writing_that_fails_leaves_what_was_there(paths, tmp_path, monkeypatch):
    place = tmp_path / "videos.index"
    files = VideoFiles(paths, range(len(paths)))
    files.save_index(place)
    before = place.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        files.save_index(place)
    assert place.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if "index" in entry.name] == ["videos.index"]


def test_what_is_saved_is_of_the_file_as_it_is_now(paths, tmp_path):
    """A file that was written anew since it was read, and one that is gone."""
    dataset = VideoFiles(paths, range(len(paths)))
    before = [video.extent[0] for video in dataset.videos]
    mp4.write(paths[0], frames=before[0] + 7)
    paths[1].unlink()
    failures = dataset.save_index(tmp_path / "videos.index")
    assert [str(path) for path in failures] == [str(paths[1])]
    known = VideoFiles([paths[0]], [0], index=tmp_path / "videos.index")
    assert known.videos[0].extent[0] == before[0] + 7
