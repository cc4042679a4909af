"""Whether a file is all there, and other things that its first bytes say and FFmpeg does not.

FFmpeg takes a file that ends early for one that ends there, and goes on behind bytes that are missing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

_FAR = 1 << 26  # how much of a file is looked at for signs
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_BOXES = b"ftyp moov mdat free wide skip styp moof sidx ssix mfra meta udta uuid emsg prft pnot".split()


def missing_bytes(file: BinaryIO) -> int:
    """Return how many bytes, at least, the file is shorter than its container says; 0 where it says nothing."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"RIFF":
        end = _end_of_riff(file, size)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        end = _end_of_matroska(file)
    elif head[4:8] in _BOXES:
        end = _end_of_boxes(file, size)
    elif head[:4] == b"\x30\x26\xb2\x75":
        header = head + file.read(4096)
        at = header.find(_ASF_FILE)
        end = int.from_bytes(header[at + 40 : at + 48], "little") if at >= 0 else 0
    elif head[:3] == b"GIF":
        file.seek(-min(size, 64), os.SEEK_END)
        end = size + (not file.read().rstrip(b"\0").endswith(b";"))
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
    """Return where the last box of an mp4 ends. What is no box counts for nothing, unless there are boxes behind it."""
    last = 0
    for name, _, end in _boxes(file, 0, size):
        if name not in _BOXES and (end > size or not name.isalnum()):
            file.seek(last)
            rest = file.read(_FAR)
            return size + 1 if any(box in rest for box in (b"moov", b"moof", b"mdat")) else last
        last = end
    return last


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes of an mp4 that begin in a range of it: (name, where its content begins, where it ends)."""
    while start + 8 <= stop:
        file.seek(start)
        head = file.read(16)
        length, content = int.from_bytes(head[:4], "big"), start + 8
        if length == 1:
            length, content = int.from_bytes(head[8:], "big"), start + 16
        if length < content - start:
            return  # 0: to the end of the file
        yield head[4:8], content, start + length
        start += length


_UPRIGHT = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def plainly_upright(file: BinaryIO) -> bool:
    """Say whether this is an mp4 whose header turns nothing. Elsewhere a decoded frame tells how it is turned.

    Decoding one would take as long as all else that is done when a file is looked through.
    """
    found = []
    size = file.seek(0, os.SEEK_END)
    for movie, start, stop in _boxes(file, 0, size):
        for name, content, end in _boxes(file, start, stop) if movie == b"moov" else ():
            if name == b"mvhd":
                found.append((file, content, 36, 48))
            tracks = _boxes(file, content, end) if name == b"trak" else ()
            found += [(file, at, 40, 52) for inner, at, _ in tracks if inner == b"tkhd"]
    return len(found) > 1 and all(_matrix(*place) == _UPRIGHT for place in found)


def _matrix(file: BinaryIO, content: int, short: int, long: int) -> bytes:
    """Return the matrix of a movie's or track's header; the second version of both has longer numbers before it."""
    file.seek(content)
    version = file.read(1)
    file.seek(content + (long if version == b"\1" else short))
    return file.read(36)


_DISPLAY_ORIENTATION = 47  # of the supplemental messages of H.264 and HEVC


def stream_turns(picture: bytes, codec: str, header: bytes) -> bool:
    """Say whether a packet of H.264 or HEVC, as mp4 has them, asks to turn its picture; `header` is the codec's."""
    hevc = codec == "hevc"
    at, kind, skip = (21, 39, 2) if hevc else (4, 6, 1)
    if codec not in ("h264", "hevc") or len(header) <= at:
        return False
    size, place = (header[at] & 3) + 1, 0
    while place + size < len(picture):
        begin, length = place + size, int.from_bytes(picture[place : place + size], "big")
        found = picture[begin] >> 1 & 63 if hevc else picture[begin] & 31
        if found == kind and _DISPLAY_ORIENTATION in _messages(picture[begin + skip : begin + length]):
            return True
        place = begin + length
    return False


def _messages(unit: bytes) -> Iterator[int]:
    """Yield the types of a unit's supplemental messages: type and size are sums of bytes, as long as these are 255."""
    unit, place = unit.replace(b"\0\0\3", b"\0\0"), 0
    while place + 2 < len(unit):
        numbers = []
        for _ in range(2):
            start = place
            while place < len(unit) - 1 and unit[place] == 255:
                place += 1
            numbers.append(255 * (place - start) + unit[place])
            place += 1
        yield numbers[0]
        place += numbers[1]


# -- transport streams -------------------------------------------------------------------------------------------------


def lost_packet(file: BinaryIO, stream: int) -> int | None:
    """Return where, in bytes, packets of a transport stream's `stream` are missing, or None where all are there.

    Each has a counter modulo 16 (ISO 13818-1, 2.4.3.3). FFmpeg looks at it too, and may lose what it saw.
    """
    head = file.read(1024)
    for size, sync in ((188, 0), (192, 4), (204, 0)):
        if len(head) > sync + 2 * size and {head[sync + n * size] for n in range(3)} == {0x47}:
            break
    else:
        return None
    file.seek(0)
    begin, before = 0, -1
    while data := file.read(size * 65536):
        packets = np.frombuffer(data[: len(data) // size * size], np.uint8).reshape(-1, size)[:, sync:]
        if (packets[:, 0] != 0x47).any():
            return begin + int((packets[:, 0] != 0x47).argmax()) * size
        mine = np.flatnonzero((packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2] == stream)
        mine = mine[packets[mine, 3] & 0x10 != 0]  # others carry nothing, and are not counted
        counters = packets[mine, 3] & 15
        steps = np.diff(counters, prepend=counters[:1] if before < 0 else np.uint8(before)) & 15
        announced = (packets[mine, 3] & 0x20 != 0) & (packets[mine, 4] > 0) & (packets[mine, 5] & 0x80 != 0)
        wrong = (steps > 1) & ~announced  # 0: a packet that was sent twice
        if wrong.any():
            return begin + int(mine[wrong.argmax()]) * size
        before = int(counters[-1]) if len(counters) else before
        begin += len(data)
    return None
