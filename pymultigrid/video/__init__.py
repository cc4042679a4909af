"""Reading real video files: only the frames that a grid needs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pymultigrid import _arguments
from pymultigrid._core import Grid

try:
    import av  # noqa: F401
except ImportError as error:
    raise ImportError("pymultigrid.video needs PyAV, which is missing; pip install pymultigrid[video]") from error

from pymultigrid._at_rate import AtRate, read_clip
from pymultigrid.video._decoding import Decoding
from pymultigrid.video._index import FrameIndex
from pymultigrid.video._media import DamagedVideo, Media, Source
from pymultigrid.video._probe import probe

__all__ = ["AtRate", "DamagedVideo", "Video"]


@dataclass(slots=True)
class _Held:
    """A file that is held open, by one thread at a time: FFmpeg's contexts are not safe in two."""

    media: Media
    lock: Any


class Video:
    """A video file, read frame by frame number. Frame n is the n-th picture that decoding the whole file gives.

    Opening reads nothing; the first use looks through the file once, to count the frames and find out how to get at
    each. Where the container says when every packet is shown, as mp4 and mkv do, that takes no decoding; elsewhere the
    whole file is decoded, once. The object keeps numbers only (no open file), so it can be pickled, copied to workers
    and kept by the hundred thousand.

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
    >>> video.extent, float(video.rate), video.times
    ((40, 48, 64), 30.0, None)
    >>> video.read([30, 0, 30]).shape
    (3, 48, 64, 3)
    >>> video.clip(Grid(Axis(8, 32, 8), Axis(0, 48, 24), Axis(8, 48, 24)), dtype="float16").shape
    (3, 8, 24, 24)

    docs/video.md lists the kinds of file that are tested. A file is opened as a file, whatever its name, and never as a
    URL; formats that name other files (playlists, SDP) are refused. Where a file has several video streams FFmpeg
    chooses the best one. Pixels that are not square stay as they are stored.

    Parameters
    ----------
    path
        The file, or its bytes, as an archive or a stream holds them.
    rotate
        Turn and mirror frames as the file says they are to be shown. `extent` is of the turned frame.
    damaged
        ``"error"``: frames that the decoder marks as corrupt, or a file that is shorter than it says, are an error.
        ``"use"`` takes the pictures that decoding the whole file gives, whatever they are; it decodes all of it once.

    Raises
    ------
    FileNotFoundError, PermissionError, OSError
        There is no such file, it may not be read, or too many are open.
    DamagedVideo
        A ValueError: the file is truncated or damaged. The message names it and the place. Raised when it is first read
        or, where only some frames are damaged, when these are read.
    ValueError
        The file has no video stream, a codec that no decoder is there for, or is of a kind that is not read.
    """

    __slots__ = ("_bytes", "_failure", "_held", "_index", "_looked", "_stamp", "damaged", "path", "rotate")

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes,
        *,
        rotate: bool = True,
        damaged: Literal["error", "use"] = "error",
    ) -> None:
        if damaged not in ("error", "use"):
            raise ValueError(f'damaged ({damaged!r}) must be "error" or "use"')
        _arguments.flag("rotate", rotate)
        self._bytes = path if isinstance(path, bytes) else None
        self.path = f"<{len(path)} bytes>" if isinstance(path, bytes) else os.fspath(path)
        self.rotate = rotate
        self.damaged = damaged
        self._index: FrameIndex | None = None
        self._failure: ValueError | None = None  # looking through the file failed, and would again
        self._looked: tuple[int, int] | None = None  # the file's stamp when it was looked through
        self._stamp: tuple[int, int] | None = None  # of the file that what is known was saved of, until it is compared
        self._held: _Held | None = None

    def __repr__(self) -> str:
        return f"Video({self.path!r})"

    def __getstate__(self) -> tuple[Any, ...]:
        failure = self._failure and (type(self._failure), str(self._failure))
        return self._bytes, self.path, self.rotate, self.damaged, self._index, self._looked, self._stamp, failure

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._bytes, self.path, self.rotate, self.damaged, self._index, self._looked, self._stamp, failure = state
        self._failure = failure and failure[0](failure[1])
        self._held = None

    @property
    def extent(self) -> tuple[int, int, int]:
        """Frames, height and width in pixels, as the frames are read."""
        index = self._probed()
        size = index.height, index.width
        height, width = size[::-1] if self._turned(index) in (90, 270) else size
        return len(index.times), height, width

    @property
    def rate(self) -> Fraction:
        """Frames per second: their mean, where it varies."""
        return self._probed().rate

    @property
    def times(self) -> NDArray[np.float64] | None:
        """When each frame is shown, in seconds from the first one; None where all are shown equally long."""
        index = self._probed()
        if index.even:
            return None
        return np.asarray(np.subtract(index.times, index.times[0]) * float(index.tick), np.float64)

    @property
    def duration(self) -> float:
        """Seconds: frames / rate."""
        index = self._probed()
        return float(len(index.times) / index.rate)

    @property
    def rotation(self) -> int:
        """Degrees clockwise by which the file says to turn its frames, whether they are (``rotate=True``) or not."""
        return self._probed().rotation

    def shown(self, seconds: Sequence[float | Fraction]) -> list[int]:
        """Return which frame is shown at each of these times, in seconds from the first one.

        That is the last one whose time has come, to half a tick of the container's clock.
        """
        return self._probed().shown(seconds)

    @contextmanager
    def open(self) -> Iterator[Video]:
        """Give this video with its file held open, so that asking for the extent and then for frames opens it once.

        ``with video.open() as file: clip = file.clip(step.grid(file.extent, seed=0, sample=17))``

        Threads may share it: they read one after the other.
        """
        held = Video.__new__(Video)
        with ExitStack() as stack:
            with self._remembering():
                media = stack.enter_context(self._source().open())
            held.__setstate__(self.__getstate__())
            held._held = _Held(media, threading.RLock())
            try:
                yield held
            finally:
                self._index, self._failure, self._looked = held._index, held._failure, held._looked
                held._held = None

    def read(self, frames: Sequence[int]) -> NDArray[np.uint8]:
        """Decode the frames of these numbers, in any order, repeats allowed: uint8 RGB, len(frames) x H x W x 3.

        Decoding goes from one wanted frame to the next, over a key frame where that is shorter; frames in between that
        nothing else refers to are not decoded, and only wanted ones are converted to RGB.
        """
        index = self._probed()
        extent = self.extent
        places: dict[int, list[int]] = {}
        for place, frame in enumerate(frames):
            if not 0 <= frame < extent[0]:
                raise ValueError(
                    f"{self.path}: frame {frame} does not exist; the video has the frames 0 to {extent[0] - 1} "
                    "(grid.frames(video.extent[0]) stays inside)"
                )
            places.setdefault(int(frame), []).append(place)
        out = np.empty((len(frames), *extent[1:], 3), np.uint8)
        if not places:
            return out
        turns, mirrored = -self._turned(index) // 90, self.rotate and index.mirrored
        with self._reading() as media:
            decoding = Decoding(self._source(), index, use_damaged=self.damaged == "use")
            for number, pixels in decoding.frames(media, sorted(places)):
                if turns or mirrored:
                    pixels = np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
                for place in places[number]:
                    out[place] = pixels
        if decoding.misled is not None:
            self._index = index.without(decoding.misled)
        return out

    def clip(self, grid: Grid, **options: Any) -> Any:
        """Read the clip on `grid`: `pymultigrid.resample` of the video, decoding only the frames that the grid picks.

        `options` are those of `pymultigrid.resample`; ``temporal="linear"`` needs more than the picked frames and is
        refused. The result is C x T x H x W unless ``layout`` says otherwise.
        """
        return read_clip(self, grid, options)

    # -- the file ------------------------------------------------------------------------------------------------------

    def _source(self) -> Source:
        return Source(self.path, self._bytes)

    def _turned(self, index: FrameIndex) -> int:
        """Return by how many degrees frames are turned when they are read."""
        if self.rotate and index.rotation % 90:
            raise ValueError(
                f"{self.path}: the file says to turn its frames by {index.rotation} degrees, and right angles are what "
                "can be done without resampling; pass rotate=False to read them as they are stored"
            )
        return index.rotation if self.rotate else 0

    def known(self, stamp: tuple[int, int], what: FrameIndex | ValueError) -> None:
        """Take what was found out before about the file, if it still has this stamp when it is read."""
        self._stamp = stamp
        self._index, self._failure = (what, None) if isinstance(what, FrameIndex) else (None, what)

    def what_is_known(self) -> tuple[tuple[int, int], FrameIndex | ValueError]:
        """Return what `known` takes, of the file as it is now."""
        for _ in range(2):
            try:
                what: FrameIndex | ValueError = self._probed()
            except ValueError as error:
                what = error
            if self._looked == self._source().stamp():
                break
            self._index = self._failure = None  # it was written anew since it was looked through
        return self._looked or (0, 0), what

    def _probed(self) -> FrameIndex:
        with self._remembering():
            if self._index is None:
                self._looked = self._source().stamp()
                with self._reading() as media:
                    if self._index is None:  # else another thread was first
                        self._index = probe(self._source(), media, use_damaged=self.damaged == "use")
            return self._index

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """Refuse at once a file that was found to be bad, and keep in mind one that is."""
        if self._stamp is not None:
            self._looked, same, self._stamp = self._stamp, self._source().stamp() == self._stamp, None
            if not same:
                self._index = self._failure = None
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))
        try:
            yield
        except ValueError as error:
            self._failure = error.with_traceback(None)
            raise

    @contextmanager
    def _reading(self) -> Iterator[Media]:
        held = self._held
        source = self._source()
        opening = nullcontext(held.media) if held else source.open()
        with held.lock if held else nullcontext(), opening as media, source.named():
            yield media
