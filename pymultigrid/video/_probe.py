"""Looking through a video file once: by its packets where they can be trusted, else by decoding all of it."""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pymultigrid.video._index import FrameIndex, compact, pace
from pymultigrid.video._media import OFFER, DamagedVideo, Media, Source
from pymultigrid.video._whole import lost_packet, plainly_upright, stream_turns

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


class Look(NamedTuple):
    """What a video's frames have in common."""

    height: int
    width: int
    rotation: int = 0
    mirrored: bool = False


class Colours:
    """Frames to RGB, one after the other."""

    def __init__(self) -> None:
        self._convert = VideoReformatter()

    def rgb(self, frame: Any) -> NDArray[np.uint8]:
        """Return a frame's pixels as they are stored, height x width x 3: a view, until the next one is asked for."""
        plane: Any = self._convert.reformat(frame, format="rgb24", **_ONE_THREAD).planes[0]
        rows: NDArray[np.uint8] = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # padded
        return rows[: frame.height, : frame.width * 3].reshape(int(frame.height), int(frame.width), 3)


def checksum(pixels: NDArray[np.uint8]) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def probe(source: Source, media: Media, *, use_damaged: bool) -> FrameIndex:
    """Look through a file that was opened and not yet read. Damage is an error, unless it is to be used."""
    if use_damaged:
        return _by_decoder(source, media, use_damaged=True)
    source.check_whole()
    index = _by_packets(source, media)
    if index is not None:
        return index
    if media.format == "flv":
        _check_end(source)
    if media.format == "mpegts":
        _check_packets(source, media)
    with source.open() as fresh:
        return _by_decoder(source, fresh, use_damaged=False)


def _check_end(source: Source) -> None:
    """Refuse a flv whose last packet ends before the time that its header says: it has no size that tells.

    The header's duration is that of the longest stream, so all are looked at.
    """
    with source.open() as media:
        begins, ends, longest = math.inf, 0.0, 0.0
        for packet in media.container.demux():
            if packet.dts is not None and packet.time_base is not None:
                start, lasts = (float(ticks * packet.time_base) for ticks in (packet.dts, packet.duration or 0))
                longest = max(longest, lasts)
                begins, ends = min(begins, start), max(ends, start + lasts)
        early = (media.container.duration or 0) / av.time_base - (ends - min(begins, ends))
    if early > 0.25 + 2 * longest:
        raise DamagedVideo(
            f"{source.name}: the file is truncated: it ends {early:.2f} s before the end that its header gives; {OFFER}"
        )


def _check_packets(source: Source, media: Media) -> None:
    with source.bytes() as file:
        lost = lost_packet(file, media.stream.id)
    if lost is not None:
        raise DamagedVideo(f"{source.name}: the file is damaged: packets are missing at byte {lost}; {OFFER}")


def damaged_at(source: Source, index: FrameIndex, number: int, what: str) -> DamagedVideo:
    """Return the error that names the file and the place."""
    seconds = float((index.times[number] - index.times[0]) * index.tick)
    return DamagedVideo(f"{source.name}: frame {number} (at {seconds:.2f} s) {what}: the file is damaged; {OFFER}")


# -- by packets --------------------------------------------------------------------------------------------------------


def _by_packets(source: Source, media: Media) -> FrameIndex | None:
    """Return an index by the packets' time stamps, or None where they are not proven to number the frames."""
    if media.format not in _FORMATS or media.codec not in _CODECS:
        return None
    stamps, keys, look = array("q"), array("q"), None
    with source.bytes() as file:
        if media.format == "mov" and plainly_upright(file):
            look = Look(media.stream.codec_context.height, media.stream.codec_context.width)
    codec = media.codec
    hides, header = codec in ("vp8", "vp9"), bytes(media.stream.codec_context.extradata or b"")
    for packet in media.packets():
        stamp = packet.pts
        if stamp is None and not packet.size:
            continue
        if packet.is_corrupt:
            raise DamagedVideo(f"{source.name}: the video is truncated after {len(stamps)} frames; {OFFER}")
        unclear = (hides and _hidden(codec, packet)) or _without_picture(codec, packet)
        if stamp is None or packet.is_discard or not packet.size or unclear:
            return None  # an edit list, or what only the decoder can count
        if packet.is_keyframe:
            if not stamps and (look is None or stream_turns(bytes(packet), codec, header)):
                look = _look(media, packet)
            keys.append(stamp)
        stamps.append(stamp)
    if len(stamps) < media.stream.frames:
        raise DamagedVideo(
            f"{source.name}: the video is truncated: its header promises {media.stream.frames} frames and "
            f"{len(stamps)} are there; {OFFER}"
        )
    times = np.frombuffer(stamps, np.int64)
    if look is None or not _numbered(times, keys, reordered=bool(media.stream.codec_context.has_b_frames)):
        return None
    times = np.sort(times)
    numbers = np.searchsorted(times, np.sort(np.frombuffer(keys, np.int64)))
    return _index("index", media, look, times, numbers)


