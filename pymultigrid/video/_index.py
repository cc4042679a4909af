"""What is known of a video file once it was looked through: how many frames, when each is shown, how they are read."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_LITTLE = Fraction(1, 10**6)  # of a frame, by which a time may fall short of the one that it means

Numbers = Sequence[int]
"""A range where the numbers are one, which costs no memory, or an array."""


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Frame n, the n-th picture that decoding the whole file gives, is shown from ``times[n] * tick`` seconds on.

    ``"index"``: the container says when each packet is shown, and that was found to be true; frames are found by it.
    ``"decoder"``: the whole file was decoded once, and frames are counted; the checksum of each tells whether the
    picture that comes after a seek is the one that it should be.
    """

    how: Literal["index", "decoder"]
    times: Numbers  # rising
    tick: Fraction
    keys: Numbers  # the frame numbers that a seek may go to, none where no seek was found to be right
    marks: Numbers  # and the time stamps to seek to for them, where `times` has not got them
    sums: Sequence[int]  # "decoder": CRC-32 of each frame's RGB, before it is turned
    height: int  # as they are stored
    width: int
    rotation: int  # clockwise, in degrees, after mirroring left to right
    mirrored: bool
    rate: Fraction  # frames per second, their mean where it varies
    even: bool  # each frame is shown equally long, to the container's clock

    def mark(self, key: int) -> int:
        """Return the time stamp to seek to for the key frame at place `key` of `keys`."""
        return self.marks[key] if self.marks else self.times[self.keys[key]]

    def without(self, key: int) -> FrameIndex:
        """Return the index after a seek did not lead to the key frame at this place.

        Where the container's word was taken for key frames, it is not taken again.
        """
        if self.how == "index":
            return replace(self, keys=(), marks=())
        marks = self.marks and compact(np.delete(np.asarray(self.marks), key))
        return replace(self, keys=compact(np.delete(np.asarray(self.keys), key)), marks=marks)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes, for JSON."""
        numbers = {"times": self.times, "keys": self.keys, "marks": self.marks, "sums": self.sums}
        plain = {name: getattr(self, name) for name in ("how", "height", "width", "rotation", "mirrored", "even")}
        fractions = {"tick": str(self.tick), "rate": str(self.rate)}
        return {**plain, **fractions, **{name: _written(value) for name, value in numbers.items() if len(value)}}

    @classmethod
    def from_dict(cls, written: dict[str, Any]) -> FrameIndex:
        """Return the index that `to_dict` wrote."""
        times, keys, marks = (_given(written.get(name, ())) for name in ("times", "keys", "marks"))
        sums = array("I", written.get("sums", ()))
        if not len(times) or (written["how"] == "decoder") != (len(sums) == len(times)) or len(marks) > len(keys):
            raise ValueError("an index must have times, and a checksum for each where the decoder counted")
        plain = {name: written[name] for name in ("how", "height", "width", "rotation", "mirrored", "even")}
        tick, rate = _fraction(written["tick"]), _fraction(written["rate"])
        return cls(times=times, tick=tick, keys=keys, marks=marks, sums=sums or (), rate=rate, **plain)

    def shown(self, seconds: Sequence[float | Fraction]) -> list[int]:
        """Return the frame that is shown at each of these times from the beginning on."""
        last = len(self.times) - 1
        if self.even:
            return [max(0, min(last, int(time * self.rate + _LITTLE))) for time in seconds]
        # Half a tick: a clock of milliseconds calls 66.7 ms 67.
        wanted = self.times[0] + np.asarray(seconds, np.float64) / float(self.tick) + 0.5
        found = np.searchsorted(np.asarray(self.times), wanted, side="right") - 1
        return [int(n) for n in found.clip(0, last)]


def _written(numbers: Sequence[int]) -> Any:
    return [numbers.start, numbers.stop, numbers.step, "range"] if isinstance(numbers, range) else list(numbers)


def _given(written: Any) -> Numbers:
    if written and written[-1] == "range":
        return range(*written[:3])
    return compact(written)


@lru_cache(maxsize=1024)
def _fraction(text: str) -> Fraction:
    return Fraction(text)  # few for many files: one object for each


def compact(numbers: NDArray[np.int64] | Iterable[int]) -> Numbers:
    """Return numbers as a range where they are one, else as an array with as few bytes as hold them."""
    given = np.asarray(numbers if isinstance(numbers, np.ndarray) else array("q", numbers), np.int64)
    if not len(given):
        return ()
    first, last = int(given[0]), int(given[-1])
    step = int(given[1]) - first if len(given) > 1 else 1
    if step and last == first + step * (len(given) - 1) and bool((np.diff(given) == step).all()):
        return range(first, last + (1 if step > 0 else -1), step)
    small = int(np.abs(given).max()) < 2**31
    return array("i" if small else "q", given.astype(np.int32 if small else np.int64).tobytes())


def pace(times: NDArray[np.int64], tick: Fraction, nominal: Sequence[Fraction | None]) -> tuple[Fraction, bool]:
    """Return the frames per second, and whether all frames are shown equally long.

    They are where one rate puts every frame within a tick of its time: containers round.
    """
    count = len(times)
    if count < 2:
        return next((rate for rate in nominal if rate), Fraction(25)), True
    mean = Fraction(count - 1) / (int(times[-1] - times[0]) * tick)
    since = (times - times[0]).astype(np.float64)
    for rate in (*nominal, mean):
        ticks = float(1 / (rate * tick)) if rate else 0.0
        if ticks and np.abs(since - np.arange(count) * ticks).max() <= min(1.0, ticks / 8) + 1e-6:
            return Fraction(rate or 0), True
    return mean, False
