"""Reading real video files: only the frames that a grid needs."""

from __future__ import annotations

import copy
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymultigrid._core import Grid
from pymultigrid._resample import resample
from pymultigrid._views import picked

try:
    import av
    from av.error import FFmpegError
    from av.video.reformatter import VideoReformatter
except ImportError as error:
    raise ImportError("pymultigrid.video needs PyAV, which is missing; pip install pymultigrid[video]") from error

# PyAV 17 converts colours on every core unless told; before, it had no such argument.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
# Going to a key frame costs about as much as decoding a few frames: seek only where it saves more than these.
_SEEK_SAVES = 8


@dataclass(frozen=True, slots=True)
class _Index:
    """Where the frames are. Frame n, in the order of presentation, has the time stamp times[n]."""

    times: Sequence[int]  # rising; a range where the frame rate is constant, which costs no memory
    keys: tuple[int, ...]  # the frame numbers that decoding can start at; the first is 0
    height: int
    width: int


class Video:
    """A video file, read frame by frame number.

    Opening reads nothing; the first use of `extent` or `read` walks over the file's packets once, without decoding, to
    count the frames and find the key frames. The object keeps numbers only (no open file), so it can be pickled, copied
    to workers and kept by the hundred thousand.

    >>> import av, numpy, tempfile
    >>> path = tempfile.mkdtemp() + "/grey.mp4"
    >>> with av.open(path, "w") as file:
    ...     stream = file.add_stream("libx264", rate=30, width=64, height=48)
    ...     for level in range(40):
    ...         file.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.full((48, 64, 3), level, "uint8"))))
    ...     file.mux(stream.encode())
    >>> from pymultigrid import Axis, Grid
    >>> from pymultigrid.video import Video
    >>> video = Video(path)
    >>> video.extent
    (40, 48, 64)
    >>> video.read([30, 0, 30]).shape
    (3, 48, 64, 3)
    >>> video.clip(Grid(Axis(8, 32, 8), Axis(0, 48, 24), Axis(8, 48, 24)), dtype="float16").shape
    (3, 8, 24, 24)

    Any container and codec that PyAV's FFmpeg decodes will do; H.264 in mp4 is what is tested. Frames are numbered in
    the order of presentation, whatever their time stamps. A rotation noted in the file is not applied.

    Parameters
    ----------
    path
        The file, or its bytes, as an archive or a stream holds them.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no video, has no video stream, is truncated or cannot be decoded; the message names it. Raised when
        it is first read.
    """

    __slots__ = ("_bytes", "_file", "_index", "path")

    def __init__(self, path: str | os.PathLike[str] | bytes) -> None:
        self._bytes = path if isinstance(path, bytes) else None
        self.path = f"<{len(path)} bytes>" if isinstance(path, bytes) else os.fspath(path)
        self._index: _Index | None = None
        self._file: tuple[Any, Any] | None = None  # while it is held open

    def __repr__(self) -> str:
        return f"Video({self.path!r})"

    @property
    def extent(self) -> tuple[int, int, int]:
        """Frames, height and width in pixels."""
        index = self._probed()
        return len(index.times), index.height, index.width

    @contextmanager
    def open(self) -> Iterator[Video]:
        """Give this video with its file held open, so that asking for the extent and then for frames opens it once.

        ``with video.open() as file: clip = file.clip(step.grid(file.extent, seed=0, sample=17))``
        """
        held = copy.copy(self)
        with self._opened() as held._file:
            try:
                yield held
            finally:
                self._index = held._index

    def read(self, frames: Sequence[int]) -> NDArray[np.uint8]:
        """Decode the frames of these numbers, in any order, repeats allowed: uint8 RGB, len(frames) x H x W x 3.

        Decoding goes from one wanted frame to the next, over a key frame where that is shorter; frames in between that
        nothing else refers to are not decoded, and only wanted ones are converted to RGB.
        """
        index = self._probed()
        count = len(index.times)
        places: dict[int, list[int]] = {}
        for place, frame in enumerate(frames):
            if not 0 <= frame < count:
                raise ValueError(
                    f"{self.path}: frame {frame} does not exist; the video has the frames 0 to {count - 1} "
                    "(grid.frames(video.extent[0]) stays inside)"
                )
            places.setdefault(int(frame), []).append(place)
        out = np.empty((len(frames), index.height, index.width, 3), np.uint8)
        if not places:
            return out
        with self._reading() as (container, stream):
            convert = VideoReformatter()
            for start, run in _runs(index.keys, sorted(places)):
                for number, frame in self._decoded(container, stream, index, start, run):
                    out[places[number]] = convert.reformat(frame, format="rgb24", **_ONE_THREAD).to_ndarray()
        return out

    def clip(self, grid: Grid, **options: Any) -> Any:
        """Read the clip on `grid`: `pymultigrid.resample` of the video, decoding only the frames that the grid picks.

        `options` are those of `pymultigrid.resample`; ``temporal="linear"`` needs more than the picked frames and is
        refused. The result is C x T x H x W unless ``layout`` says otherwise.
        """
        if options.get("temporal", "nearest") != "nearest":
            raise ValueError(
                f'temporal ({options["temporal"]!r}) must be "nearest" here: a clip reads only the frames that the '
                "grid picks; resample(video.read(range(...)), grid, temporal=...) blends"
            )
        frames, _, _ = self.extent
        return resample(self.read(grid.frames(frames)), picked(grid), **options)

    # -- the file ------------------------------------------------------------------------------------------------------

    def _probed(self) -> _Index:
        if self._index is None:
            self._index = self._probe()
        return self._index

    def _probe(self) -> _Index:
        with self._reading() as (container, stream):
            packets = [p for p in container.demux(stream) if p.size]
            if any(p.is_corrupt for p in packets) or len(packets) < stream.frames:
                raise ValueError(
                    f"{self.path}: the video is truncated: its header promises {stream.frames} frames and "
                    f"{sum(not p.is_corrupt for p in packets)} are there; copy the file again or leave it out"
                )
            shown = [p for p in packets if not p.is_discard]
            height, width = stream.codec_context.height, stream.codec_context.width
        if not shown:
            raise ValueError(f"{self.path}: the video has no frames; leave it out")
        stamps = [p.pts for p in shown]
        keys: tuple[int, ...] = (0,)
        if None in stamps or len(set(stamps)) < len(stamps):
            # Old containers do not say when a frame is shown: the decoder does.
            stamps = self._decoded_stamps()
        else:
            number = {stamp: n for n, stamp in enumerate(sorted(stamps))}
            keys = tuple(sorted({0, *(number[p.pts] for p in shown if p.is_keyframe)}))
        return _Index(_compact(sorted(stamps)), keys, height, width)

    def _decoded_stamps(self) -> list[int]:
        with self._opened() as (container, stream):
            stamps = [frame.pts for frame in container.decode(stream)]
        if None in stamps or len(set(stamps)) < len(stamps):
            raise ValueError(
                f"{self.path}: its frames have no time stamps to find them by; "
                f"rewrite it once: ffmpeg -i {Path(self.path).name} -c:v libx264 out.mp4"
            )
        return stamps

    def _reading(self) -> AbstractContextManager[tuple[Any, Any]]:
        return self._opened() if self._file is None else nullcontext(self._file)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the file, and turn whatever FFmpeg has to say about it into an error that names it."""
        try:
            with av.open(self.path if self._bytes is None else BytesIO(self._bytes)) as container:
                if not container.streams.video:
                    raise ValueError(f"{self.path}: the file has no video stream; leave it out")
                stream = container.streams.video[0]
                # Parallelism is over clips, not inside one: frame threads only delay a short read.
                stream.thread_type = "NONE"
                stream.codec_context.thread_count = 1
                yield container, stream
        except FFmpegError as error:
            if self._bytes is None and not Path(self.path).exists():
                raise FileNotFoundError(f"{self.path}: there is no such file; check the path") from None
            raise ValueError(
                f"{self.path}: the file cannot be read as a video ({error.strerror}): it is truncated, damaged or of "
                "another kind; copy it again or leave it out"
            ) from error

    def _decoded(
        self, container: Any, stream: Any, index: _Index, start: int, run: Sequence[int]
    ) -> Iterator[tuple[int, Any]]:
        """Decode from the key frame `start` on, and give every frame of `run` with its number."""
        missing = {index.times[number]: number for number in run}
        # Where a seek lands is the container's affair; should it be behind a frame, decode from the beginning.
        for key in dict.fromkeys((start, 0)):
            container.seek(index.times[key], stream=stream)
            for frame in _decode(container, stream, missing):
                if frame.pts not in missing:
                    continue
                if (frame.height, frame.width) != (index.height, index.width):
                    raise ValueError(
                        f"{self.path}: the frames change from {index.width}x{index.height} to "
                        f"{frame.width}x{frame.height} pixels; rewrite the file at one size"
                    )
                yield missing.pop(frame.pts), frame
                if not missing:
                    return
        raise ValueError(
            f"{self.path}: frame {min(missing.values())} cannot be decoded: the file is damaged; copy it again or "
            "leave it out"
        )


def _runs(keys: Sequence[int], frames: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Divide rising frame numbers into runs that are decoded in one go, each with the key frame that it starts at."""
    start, run = keys[bisect_right(keys, frames[0]) - 1], list[int]()
    for frame in frames:
        key = keys[bisect_right(keys, frame) - 1]
        if run and key - run[-1] > _SEEK_SAVES:
            yield start, run
            start, run = key, []
        run.append(frame)
    yield start, run


def _decode(container: Any, stream: Any, wanted: Mapping[int, object]) -> Iterator[Any]:
    """Decode the frames of the time stamps `wanted`, and those that others refer to."""
    codec = stream.codec_context
    for packet in container.demux(stream):
        # The empty packet at the end asks for what the decoder still holds.
        codec.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
        yield from packet.decode()


def _compact(times: list[int]) -> Sequence[int]:
    """Return rising numbers as a range where they are one."""
    if len(times) < 2:
        return times
    steps = range(times[0], times[-1] + 1, times[1] - times[0])
    return steps if list(steps) == times else times
