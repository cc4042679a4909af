"""Video files for the tests, by PyAV or byte by byte.

The pictures move by a pixel a frame and show the frame's number, so that no two are alike. What PyAV's muxers do not
write (an edit list, a palette, a chunk without a picture) is put into the bytes of a file that they wrote.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

HEIGHT, WIDTH, FRAMES = 48, 64, 40


def pictures(count: int | None = None, height: int | None = None, width: int | None = None) -> list[np.ndarray]:
    """Coloured texture that moves, with the frame's number as the level of a corner."""
    count, height, width = count or FRAMES, height or HEIGHT, width or WIDTH
    rough = np.random.default_rng(0).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    texture = rough.repeat(8, 0).repeat(8, 1)[:height, :width]
    moved = [np.roll(texture, number, axis=1) for number in range(count)]
    for number, picture in enumerate(moved):
        picture[:16, :16] = number * 6 % 256
    return moved


def write(
    path: Path,
    codec: str,
    frames: Sequence[np.ndarray] | None = None,
    *,
    rate: Any = 25,
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    tick: Fraction | None = None,
    muxer: dict[str, str] | None = None,
    format: str | None = None,
    streams: int = 1,
    options: dict[str, str] | None = None,
    **context: Any,
) -> None:
    """Encode pictures. `options` are the encoder's; what is left is set on its context (gop_size=...)."""
    frames = pictures() if frames is None else frames
    height, width = frames[0].shape[:2]
    tick = Fraction(1, rate) if tick is None else tick
    with av.open(str(path), "w", format=format, options=muxer or {}) as out:
        every = []
        for _ in range(streams):
            stream = out.add_stream(codec, rate=rate, width=width, height=height, pix_fmt=pix_fmt)
            stream.options = options or {}
            stream.codec_context.time_base = tick
            stream.codec_context.thread_count = 1
            for name, value in context.items():
                setattr(stream.codec_context, name, value)
            every.append(stream)
        for number, picture in enumerate(frames):
            for place, stream in enumerate(every):
                shown = picture if not place else 255 - picture
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
                frame.pts, frame.time_base = number if times is None else times[number], tick
                out.mux(stream.encode(frame))
        for stream in every:
            out.mux(stream.encode())


def with_sound(path: Path, codec: str, sound: str, **context: Any) -> None:
    """Write a video with a sound track beside it, which is longer."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        audio = out.add_stream(sound, rate=48000)
        for name, value in context.items():
            setattr(video.codec_context, name, value)
        tone = (8000 * np.sin(np.arange(1024) / 9)).astype(np.int16)
        sampler = av.AudioResampler(audio.codec_context.format, audio.codec_context.layout, 48000)
        for number, picture in enumerate(pictures()):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            for part in range(2):
                frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
                frame.sample_rate, frame.pts = 48000, 1024 * (2 * number + part)
                for resampled in sampler.resample(frame):
                    out.mux(audio.encode(resampled))
        out.mux(video.encode())
        for resampled in sampler.resample(None):
            out.mux(audio.encode(resampled))
        out.mux(audio.encode())


def packets(path: Path) -> list[tuple[bytes, bool]]:
    """Return (bytes, is it a key frame) of each packet, in the file's order."""
    with av.open(str(path)) as file:
        return [(bytes(packet), packet.is_keyframe) for packet in file.demux(file.streams.video[0]) if packet.size]


def copy(source: Path, path: Path, change: Callable[[int, Any], bool], **options: Any) -> None:
    """Copy the packets of a file that `change(number, packet)` keeps, as it left them."""
    with av.open(str(source)) as whole, av.open(str(path), "w", **options) as out:
        stream = whole.streams.video[0]
        to = out.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in whole.demux(stream) if p.size):
            if change(number, packet):
                packet.stream = to
                out.mux(packet)


