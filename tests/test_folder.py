"""Which files of a folder are a data set."""

import re
import warnings
from pathlib import Path

import pytest

pytest.importorskip("av", reason="PyAV is missing: folders of videos are NOT tested; pip install pymultigrid[video]")

from pymultigrid._files import VideoFiles
from pymultigrid._folder import SUFFIXES


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def found(files, root):
    return [str(video.path).removeprefix(f"{root}/") for video in files.videos]


def test_folders_in_folders(tmp_path):
    names = ["eel/b/2.MKV", "eel/b/c/1.ts", "eel/a.mp4", "cat/1.webm"]
    write(tmp_path, *names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = VideoFiles.from_folder(tmp_path)
    assert found(files, tmp_path) == ["cat/1.webm", "eel/a.mp4", "eel/b/2.MKV", "eel/b/c/1.ts"]
    assert (list(files.labels), files.classes) == ([0, 1, 1, 1], ("cat", "eel"))


def test_every_suffix(tmp_path):
    write(tmp_path, *(f"cat/1{suffix}" for suffix in SUFFIXES), *(f"cat/2{suffix.upper()}" for suffix in SUFFIXES))
    assert len(VideoFiles.from_folder(tmp_path)) == 2 * len(SUFFIXES)
    known = "mp4 mov mkv webm avi ts m2ts mpg vob flv 3gp gif wmv mpeg m4v mts"
    assert {f".{suffix}" for suffix in known.split()} <= set(SUFFIXES)


def test_hidden_files_are_none(tmp_path):
    write(tmp_path, "cat/1.mp4", "cat/._1.mp4", "cat/.trash/2.mp4", ".hidden/3.mp4", "cat/.DS_Store", ".index.mp4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(VideoFiles.from_folder(tmp_path), tmp_path) == ["cat/1.mp4"]


def test_what_is_left_out_is_said(tmp_path):
    write(tmp_path, "cat/1.mp4", "cat/day2/notes.txt", "cat/2.xyz", "cat/3.xyz", "readme", "loose.mp4")
    with pytest.warns(RuntimeWarning, match="5 files are no videos of a class and were left out") as told:
        files = VideoFiles.from_folder(tmp_path)
    assert found(files, tmp_path) == ["cat/1.mp4"]
    assert len(told) == 1
    said = str(told[0].message)
    assert re.search(r"\(2 .xyz, 1 .mp4, 1 no suffix, 1 .txt\): loose.mp4, readme, cat/2.xyz, \.\.\.; videos are", said)
    assert told[0].filename == __file__


def test_links_are_followed_and_end(tmp_path):
    write(tmp_path, "data/1.mp4", "set/cat/2.mp4")
    (tmp_path / "set/cat/more").symlink_to(tmp_path / "data")
    (tmp_path / "set/cat/round").symlink_to(tmp_path / "set/cat")
    (tmp_path / "set/eel").symlink_to(tmp_path / "data")
    files = VideoFiles.from_folder(tmp_path / "set")
    assert found(files, tmp_path) == ["set/cat/2.mp4", "set/cat/more/1.mp4", "set/eel/1.mp4"]


def test_each_folder_is_looked_into_once(tmp_path):
    """A link to the top makes no video of one class another's, and links among folders do not multiply them."""
    write(tmp_path, "cat/1.mp4", "dog/2.mp4", "dog/a/3.mp4", "dog/b/4.mp4")
    (tmp_path / "cat/top").symlink_to(tmp_path)
    (tmp_path / "dog/a/b").symlink_to(tmp_path / "dog/b")
    (tmp_path / "dog/b/a").symlink_to(tmp_path / "dog/a")
    files = VideoFiles.from_folder(tmp_path)
    assert sorted(Path(video.path).name for video in files.videos) == ["1.mp4", "2.mp4", "3.mp4", "4.mp4"]
    assert list(files.labels) == [0, 1, 1, 1]
