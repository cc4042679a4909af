"""One small file of every kind that people keep videos in: a way to write it for each name in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from video_bytes import (
    all_sync,
    cover_art_first,
    edited,
    empty_chunks,
    invented_times,
    latin_1,
    open_gop_cut,
    packed_b_frames,
    palettised,
    pictures,
    shifted,
    without_sync_table,
    write,
)

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
