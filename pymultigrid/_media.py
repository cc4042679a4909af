"""A media file as FFmpeg opens it: this file alone, by whitelist, and whatever is wrong with it names it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.error import FFmpegError

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,gif,ogg,mxf,dv,rm,nut,ivf,obu,"
    "mpegvideo,m4v,h264,hevc,mjpeg,yuv4mpegpipe,apng"
)
"""What is opened: formats that hold their pictures themselves. Playlists, SDP and image patterns name other files."""

_LOCAL = {"protocol_whitelist": "file", "format_whitelist": FORMATS}


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
            with av.open(file, options=_LOCAL, metadata_errors="replace") as container:
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

    def stamp(self) -> tuple[int, int] | None:
        """Return (size, time of change) by which a file that was written anew is told from the one that was known."""
        if self.data is not None:
            return None
        found = Path(self.name).stat()
        return found.st_size, found.st_mtime_ns

    def _stream(self, container: Any) -> Any:
        stream = container.streams.best("video")  # passes over cover art
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
        said = f"{self.name}: the file cannot be read as a video ({error.strerror})"
        if isinstance(error, av.error.ArgumentError):
            return ValueError(
                f"{said}: it is none of the formats that are read, which hold their pictures themselves (no playlists); "
                "rewrite it as mp4 or leave it out"
            )
        if isinstance(error, (OSError, MemoryError)):
            return type(error)(error.errno, f"{said}; the file itself can be opened: try again")
        return DamagedVideo(f"{said}: it is truncated, damaged or of another kind; copy it again or leave it out")


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
        yield from self.container.demux(self.stream)

    def seek(self, stamp: int) -> bool:
        """Go to where decoding of the frame of this time stamp should begin, or say that the file has no such way."""
        self.used = True
        try:
            self.container.seek(stamp, stream=self.stream)
        except FFmpegError:
            return False
        return True


# -- how long a file should be -----------------------------------------------------------------------------------------


_BOXES = b"ftyp moov mdat free wide skip styp moof sidx ssix mfra meta udta uuid emsg prft pnot".split()


def missing_bytes(source: Source) -> int:
    """Return how many bytes the file is shorter than its container's own sizes say; 0 where they say nothing.

    FFmpeg takes a file that ends early for one that ends there.
    """
    with source.bytes() as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        if head[:4] == b"RIFF":
            end = _end_of_riff(file, size)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            end = _end_of_matroska(file)
        elif head[4:8] in _BOXES:
            end = _end_of_boxes(file, size)
        else:
            end = 0
    return max(0, end - size)


def _end_of_riff(file: BinaryIO, size: int) -> int:
    """Return where the last RIFF chunk ends: long AVI files have several."""
    end = 0
    while end + 12 <= size:
        file.seek(end)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):
            break
        end += 8 + length + length % 2
    return end - 1 if end == size + 1 else end  # the last one's padding is often left out


def _end_of_matroska(file: BinaryIO) -> int:
    """Return where the segment ends, or 0 where it has no size, as live streams have none."""
    file.seek(4)
    header, _ = _variable_size(file)
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    length, unknown = _variable_size(file)
    return 0 if unknown else file.tell() + length


def _variable_size(file: BinaryIO) -> tuple[int, bool]:
    """Return a size of EBML, and whether it means "unknown": a number whose leading zeros tell its bytes."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, True
    more = 8 - first[0].bit_length()
    digits = bytes([first[0] & ((1 << (7 - more)) - 1)]) + file.read(more)
    value = int.from_bytes(digits, "big")
    return value, value == (1 << (7 * (more + 1))) - 1


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return where the last box of an mp4 ends; what is no box, behind the last, counts for nothing."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8 or head[4:8] not in _BOXES:
            break
        end += length
    return end