def _numbered(given: NDArray[np.int64], keys: array[int], *, reordered: bool) -> bool:
    """Say whether packets of these time stamps number the frames: each its own, none before the first key frame's."""
    if not len(keys) or not given.min() == given[0] == keys[0]:
        return False
    rising = bool((np.diff(given) > 0).all())
    if reordered and rising and len(given) > 1:
        return False  # frames are reordered and their times are not: these were invented in the order of decoding
    return rising or bool((np.diff(np.sort(given)) > 0).all())


_TINY = 16  # bytes: MPEG-4's "the same again", for which decoders give no picture, has about eight
_TABLES = b"\xff\xdb"  # the marker of JPEG's quantisation tables


def _without_picture(codec: str, packet: Any) -> bool:
    """Return whether a packet may give no picture, or one that needs tables from another packet."""
    if codec in ("mpeg4", "h263"):
        return int(packet.size) < _TINY
    return codec == "mjpeg" and _TABLES not in bytes(packet)


def _hidden(codec: str, packet: Any) -> bool:
    """Say whether a packet has a frame that others refer to and nobody sees."""
    data = memoryview(packet)
    if codec == "vp8":
        return not data[0] & 0x10
    if data[-1] & 0xE0 == 0xC0:
        return False  # several frames of VP9 in one, the last of which is shown
    shows_another, shown = (0x04, 0x01) if data[0] & 0x30 == 0x30 else (0x08, 0x02)
    return not data[0] & (shows_another | shown)


def _look(media: Media, packet: Any) -> Look | None:
    """Decode a file's first packet alone and look at its frame; None where that is not the first picture."""
    codec = media.stream.codec_context
    try:
        frames = [*codec.decode(packet), *codec.decode(None)]
    except FFmpegError:
        return None
    finally:
        codec.flush_buffers()
    if len(frames) != 1 or frames[0].pts != packet.pts or not frames[0].key_frame or frames[0].is_corrupt:
        return None
    return Look(frames[0].height, frames[0].width, *_orientation(frames[0]))


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

    colours, look = Colours(), None
    for frame in every_frame(media, damaged):
        if look is None:
            look = Look(frame.height, frame.width, *_orientation(frame))
        if (frame.height, frame.width) != look[:2]:
            raise ValueError(
                f"{source.name}: the frames change from {look.width}x{look.height} to {frame.width}x{frame.height} "
                "pixels; rewrite the file at one size"
            )
        if frame.key_frame:
            keys.append(len(stamps))
        stamps.append(_NO_STAMP if frame.pts is None else frame.pts)
        sums.append(checksum(colours.rgb(frame)))
    if look is None:
        raise DamagedVideo(f"{source.name}: the video has no frames; {OFFER}")
    times = np.frombuffer(stamps, np.int64)
    return _index("decoder", media, look, times, np.frombuffer(keys, np.int64), sums)


# -- both --------------------------------------------------------------------------------------------------------------


def _index(
    how: Any, media: Media, look: Look, times: NDArray[np.int64], keys: NDArray[np.int64], sums: Any = ()
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
    return FrameIndex(
        how=how,
        times=compact(times),
        tick=tick,
        keys=compact(keys),
        marks=marks,
        sums=sums,
        **look._asdict(),
        rate=rate,
        even=even,
    )


def _orientation(frame: Any) -> tuple[int, bool]:
    """Return (degrees clockwise, mirrored first?) that the file says to show its frames by, told by the first one.

    Its matrix takes a point (x, y) to (a x + c y, b x + d y), as ISO 14496-12 has it.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].tolist()
    mirrored = a * d - b * c < 0
    degrees = math.degrees(math.atan2(-b if mirrored else b, -a if mirrored else a))
    return round(degrees) % 360, mirrored
