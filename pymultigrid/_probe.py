"""Looking through a video file once: by its packets where they can be trusted, else by decoding all of it."""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pymultigrid._index import FrameIndex, compact, pace
from pymultigrid._media import DamagedVideo, Media, Source, missing_bytes

# PyAV 17 converts colours on every core unless told; before, it had no such argument.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}

# Where a packet says when its picture is shown, and where one packet is one picture: (format, decoder). AVI has no such
# times, streams lack some, and seeking in streams goes by another clock.
_FORMATS = ("mov", "matroska")
_CODECS = (
    *("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libaom-av1", "mpeg4", "h263", "mpeg1video", "mpeg2video"),
    *("mjpeg", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "png", "qtrle", "rawvideo"),
)
_NO_STAMP = -(2**63)


class Colours:
    """Frames to RGB, one after the other."""

    def __init__(self) -> None:
        self._convert = VideoReformatter()

    def rgb(self, frame: Any) -> NDArray[np.uint8]:
        """Return a frame's pixels as they are stored, height x width x 3."""
        pixels: NDArray[np.uint8] = self._convert.reformat(frame, format="rgb24", **_ONE_THREAD).to_ndarray()
        return pixels


def checksum(pixels: NDArray[np.uint8]) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels))


def probe(source: Source, media: Media, *, use_damaged: bool) -> FrameIndex:
    """Look through a file that was opened and not yet read. Damage is an error, unless it is to be used."""
    if use_damaged:
        return _by_decoder(source, media, use_damaged=True)
    short = missing_bytes(source)
    if short:
        raise DamagedVideo(
            f"{source.name}: the file is truncated: {short} bytes are missing at its end or inside, by the sizes that "
            f"it gives itself; {OFFER}"
        )
    index = _by_packets(source, media)
    if index is not None:
        return index
    with source.open() as fresh:
        return _by_decoder(source, fresh, use_damaged=False)


OFFER = (
    'copy the file again or leave it out. damaged="use" takes what the decoder makes of it; in a data set '
    'damaged="skip" draws other videos in its place, and a run goes on with it from its checkpoint'
)


def damaged_at(source: Source, index: FrameIndex, number: int, what: str) -> DamagedVideo:
    """Return the error that names the file and the place."""
    seconds = float((index.times[number] - index.times[0]) * index.tick)
    return DamagedVideo(f"{source.name}: frame {number} (at {seconds:.2f} s) {what}: the file is damaged; {OFFER}")


# -- by packets --------------------------------------------------------------------------------------------------------


def _by_packets(source: Source, media: Media) -> FrameIndex | None:
    """Number the frames by their packets' time stamps, or return None where that is not proven to be right."""
    if media.format not in _FORMATS or media.codec not in _CODECS:
        return None
    stamps, keys = array("q"), array("q")
    first = None
    for packet in media.packets():
        if packet.pts is None and not packet.size:
            continue
        if packet.is_corrupt:
            raise DamagedVideo(f"{source.name}: the video is truncated after {len(stamps)} frames; {OFFER}")
        if packet.pts is None or packet.is_discard or not packet.size or _hidden(media.codec, packet):
            return None  # an edit list, or what only the decoder can count
        if packet.is_keyframe:
            keys.append(packet.pts)
            if not stamps:
                first = _first_frame(media, packet)
        stamps.append(packet.pts)
    if len(stamps) < media.stream.frames:
        raise DamagedVideo(
            f"{source.name}: the video is truncated: its header promises {media.stream.frames} frames and "
            f"{len(stamps)} are there; {OFFER}"
        )
    if first is None or not _numbered(stamps, reordered=bool(media.stream.codec_context.has_b_frames)):
        return None
    times = np.sort(np.frombuffer(stamps, np.int64))
    numbers = np.searchsorted(times, np.sort(np.frombuffer(keys, np.int64)))
    return _index("index", media, first, times, numbers)


def _numbered(stamps: array[int], *, reordered: bool) -> bool:
    """Say whether packets of these time stamps number the frames: each its own, none before the first key frame's."""
    given = np.frombuffer(stamps, np.int64)
    rises = np.diff(given) > 0
    if reordered and len(given) > 1 and rises.all():
        return False  # frames are reordered and their times are not: these were invented in the order of decoding
    return bool(given.min() == given[0] and (rises.all() or (np.diff(np.sort(given)) > 0).all()))