# -- AVI, byte by byte -------------------------------------------------------------------------------------------------


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def write_avi(
    path: Path,
    chunks: Sequence[bytes],
    fourcc: bytes,
    *,
    keys: Sequence[bool] | None = None,
    bits: int = 24,
    compression: bytes | None = None,
    palette: bytes = b"",
) -> None:
    """Put the chunks of a video into an AVI file as they are, empty ones too."""
    count, most, rate = len(chunks), max(map(len, chunks)), 25
    main = struct.pack("<14I", 1_000_000 // rate, 0, 0, 16, count, 0, 1, 0, WIDTH, HEIGHT, 0, 0, 0, 0)
    header = struct.pack("<IHHIIIIIIII4H", 0, 0, 0, 0, 1, rate, 0, count, most, 2**32 - 1, 0, 0, 0, WIDTH, HEIGHT)
    kind, colours = fourcc if compression is None else compression, len(palette) // 4
    format = struct.pack("<IiiHH4sIiiII", 40, WIDTH, HEIGHT, 1, bits, kind, most, 0, 0, colours, 0) + palette
    stream = chunk(b"LIST", b"strl" + chunk(b"strh", b"vids" + fourcc + header) + chunk(b"strf", format))
    movie, index = b"movi", b""
    for number, body in enumerate(chunks):
        flags = 16 if keys is None or keys[number] else 0
        index += b"00dc" + struct.pack("<III", flags, len(movie), len(body))
        movie += chunk(b"00dc", body)
    parts = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + stream) + chunk(b"LIST", movie) + chunk(b"idx1", index)
    path.write_bytes(chunk(b"RIFF", b"AVI " + parts))


def packed_b_frames(path: Path) -> None:
    """As DivX and XviD wrote them: a P-frame and the B-frame shown before it in one chunk, then one without a frame."""
    source = path.with_suffix(".source.avi")
    write(source, "mpeg4", options={"qmin": "2", "qmax": "4"}, max_b_frames=1, gop_size=20)
    start, b_frame, nothing = b"\0\0\1\xb6", 2, b"\0\0\1\xb6\x50\0\x7f"
    chunks, keys = [], []
    for picture, key in packets(source):
        if picture[picture.index(start) + 4] >> 6 == b_frame:
            chunks[-1] += picture
            picture, key = nothing, False
        elif key:  # where an encoder notes that it packs
            at = picture.index(start)
            picture = picture[:at] + b"\0\0\1\xb2DivX503b1393p\0" + picture[at:]
        chunks.append(picture)
        keys.append(key)
    write_avi(path, chunks, b"XVID", keys=keys)


def empty_chunks(path: Path) -> None:
    """A recorder that wrote nothing where the picture did not change."""
    source = path.with_suffix(".source.avi")
    write(source, "mjpeg", pix_fmt="yuvj420p")
    chunks = [b"" if number % 5 == 3 else picture for number, (picture, _) in enumerate(packets(source))]
    write_avi(path, chunks, b"MJPG")


def palettised(path: Path) -> None:
    greys = b"".join(bytes([level, level, 255 - level, 0]) for level in range(256))
    ramp = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    frames = [((ramp + 20 * number) % 256).astype(np.uint8) for number in range(20)]
    write_avi(path, [f[::-1].tobytes() for f in frames], b"DIB ", bits=8, compression=bytes(4), palette=greys)


def latin_1(path: Path) -> None:
    """A title as programs on Windows wrote it."""
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "Caf#"
        stream = out.add_stream("mpeg4", rate=25, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        for picture in pictures():
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"Caf#", b"Caf\xe9"))


# -- mp4, byte by byte -------------------------------------------------------------------------------------------------


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def inserted(data: bytes, at: int, parents: Sequence[bytes], new: bytes) -> bytes:
    """Put a box at an offset and make the boxes around it longer. The media data must lie before them."""
    grown = bytearray(data)
    begin = data.index(b"moov") - 4
    for name in parents:
        place = begin + data[begin:].index(name) - 4
        struct.pack_into(">I", grown, place, struct.unpack_from(">I", data, place)[0] + len(new))
    return bytes(grown[:at] + new + grown[at:])


