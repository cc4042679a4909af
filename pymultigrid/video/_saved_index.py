"""What is known of many video files, saved, so that not every worker of every run looks through each of them.

A gzip file of lines of JSON, which ends with a checksum of its own. The first line says what it is, of which version,
and which FFmpeg looked; then there is one for each file: [its path from the index's folder, its size in bytes, its time
of change in ns, what is known]. A reader of another version refuses it; new keys of what is known may come to be.
"""

from __future__ import annotations

import gzip
import json
import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av

from pymultigrid.video import Video
from pymultigrid.video._index import FrameIndex
from pymultigrid.video._media import DamagedVideo

FORMAT, VERSION = "pymultigrid index", 1


def save_index(place: Path, videos: Sequence[Video], workers: int) -> dict[str, str]:
    """Look through these videos and write down what is known. Return which cannot be read, and why."""
    with ThreadPoolExecutor(workers) as pool:  # decoding lets other threads run
        found = list(pool.map(_known, videos))
    beside = place.with_name(f"{uuid.uuid4().hex}.tmp")  # a process's number is not its own on another machine
    try:
        with beside.open("wb") as file:
            with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, filename="", mtime=0) as lines:
                for line in _lines(place.parent, videos, found):
                    lines.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too
    finally:
        os.close(folder)
    return {
        video.path: str(what) for video, (_, what) in zip(videos, found, strict=True) if isinstance(what, Exception)
    }


def load_index(place: Path, videos: Sequence[Video]) -> None:
    """Let videos know what was saved of their files. Each compares its file with it when it is first read."""
    if not place.is_file():
        raise FileNotFoundError(
            f"{place}: there is no such index; write it once with dataset.save_index({str(place)!r})"
        )
    known: dict[str, Any] = {}
    try:
        with gzip.open(place, "rb") as file:
            header = json.loads(file.readline())
            _check(place, header)
            for line in file:
                name, size, changed, what = json.loads(line)
                known[name] = (size, changed), _read(header, what)
    except (OSError, EOFError, zlib.error, KeyError, TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, _OtherIndex):
            raise ValueError(str(error)) from None
        raise ValueError(
            f"{place}: the index is damaged ({type(error).__name__}); remove it, and write it again with "
            "dataset.save_index"
        ) from error
    for video in videos:
        stamp, what = known.get(_name(place.parent, video), (None, None))
        if what is not None and (video.damaged == "use") == header["use_damaged"]:
            video.known(stamp, what)


class _OtherIndex(ValueError):
    """A file that is no index, or one of another version."""


Known = tuple[tuple[int, int], FrameIndex | Exception]


def _known(video: Video) -> Known:
    try:
        return video.what_is_known()
    except OSError as error:
        return (0, 0), error


def _lines(folder: Path, videos: Sequence[Video], found: Sequence[Known]) -> Iterator[Any]:
    use = any(video.damaged == "use" for video in videos)
    yield {"format": FORMAT, "version": VERSION, "ffmpeg": _ffmpeg(), "use_damaged": use}
    for video, (stamp, what) in zip(videos, found, strict=True):
        if isinstance(what, FrameIndex):
            yield [_name(folder, video), *stamp, what.to_dict()]
        elif not isinstance(what, OSError):  # which says nothing of later
            yield [_name(folder, video), *stamp, {"error": str(what), "damaged": isinstance(what, DamagedVideo)}]


def _read(header: Any, what: Any) -> FrameIndex | ValueError | None:
    if "error" in what:
        return (DamagedVideo if what["damaged"] else ValueError)(what["error"])
    if what["how"] == "decoder" and header["ffmpeg"] != _ffmpeg():
        return None  # another decoder may give other pictures
    return FrameIndex.from_dict(what)


def _check(place: Path, header: Any) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _OtherIndex(f"{place}: the file is no index of videos; pass one that dataset.save_index wrote")
    if header["version"] != VERSION:
        raise _OtherIndex(
            f"{place}: the index has version {header['version']}, and this pymultigrid reads {VERSION}; write it again "
            "with dataset.save_index"
        )


def _name(folder: Path, video: Video) -> str:
    """Return a video's path from the index's folder: both may be moved together."""
    return os.path.relpath(video.path, folder)


def _ffmpeg() -> str:
    return ".".join(map(str, av.library_versions["libavcodec"]))
