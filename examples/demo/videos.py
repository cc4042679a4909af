"""The data set: real H.264 files of handwritten digits that move and turn.

The digits are scikit-learn's bundled 8 x 8 scans; their motion is drawn by a program, so this is synthetic video. A
digit sets off in one of four directions and makes one turn, to the left or to the right, about the middle of the video.
The label is digit (10) x motion (8), and the motion can only be told from the order of the frames. Test videos show
scans that no training video shows.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from tqdm import tqdm

FRAMES, SIDE = 28, 48
DIGITS, MOTIONS = 10, 8
TRAINING_SCANS = 1300  # of 1797; the others are for the test videos
DIRECTIONS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])  # right, down, left, up: (y, x)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """Video files and, for each, its (digit, motion)."""

    paths: list[Path]
    labels: list[tuple[int, int]]


def write_split(folder: Path, name: str, count: int, seed: int) -> Split:
    """Write `count` videos of the training or the test scans, the same for the same seed, on all cores."""
    scans, digits = load_digits(return_X_y=True)
    chosen = np.resize(scans_of(name, seed), count)
    motions = np.random.default_rng((seed, name == "train")).integers(MOTIONS, size=count)
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:05d}-digit{digits[scan]}-motion{motions[i]}.mp4" for i, scan in enumerate(chosen)]
    jobs = zip(paths, scans[chosen].reshape(-1, 8, 8) / 16, motions, strict=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        written = pool.map(partial(write_video, seed=seed), *zip(*jobs, strict=True), chunksize=16)
        for _ in tqdm(written, f"writing {name} videos", count, unit="file"):
            pass
    return Split(paths, [(int(digits[scan]), int(motion)) for scan, motion in zip(chosen, motions, strict=True)])


def scans_of(name: str, seed: int) -> NDArray[np.int64]:
    """Return which scans the training or the test videos show, in a random order; none is in both."""
    order = np.random.default_rng(seed).permutation(len(load_digits().target))
    return order[:TRAINING_SCANS] if name == "train" else order[TRAINING_SCANS:]


def write_video(path: Path, scan: Floats, motion: int, *, seed: int) -> None:
    """Render one video and encode it. A key frame every 12 frames makes it cheap to read only a few of them."""
    frames = render(scan, motion, np.random.default_rng((seed, *path.name.encode())))
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, width=SIDE, height=SIDE, pix_fmt="yuv420p")
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "g": "12", "crf": "26"}
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        file.mux(stream.encode())


def render(scan: Floats, motion: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw FRAMES x SIDE x SIDE pixels: texture, the digit on its way, a stroke that distracts, sensor noise."""
    size = np.exp(rng.uniform(np.log(22), np.log(36)))
    way = turning_path(motion, speed=np.exp(rng.uniform(np.log(0.35), np.log(0.9))), rng=rng)
    slack = np.clip(SIDE - size - np.ptp(way, axis=0), 0, None) / 2
    way = way + SIDE / 2 + rng.uniform(-1, 1, 2) * slack
    angle = rng.uniform(0, 2 * np.pi)
    drift = np.outer(np.arange(FRAMES) - FRAMES / 2, (np.sin(angle), np.cos(angle))) * rng.uniform(0, 1)
    stroke = rng.permuted(scan[2:6, 2:6])
    scene = 0.35 + 0.12 * enlarge(rng.normal(size=(1, 6, 6)), np.full((1, 2), SIDE / 2), SIDE * 1.2)
    scene = scene + rng.uniform(0.4, 0.9) * enlarge(scan[None], way, size)
    scene = scene + 0.5 * enlarge(stroke[None], drift + rng.uniform(6, SIDE - 6, 2), rng.uniform(6, 12))
    scene = scene + rng.normal(scale=0.03, size=scene.shape)
    return (np.clip(scene, 0, 1) * 255).astype(np.uint8)


def turning_path(motion: int, *, speed: float, rng: np.random.Generator) -> Floats:
    """Return the centre (y, x) in every frame, around 0: straight on, one turn, straight on, and a shaking hand."""
    direction, side = divmod(motion, 2)
    before, after = DIRECTIONS[direction], DIRECTIONS[(direction + (1 if side else 3)) % 4]
    turn = rng.integers(FRAMES // 2 - 2, FRAMES // 2 + 3)
    way = np.cumsum(np.where(np.arange(FRAMES)[:, None] < turn, before, after) * speed, axis=0)
    shaken: Floats = way - (way.max(0) + way.min(0)) / 2 + rng.normal(scale=0.3, size=way.shape)
    return shaken


def enlarge(pictures: Floats, centres: Floats, size: float) -> Floats:
    """Paint a picture `size` pixels wide around each centre on an empty SIDE x SIDE frame, linearly interpolated."""
    cells = pictures.shape[-1]
    # Where each pixel lies in the picture, T x 2 x SIDE, and how much of each cell it sees, T x 2 x SIDE x cells.
    place = ((np.arange(SIDE) + 0.5 - centres[..., None]) / size + 0.5) * cells - 0.5
    weight = np.clip(1 - np.abs(place[..., None] - np.arange(cells)), 0, None)
    return np.asarray(weight[:, 0] @ pictures @ weight[:, 1].swapaxes(-1, -2))