def _hidden(codec: str, packet: Any) -> bool:
    """Say whether a packet has a frame that others refer to and nobody sees."""
    if codec == "vp8":
        return not memoryview(packet)[0] & 0x10
    if codec == "vp9":
        data = memoryview(packet)
        if data[-1] & 0xE0 == 0xC0:
            return False  # several frames in one, the last of which is shown
        high_profile = data[0] & 0x30 == 0x30
        shows_another, shown = (data[0] & 0x04, data[0] & 0x01) if high_profile else (data[0] & 0x08, data[0] & 0x02)
        return not (shows_another or shown)
    return False


def _first_frame(media: Media, packet: Any) -> Any:
    """Decode a file's first packet alone: its frame tells the size, and how it is turned. None where it gives none."""
    codec = media.stream.codec_context
    try:
        frames = [*codec.decode(packet), *codec.decode(None)]
    except FFmpegError:
        return None
    finally:
        codec.flush_buffers()
    good = len(frames) == 1 and frames[0].pts == packet.pts and frames[0].key_frame and not frames[0].is_corrupt
    return frames[0] if good else None


# -- by the decoder ----------------------------------------------------------------------------------------------------


def every_frame(media: Media, damaged: Any) -> Iterator[Any]:
    """Decode from where the file is to its end. `damaged(what)` hears of damage; where it returns, decoding goes on."""
    packets = media.packets()
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError as error:
            damaged(f"the file cannot be read on ({error.strerror})")
            return
        if packet.is_corrupt:
            damaged("bytes are missing or wrong")
        try:
            frames = packet.decode()
        except FFmpegError as error:
            damaged(f"it cannot be decoded ({error.strerror})")
            continue
        for frame in frames:
            if frame.is_corrupt:
                damaged("the decoder marks it as corrupt")
            yield frame


def _by_decoder(source: Source, media: Media, *, use_damaged: bool) -> FrameIndex:
    """Decode the whole file once: its frames are what comes out."""
    stamps, keys, sums = array("q"), array("q"), array("I")

    def damaged(what: str) -> None:
        if not use_damaged:
            raise DamagedVideo(
                f"{source.name}: the file is truncated or damaged at frame {len(stamps)}: {what}; {OFFER}"
            )

    colours, first = Colours(), None
    for frame in every_frame(media, damaged):
        first = frame if first is None else first
        if (frame.height, frame.width) != (first.height, first.width):
            raise ValueError(
                f"{source.name}: the frames change from {first.width}x{first.height} to {frame.width}x{frame.height} "
                "pixels; rewrite the file at one size"
            )
        if frame.key_frame:
            keys.append(len(stamps))
        stamps.append(_NO_STAMP if frame.pts is None else frame.pts)
        sums.append(checksum(colours.rgb(frame)))
    if first is None:
        raise DamagedVideo(f"{source.name}: the video has no frames; {OFFER}")
    times = np.frombuffer(stamps, np.int64)
    return _index("decoder", media, first, times, np.frombuffer(keys, np.int64), sums)


# -- both --------------------------------------------------------------------------------------------------------------


def _index(
    how: Any, media: Media, first: Any, times: NDArray[np.int64], keys: NDArray[np.int64], sums: Any = ()
) -> FrameIndex:
    stream = media.stream
    nominal = [Fraction(rate) if rate else None for rate in (stream.average_rate, stream.guessed_rate)]
    marks: Any = ()
    tick = Fraction(stream.time_base)
    if times.min() == _NO_STAMP or not (np.diff(times) > 0).all():
        # Not when they are shown, as it seems: they count as evenly spread, and seeks are tried by what is known.
        keys = keys[times[keys] != _NO_STAMP]
        marks = compact(times[keys])
        tick = 1 / next((rate for rate in nominal if rate), Fraction(25))
        times = np.arange(len(times), dtype=np.int64)
    rate, even = pace(times, tick, nominal)
    rotation, mirrored = _orientation(first)
    return FrameIndex(
        how=how,
        times=compact(times),
        tick=tick,
        keys=compact(keys),
        marks=marks,
        sums=sums,
        height=first.height,
        width=first.width,
        rotation=rotation,
        mirrored=mirrored,
        rate=rate,
        even=even,
    )


def _orientation(frame: Any) -> tuple[int, bool]:
    """Return (degrees clockwise, mirrored first?) that the file says to show its frames by.

    Its matrix takes a point (x, y) to (a x + c y, b x + d y), as ISO 14496-12 has it.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].tolist()
    mirrored = a * d - b * c < 0
    degrees = math.degrees(math.atan2(-b if mirrored else b, -a if mirrored else a))
    return round(degrees / 90) * 90 % 360 if abs(degrees / 90 - round(degrees / 90)) < 0.01 else round(degrees), mirrored
