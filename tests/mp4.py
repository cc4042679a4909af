"""Real H.264 files for the tests."""

from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 64, 48


def write(
    path, frames=40, *, height=HEIGHT, width=WIDTH, gop=12, b_frames=3, rate=30, codec="libx264", tint=0, **options
):
    """Encode a moving texture whose top left corner shows the frame's number, and return the path.

    `tint`, up to 127, makes the rest brighter.
    """
    path = Path(path)
    texture = np.random.default_rng(0).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    texture = texture.repeat(8, 0).repeat(8, 1)[:height, :width]
    texture = texture // 2 + np.uint8(tint) if tint else texture
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream(codec, rate=rate, width=width, height=height, pix_fmt="yuv420p")
        stream.options = {"g": str(gop), "bf": str(b_frames)}
        for number in range(frames):
            picture = np.roll(texture, number, axis=1)
            picture[:16, :16] = number * 6 % 256
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return path


def write_classes(root):
    """Write three classes of two files each, of different lengths and sizes, and return the folder."""
    for label, name in enumerate(("cat", "dog", "eel")):
        (root / name).mkdir()
        for i in range(2):
            write(root / name / f"{i}.mp4", frames=24 + 8 * label, height=48 + 16 * i, width=64 + 16 * label)
    return root


def decode(path):
    """Every frame of a file in order, by PyAV's plain loop: the reference for `Video.read`."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def write_grey(path, level, frames=12):
    """Encode frames of one grey level, and return the path."""
    path = Path(path)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        picture = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
        for _ in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return path
