"""One small file of every kind that people keep videos in: a way to write it for each name in `KINDS`.

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


H264: dict[str, Any] = {"options": {"g": "12", "bf": "3"}}
FINE: dict[str, Any] = {"options": {"qmin": "2", "qmax": "4"}, "gop_size": 12}
LIVELY = {"g": "12", "bf": "3", "b_strategy": "0"}
UNEVEN = np.cumsum(np.random.default_rng(0).integers(1, 9, 400)).tolist()
TICK = Fraction(1, 90000)


def _x265(params: str) -> dict[str, Any]:
    return {"options": {"x265-params": f"log-level=none:pools=none:{params}"}}


def _x264(params: str) -> dict[str, Any]:
    return {"options": {"x264-params": params}}


def _made(codec: str, frames: Sequence[np.ndarray] | None = None, **options: Any) -> Callable[[Path], None]:
    return lambda path: write(path, codec, frames, **options)


KINDS: dict[str, tuple[str, Callable[[Path], None]]] = {
    # H.264 in mp4 and its relatives
    "h264 mp4": (".mp4", _made("libx264", **H264)),
    "h264 mp4, one key frame": (".mp4", _made("libx264", options={"g": "250", "bf": "3"})),
    "h264 mp4, no B-frames": (".mp4", _made("libx264", options={"g": "12", "bf": "0"})),
    "h264 mp4, key frames alone": (".mp4", _made("libx264", options={"g": "1"})),
    "h264 mp4, pyramid": (".mp4", _made("libx264", **_x264("keyint=16:bframes=7:b-adapt=0:b-pyramid=normal:ref=4"))),
    "h264 mp4, open GOP": (".mp4", _made("libx264", **_x264("keyint=10:open-gop=1:bframes=3:b-adapt=0:scenecut=0"))),
    "h264 mp4, short open GOP": (".mp4", _made("libx264", **_x264("keyint=3:open-gop=1:bframes=2:b-adapt=0"))),
    "h264 mp4, intra refresh": (".mp4", _made("libx264", **_x264("keyint=9:intra-refresh=1:bframes=0"))),
    "h264 mp4, interlaced": (".mp4", _made("libx264", **_x264("keyint=12:tff=1:bframes=2"))),
    "h264 mp4, several slices": (".mp4", _made("libx264", **_x264("keyint=12:slices=3:bframes=2"))),
    "h264 mp4, fragments": (".mp4", _made("libx264", muxer={"movflags": "frag_keyframe+empty_moov"}, **H264)),
    "h264 mp4, header first": (".mp4", _made("libx264", muxer={"movflags": "+faststart"}, **H264)),
    "h264 mp4, negative offsets": (".mp4", _made("libx264", muxer={"movflags": "negative_cts_offsets"}, **H264)),
    "h264 mp4, no edit list": (".mp4", _made("libx264", muxer={"use_editlist": "0"}, **H264)),
    "h264 mp4, edit list at the start": (".mp4", lambda path: edited(path, (13, 27))),
    "h264 mp4, edit list at the end": (".mp4", lambda path: edited(path, (0, 25))),
    "h264 mp4, edit list at both": (".mp4", lambda path: edited(path, (13, 20))),
    "h264 mp4, edit list of segments": (".mp4", lambda path: edited(path, (23, 9), (4, 11))),
    "h264 mp4, key frames not listed": (".mp4", lambda path: without_sync_table(path, "libx264", **H264)),
    "h264 mp4, all called key frames": (".mp4", lambda path: all_sync(path, "libx264", **H264)),
    "h264 mp4, late start": (".mp4", lambda path: shifted(path, "libx264", 77, **H264)),
    "h264 mp4, variable rate": (".mp4", _made("libx264", times=UNEVEN, **H264)),
    "h264 mp4, a tick apart": (
        ".mp4",
        _made("libx264", times=[0, 1, *range(90000, 90000 * 400, 90000)], tick=TICK, **H264),
    ),
    "h264 mp4, several videos": (".mp4", _made("libx264", streams=2, **H264)),
    "h264 mp4, cover art first": (".mp4", cover_art_first),
    "h264 mp4, one frame": (".mp4", _made("libx264", frames=pictures(1))),
    "h264 mp4, two frames": (".mp4", _made("libx264", frames=pictures(2))),
    "h264 mp4, 4:2:2": (".mp4", _made("libx264", pix_fmt="yuv422p", **H264)),
    "h264 mp4, 4:4:4, odd size": (".mp4", _made("libx264", pictures(40, 47, 63), pix_fmt="yuv444p", **H264)),
    "h264 mp4, 10 bits": (".mp4", _made("libx264", pix_fmt="yuv420p10le", **H264)),
    "h264 mp4, full range": (".mp4", _made("libx264", pix_fmt="yuvj420p", **H264)),
    "h264 mp4, BT.601": (".mp4", _made("libx264", colorspace=5, **H264)),
    "h264 mp4, BT.709": (".mp4", _made("libx264", colorspace=1, **H264)),
    "h264 mp4, BT.2020": (".mp4", _made("libx264", colorspace=9, pix_fmt="yuv420p10le", **H264)),
    "h264 mp4, RGB": (".mp4", _made("libx264rgb", pix_fmt="rgb24", **H264)),
    "h264 mov": (".mov", _made("libx264", **H264)),
    "h264 3gp": (".3gp", _made("libx264", **H264)),
    "h264 mkv": (".mkv", _made("libx264", **H264)),
    "h264 mkv, no cues": (".mkv", _made("libx264", muxer={"live": "1"}, **H264)),
    "h264 mkv, open GOP cut": (".mkv", open_gop_cut),
    "h264 mkv, invented times": (".mkv", invented_times),
    "h264 mkv, negative start": (
        ".mkv",
        lambda path: shifted(path, "libx264", -20, muxer={"avoid_negative_ts": "disabled"}, **H264),
    ),
    "h264 avi": (".avi", _made("libx264", options=LIVELY)),
    "h264 flv": (".flv", _made("libx264", **H264)),
    "h264 ts": (".ts", _made("libx264", **H264)),
    "h264 ts, late start": (".ts", lambda path: shifted(path, "libx264", 9999, **H264)),
    "h264 ts, open GOP": (".ts", _made("libx264", **_x264("keyint=10:open-gop=1:bframes=3:b-adapt=0:scenecut=0"))),
    "h264 m2ts": (".m2ts", _made("libx264", format="mpegts", muxer={"mpegts_m2ts_mode": "1"}, **H264)),
    "h264 mpg": (".mpg", _made("libx264", **H264)),
    # newer
    "hevc mp4": (".mp4", _made("libx265", **_x265("keyint=12:bframes=3"))),
    "hevc mp4, open GOP": (".mp4", _made("libx265", **_x265("keyint=10:open-gop=1:bframes=4"))),
    "hevc mp4, leading pictures": (".mp4", _made("libx265", **_x265("keyint=10:open-gop=0:bframes=4:radl=2"))),
    "hevc mp4, key frames not listed": (
        ".mp4",
        lambda path: without_sync_table(path, "libx265", **_x265("keyint=12:bframes=3")),
    ),
    "hevc mkv, 10 bits": (".mkv", _made("libx265", pix_fmt="yuv420p10le", **_x265("keyint=12"))),
    "hevc ts": (".ts", _made("libx265", **_x265("keyint=12:bframes=3"))),
    "vp8 webm": (".webm", _made("libvpx", options={"g": "12", "deadline": "realtime", "cpu-used": "8"})),
    "vp8 webm, hidden frames": (
        ".webm",
        _made("libvpx", options={"g": "20", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "5"}),
    ),
    "vp9 webm": (".webm", _made("libvpx-vp9", options={"g": "12", "deadline": "realtime", "cpu-used": "8"})),
    "vp9 mp4, hidden frames": (
        ".mp4",
        _made("libvpx-vp9", options={"g": "20", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "5"}),
    ),
    "av1 mp4": (".mp4", _made("libsvtav1", options={"preset": "12", "g": "16", "svtav1-params": "lp=1"})),
    "av1 mkv": (".mkv", _made("libsvtav1", options={"preset": "12", "g": "16", "svtav1-params": "lp=1"})),
    "av1 webm, low delay": (
        ".webm",
        _made("libsvtav1", options={"preset": "12", "g": "16", "svtav1-params": "pred-struct=1:lp=1"}),
    ),
    # older
    "mpeg4 avi": (".avi", _made("mpeg4", **FINE)),
    "mpeg4 avi, B-frames": (".avi", _made("mpeg4", max_b_frames=2, **FINE)),
    "mpeg4 avi, packed B-frames": (".avi", packed_b_frames),
    "mpeg4 avi, a Latin-1 title": (".avi", latin_1),
    "mpeg4 mp4, B-frames": (".mp4", _made("mpeg4", max_b_frames=2, **FINE)),
    "mpeg4 mp4, key frames not listed": (
        ".mp4",
        lambda path: without_sync_table(path, "mpeg4", max_b_frames=2, **FINE),
    ),
    "mpeg4 3gp": (".3gp", _made("mpeg4", **FINE)),
    "h263 3gp": (".3gp", _made("h263", pictures(40, 96, 128), **FINE)),
    "mpeg2 mpg": (".mpg", _made("mpeg2video", max_b_frames=2, **FINE)),
    "mpeg2 vob": (".vob", _made("mpeg2video", format="vob", max_b_frames=2, **FINE)),
    "mpeg2 ts": (".ts", _made("mpeg2video", max_b_frames=2, **FINE)),
    "mpeg2 mp4": (".mp4", _made("mpeg2video", max_b_frames=2, **FINE)),
    "mpeg2 mkv": (".mkv", _made("mpeg2video", max_b_frames=2, **FINE)),
    "mpeg1 mpg": (".mpg", _made("mpeg1video", max_b_frames=2, **FINE)),
    "flv1 flv": (".flv", _made("flv", **FINE)),
    "wmv1 wmv": (".wmv", _made("wmv1", **FINE)),
    "wmv2 wmv": (".wmv", _made("wmv2", **FINE)),
    "msmpeg4 avi": (".avi", _made("msmpeg4", **FINE)),
    # pictures one by one
    "mjpeg avi": (".avi", _made("mjpeg", pix_fmt="yuvj420p")),
    "mjpeg avi, empty chunks": (".avi", empty_chunks),
    "mjpeg mov": (".mov", _made("mjpeg", pix_fmt="yuvj422p")),
    "prores mov": (".mov", _made("prores_ks", pix_fmt="yuv422p10le")),
    "ffv1 mkv": (".mkv", _made("ffv1", pix_fmt="yuv420p", options={"g": "1"})),
    "ffv1 mkv, long GOP": (".mkv", _made("ffv1", pix_fmt="yuv420p", options={"g": "12", "coder": "1", "context": "1"})),
    "ffv1 avi": (".avi", _made("ffv1", pix_fmt="yuv444p")),
    "huffyuv avi": (".avi", _made("huffyuv", pix_fmt="yuv422p")),
    "png mov": (".mov", _made("png", pix_fmt="rgb24")),
    "qtrle mov": (".mov", _made("qtrle", pix_fmt="rgb24", gop_size=12)),
    "raw avi": (".avi", _made("rawvideo", pix_fmt="bgr24")),
    "raw mov": (".mov", _made("rawvideo", pix_fmt="rgb24")),
    "raw avi, palette": (".avi", palettised),
    "gif": (".gif", _made("gif", pix_fmt="rgb8")),
}


def make(kind: str, folder: Path) -> Path:
    """Write a file of this kind into `folder`."""
    suffix, maker = KINDS[kind]
    path = folder / f"{kind.replace(' ', '-').replace(',', '').replace(':', '')}{suffix}"
    maker(path)
    return path


def decoded(path: Path) -> np.ndarray:
    """Every picture that a decoder gives from the file's beginning to its end: the definition of its frames."""
    with av.open(str(path), metadata_errors="replace") as file:
        stream = file.streams.best("video")
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(stream)])
