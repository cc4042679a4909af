"""Decoding some frames of a video file whose index is known: from key frames where that is proven, else from the start.

A seek may land anywhere, and what a decoder gives behind it may be another picture than decoding the whole file gives
(intra refresh, key frames that are none, palettes, clocks that FFmpeg invents). It counts only if the key frame itself
comes out first, and for files that the decoder had to count, if each picture's checksum is the one that was noted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from pymultigrid.video._index import FrameIndex, Numbers
from pymultigrid.video._media import OFFER, Media, Source
from pymultigrid.video._probe import Colours, checksum, damaged_at, every_frame

# Going to a key frame costs about as much as decoding a few frames: seek only where it saves more than these.
_SEEK_SAVES = 8
# Whose frames may be skipped where nothing refers to them. (dav1d decides what to skip when it opens, and keeps to it.)
_SKIPPING = ("h264", "hevc", "vp8", "mpeg4", "mpeg1video", "mpeg2video")

Pixels = NDArray[np.uint8]


class Decoding:
    """One reading of some frames.

    `misled` is afterwards the place of a key frame that a seek did not lead to, if there was one.
    """

    def __init__(self, source: Source, index: FrameIndex, *, use_damaged: bool) -> None:
        self._source = source
        self._index = index
        self._use_damaged = use_damaged
        self._colours = Colours()
        self.misled: int | None = None

    def frames(self, media: Media, wanted: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
        """Yield each of these frames, rising numbers without repeats, with its number."""
        remaining = dict.fromkeys(wanted)
        for place, run in runs(self._index.keys, wanted):
            missing = dict.fromkeys(run)
            for number, pixels in self._from_key(media, place, missing) if place is not None else ():
                del missing[number], remaining[number]
                yield number, pixels
            if missing:
                self.misled = place
                break
        if remaining:
            yield from self._from_the_start(media, remaining)

    def _from_key(self, media: Media, place: int, missing: dict[int, None]) -> Iterator[tuple[int, Pixels]]:
        """Decode from a key frame, or where the seek lands behind it from one before."""
        if not self._index.keys[place] and (not media.used or self._index.how == "decoder"):
            yield from self._from_the_start(media, missing)
            return
        for key in range(place, max(-1, place - 3), -1):
            if media.seek(self._index.mark(key)):
                yield from self._behind(media, key, missing)
            if not missing:
                return

    def _behind(self, media: Media, key: int | None, missing: dict[int, None]) -> Iterator[tuple[int, Pixels]]:
        if self._index.how == "index":
            return self._by_time(media, key, missing)
        return self._by_count(media, key, missing)

    def _from_the_start(self, media: Media, missing: dict[int, None]) -> Iterator[tuple[int, Pixels]]:
        opening: AbstractContextManager[Media] = self._source.open() if media.used else nullcontext(media)
        left = set(missing)
        with opening as fresh:
            for number, pixels in self._behind(fresh, None, dict(missing)):
                left.remove(number)
                yield number, pixels
        if left:
            raise damaged_at(self._source, self._index, min(left), "cannot be decoded")

    # -- frames found by their time ------------------------------------------------------------------------------------

    def _by_time(self, media: Media, key: int | None, missing: dict[int, None]) -> Iterator[tuple[int, Pixels]]:
        """Decode from where the file is; `key` is where it went by a seek. Ends early where the seek was wrong.

        So it was where a frame behind the key frame is corrupt, or cannot be decoded: from the start it may be good.
        """
        times = self._index.times
        wanted = {times[number]: number for number in missing}
        landed = None if key is None else times[self._index.keys[key]]
        damage: tuple[int | None, str] | None = None  # since the last key frame: what is behind it may refer to it
        for frame in self._decoded(media, wanted, key is not None):
            if landed is not None:
                if frame.pts is None or frame.pts < landed:
                    continue  # shown before the key frame, and decoded without what it refers to
                if frame.pts != landed or not frame.key_frame:
                    return
                landed = None
            number = wanted.get(frame.pts)
            if frame.is_corrupt:
                if key is not None:
                    return
                damage = frame.pts, "is marked as corrupt by the decoder"
            elif frame.key_frame:
                damage = None
            if number is None:
                continue
            if damage is not None:
                self._refuse(*damage)
            self._check_size(frame)
            del wanted[frame.pts]
            yield number, self._colours.rgb(frame)
            if not wanted:
                return

    def _decoded(self, media: Media, wanted: dict[int, int], after_seek: bool) -> Iterator[Any]:
        """Decode the frames of the time stamps `wanted`, and those that others refer to."""
        codec, skipping = media.stream.codec_context, media.codec in _SKIPPING
        for packet in media.packets():
            if skipping:
                # The empty packet at the end asks for what the decoder still holds.
                codec.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
            try:
                frames = packet.decode()
            except FFmpegError as error:
                if after_seek:
                    return
                self._refuse(packet.pts, f"cannot be decoded ({error.strerror})")
            yield from frames

    def _refuse(self, stamp: int | None, what: str) -> NoReturn:
        times = self._index.times
        number = 0 if stamp is None else max(0, bisect_right(times, stamp) - 1)
        raise damaged_at(self._source, self._index, number, what)

    # -- frames counted ------------------------------------------------------------------------------------------------

    def _by_count(self, media: Media, key: int | None, missing: dict[int, None]) -> Iterator[tuple[int, Pixels]]:
        """Decode from where the file is and count; behind a seek, from the key frame whose checksum comes first."""
        sums, last = self._index.sums, max(missing)
        number = 0 if key is None else None
        for frame in every_frame(media, self._heard(seeking=key is not None)):
            pixels = None
            if number is None:
                if not frame.key_frame:
                    continue
                pixels = self._colours.rgb(frame)
                number = self._same_key(checksum(pixels), min(missing))
                if number is None:
                    return
            if number in missing:
                pixels = self._colours.rgb(frame) if pixels is None else pixels
                if key is not None and checksum(pixels) != sums[number]:
                    return
                yield number, pixels
            number += 1
            if number > last:
                return

    def _same_key(self, found: int, first: int) -> int | None:
        """Return the last key frame before frame `first` with this checksum; equal ones are equal pictures."""
        keys = self._index.keys
        for place in range(bisect_right(keys, first) - 1, -1, -1):
            if self._index.sums[keys[place]] == found:
                return keys[place]
        return None

    def _heard(self, *, seeking: bool) -> Any:
        def damaged(what: str) -> None:
            if not self._use_damaged and not seeking:
                raise ValueError(f"{self._source.name}: {what}: the file has changed since it was first read; {OFFER}")

        return damaged

    def _check_size(self, frame: Any) -> None:
        index = self._index
        if (frame.height, frame.width) != (index.height, index.width):
            raise ValueError(
                f"{self._source.name}: the frames change from {index.width}x{index.height} to "
                f"{frame.width}x{frame.height} pixels; rewrite the file at one size"
            )


def runs(keys: Numbers, frames: Sequence[int]) -> Iterator[tuple[int | None, list[int]]]:
    """Divide rising frame numbers into runs that are decoded in one go, each with the place of its key frame in `keys`.

    None: the file's beginning, where there is no key frame before them.
    """
    run: list[int] = []
    start: int | None = None
    for frame in frames:
        place = bisect_right(keys, frame) - 1
        if run and place >= 0 and keys[place] - run[-1] > _SEEK_SAVES:
            yield start, run
            run = []
        if not run:
            start = place if place >= 0 else None
        run.append(frame)
    if run:
        yield start, run