def edited(path: Path, *edits: tuple[int, int], **options: Any) -> None:
    """Show these parts alone, each (first frame, frames) at 25 frames a second: an edit list, as cameras trim."""
    write(path, "libx264", **({"options": {"g": "10", "bf": "2"}} | options))
    data = path.read_bytes()
    at = data.index(b"elst") - 4
    scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    movie = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)[0]
    first = struct.unpack_from(">i", data, at + 20)[0]
    entries = b"".join(
        struct.pack(">IiHH", frames * movie // 25, first + start * scale // 25, 1, 0) for start, frames in edits
    )
    new = box(b"elst", struct.pack(">II", 0, len(edits)) + entries)
    old = struct.unpack_from(">I", data, at)[0]
    cut = data[:at] + data[at + old :]
    grown = bytearray(inserted(cut, at, [b"moov", b"trak", b"edts"], new))
    for name in (b"moov", b"trak", b"edts"):  # they were the longer by what is cut out
        place = grown.index(name) - 4
        struct.pack_into(">I", grown, place, struct.unpack_from(">I", grown, place)[0] - old)
    path.write_bytes(grown)


def without_sync_table(path: Path, codec: str, **options: Any) -> None:
    """By the standard every frame is a key frame then, and most are not."""
    write(path, codec, **options)
    data = path.read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"free"))


def all_sync(path: Path, codec: str, **options: Any) -> None:
    """A table that lists every frame, as some recorders write it."""
    write(path, codec, **options)
    data = path.read_bytes()
    at = data.index(b"stss") - 4
    count = len(packets(path))
    new = box(b"stss", struct.pack(">II", 0, count) + struct.pack(f">{count}I", *range(1, count + 1)))
    grown = inserted(data, at, [b"moov", b"trak", b"mdia", b"minf", b"stbl"], new)
    old = at + len(new) + 4
    assert grown[old : old + 4] == b"stss"
    path.write_bytes(grown[:old] + b"free" + grown[old + 4 :])


def cover_art_first(path: Path) -> None:
    """A picture that a tagger put before the tracks."""
    write(path, "libx264")
    art = path.with_suffix(".art.avi")
    write(art, "mjpeg", [np.full((200, 200, 3), 99, np.uint8)], pix_fmt="yuvj420p")
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    cover = box(b"ilst", box(b"covr", box(b"data", struct.pack(">II", 13, 0) + packets(art)[0][0])))
    tags = box(b"udta", box(b"meta", bytes(4) + handler + cover))
    data = path.read_bytes()
    movie = data.index(b"moov") - 4
    after = movie + 8 + struct.unpack_from(">I", data, movie + 8)[0]
    path.write_bytes(inserted(data, after, [b"moov"], tags))


def turned(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """(a, b, c, d) of the matrix that the file says to show its pictures by."""
    write(path, "libx264")
    data = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def turned_in_the_stream(path: Path) -> None:
    """Turned by 90 degrees in messages of the stream, and not in the file's header."""
    source = path.with_suffix(".source.mp4")
    write(source, "libx264", options={"g": "12"})
    with av.open(str(source)) as whole, av.open(str(path), "w") as out:
        stream = whole.streams.video[0]
        to = out.add_stream_from_template(stream)
        insert = BitStreamFilterContext("h264_metadata=display_orientation=insert:rotate=90", stream, to)
        for packet in whole.demux(stream):
            for changed in insert.filter(packet if packet.size else None):
                changed.stream = to
                out.mux(changed)


# -- streams -----------------------------------------------------------------------------------------------------------


def open_gop_cut(path: Path) -> None:
    """Cut from a longer stream at a key frame: its first pictures refer to some before it."""
    source = path.with_suffix(".source.mkv")
    options = {"g": "15", "x264-params": "open-gop=1:bframes=3:b-adapt=0:b-pyramid=none:scenecut=0"}
    write(source, "libx264", pictures(60), options=options)
    keys = [number for number, (_, key) in enumerate(packets(source)) if key]
    copy(source, path, lambda number, _: number >= keys[1])


def invented_times(path: Path) -> None:
    """B-frames whose times of presentation are those of decoding, as a copy out of an AVI file leaves them."""
    source = path.with_suffix(".source.mkv")
    write(source, "libx264", options={"bf": "3", "g": "12"})

    def undo(number: int, packet: Any) -> bool:
        packet.pts = packet.dts = number * 40
        return True

    copy(source, path, undo)


def shifted(path: Path, codec: str, by: int, **options: Any) -> None:
    """Start late, or before zero."""
    write(path, codec, times=[number + by for number in range(FRAMES)], **options)
