"""A media file as FFmpeg opens it: this file alone, by whitelist, and whatever is wrong with it names it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.error import FFmpegError

from pymultigrid.video._whole import missing_bytes

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,gif,ogg,mxf,dv,rm,nut,ivf,obu,"
    "mpegvideo,m4v,h264,hevc,mjpeg,yuv4mpegpipe,apng"
)
"""What is opened: formats that hold their pictures themselves. Playlists, SDP and image patterns name other files."""

_LOCAL = {"protocol_whitelist": "file", "format_whitelist": FORMATS}


OFFER = (
    'copy the file again or leave it out. damaged="use" takes what the decoder makes of it; in a data set '
    'damaged="skip" draws other videos in its place, and a run goes on with it from its checkpoint'
)
"""What can be done about a damaged file."""


class DamagedVideo(ValueError):
    """A video that is truncated or damaged: what it holds is not what was recorded."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file's bytes are: under a path, or in memory."""

    name: str  # the path, or what stands for it in messages
    data: bytes | None = None

    @contextmanager
    def open(self) -> Iterator[Media]:
        """Open the file, and turn whatever FFmpeg has to say about it into an error that names it."""
        with self.named():
            # The prefix keeps a name with a colon from being taken for a URL.
            file = f"file:{self.name}" if self.data is None else BytesIO(self.data)
            with av.open(file, container_options=_LOCAL, metadata_errors="replace") as container:
                yield Media(container, self._stream(container))

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let no error of FFmpeg's out that does not name the file."""
        try:
            yield
        except FFmpegError as error:
            raise self._explained(error) from error

    def bytes(self) -> BinaryIO:
        """Open the bytes themselves."""
        return BytesIO(self.data) if self.data is not None else Path(self.name).open("rb")

    def check_whole(self) -> None:
        """Refuse a file that is shorter than its container's own sizes say: FFmpeg takes it for one that ends there."""
        with self.bytes() as file:
            missing = missing_bytes(file)
        if missing:
            raise DamagedVideo(
                f"{self.name}: the file is truncated: at least {missing} bytes are missing at its end or inside, by "
                f"its own sizes; {OFFER}"
            )

    def stamp(self) -> tuple[int, int] | None:
        """Return (size, time of change) by which a file that was written anew is told from the one that was known."""
        if self.data is not None:
            return None
        try:
            found = Path(self.name).stat()
        except OSError as cause:
            raise _of_the_system(self.name, cause) from None
        return found.st_size, found.st_mtime_ns

    def _stream(self, container: Any) -> Any:
        stream = container.streams.best("video")  # passes over cover art
        if stream is None or stream.codec_context is None:
            self.check_whole()
        if stream is None:
            raise ValueError(f"{self.name}: the file has no video stream; leave it out")
        if stream.codec_context is None:
            raise ValueError(
                f"{self.name}: no decoder for its video codec is in this FFmpeg (PyAV {av.__version__}); rewrite the "
                "file with another codec or leave it out"
            )
        # Parallelism is over clips, not inside one: frame threads only delay a short read.
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        return stream

    def _explained(self, error: FFmpegError) -> Exception:
        try:
            self.bytes().close()
        except OSError as cause:
            return _of_the_system(self.name, cause)
        try:
            self.check_whole()
        except DamagedVideo as damage:
            return damage
        said = f"{self.name}: the file cannot be read as a video ({error.strerror})"
        if error.errno == errno.EINVAL:
            return ValueError(
                f"{said}: it is none of the formats that are read, which hold their pictures themselves (no "
                "playlists); rewrite it as mp4 or leave it out"
            )
        if isinstance(error, MemoryError):
            return MemoryError(f"{said}: there is too little memory")
        if isinstance(error, OSError):
            return OSError(error.errno or 0, f"{said}; the file itself can be opened: try again")
        return DamagedVideo(f"{said}: it is truncated, damaged or of another kind; {OFFER}")


def _of_the_system(name: str, cause: OSError) -> Exception:
    """Return an error of the operating system with what to do about it."""
    if isinstance(cause, FileNotFoundError):
        return FileNotFoundError(f"{name}: there is no such file; check the path")
    if isinstance(cause, IsADirectoryError):
        return ValueError(f"{name}: it is a folder, not a video; VideoDataset.from_folder takes one")
    if isinstance(cause, PermissionError):
        return PermissionError(f"{name}: there is no permission to read the file; ask for it, or leave the file out")
    if cause.errno in (errno.EMFILE, errno.ENFILE):
        return OSError(
            cause.errno,
            f"{name}: too many files are open in this process, or on this machine; close some, use fewer workers or "
            "raise the limit (ulimit -n)",
        )
    return OSError(cause.errno, f"{name}: {cause.strerror}")


class Media:
    """An open file and its video stream."""

    __slots__ = ("container", "stream", "used")

    def __init__(self, container: Any, stream: Any) -> None:
        self.container = container
        self.stream = stream
        self.used = False  # once it was, it does not begin as a fresh one does

    @property
    def format(self) -> str:
        """FFmpeg's name, the first where there are several."""
        return str(self.container.format.name).split(",", maxsplit=1)[0]

    @property
    def codec(self) -> str:
        """The decoder's name."""
        return str(self.stream.codec_context.name)

    def packets(self) -> Iterator[Any]:
        """Yield the stream's packets from where the file is; the last, empty one asks the decoder for what it holds."""
        self.used = True
        try:
            yield from self.container.demux(self.stream)
        except IndexError:
            return  # PyAV, of streams that turn up inside of the file; ours has given its last packet

    def seek(self, stamp: int) -> bool:
        """Go to where decoding of the frame of this time stamp should begin, or say that the file has no such way."""
        self.used = True
        try:
            self.container.seek(stamp, stream=self.stream)
        except FFmpegError:
            return False
        return True
