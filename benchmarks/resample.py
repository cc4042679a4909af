"""Time `resample` beside every installed peer: the same work, one core, interleaved, results checked first.

    python benchmarks/resample.py [--rows 224] [--rounds 7] [--json out.json] [--plot out.png]

Each row is a batch of uint8 videos T x H x W x 3, a random box of about 0.8 of the area each, every second one flipped,
to float32 C x T x H x W normalised by mean and std. Everyone writes into existing memory. Times are medians of
the process's own time over interleaved rounds, so that what else runs on the machine is counted as little as possible;
the roofline is the time to read as many bytes as the boxes have and to write the clips once, measured in the same run.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from pymultigrid import Axis, Grid, _core, resample
from pymultigrid._resample import Temporal

MEAN, STD = np.array([0.45, 0.44, 0.40], "f4"), np.array([0.225, 0.22, 0.23], "f4")


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    name: str
    clips: int
    source: tuple[int, int, int]
    size: tuple[int, int, int]
    antialias: bool = False
    temporal: Temporal = "nearest"
    dtype: str = "float32"
    ragged: bool = False


SMALL, LARGE = (16, 256, 320), (8, 1080, 1920)
WORKS = (
    Work("224 linear", 8, SMALL, (16, 224, 224)),
    Work("224 antialias", 8, SMALL, (16, 224, 224), True),
    Work("158 linear", 8, SMALL, (8, 158, 158)),
    Work("158 antialias", 8, SMALL, (8, 158, 158), True),
    Work("112 linear", 8, SMALL, (4, 112, 112)),
    Work("112 antialias", 8, SMALL, (4, 112, 112), True),
    Work("16x112 antialias", 8, SMALL, (16, 112, 112), True),
    Work("158 trilinear", 8, SMALL, (8, 158, 158), False, "linear"),
    Work("1080p antialias", 1, LARGE, (8, 224, 224), True),
    Work("1080p linear", 1, LARGE, (8, 224, 224)),
    Work("224 linear uint8", 8, SMALL, (16, 224, 224), dtype="uint8"),
    Work("112 linear uint8", 8, SMALL, (4, 112, 112), dtype="uint8"),
    Work("224 linear float16", 8, SMALL, (16, 224, 224), dtype="float16"),
    Work("158 linear ragged", 8, SMALL, (8, 158, 158), ragged=True),
)


@dataclass(frozen=True)
class Clip:
    """A video and the box of it that is read: frames, rows y0:y1, columns x0:x1, and whether it is flipped."""

    video: np.ndarray
    frames: np.ndarray
    y0: int
    y1: int
    x0: int
    x1: int
    flip: bool

    @property
    def box(self) -> np.ndarray:
        """The box of the frames that temporal nearest picks, a view but for the frames' choice."""
        stride = self.frames[1] - self.frames[0] if len(self.frames) > 1 else 1
        return self.video[self.frames[0] : self.frames[-1] + 1 : stride, self.y0 : self.y1, self.x0 : self.x1]


def make_clips(work: Work, rng: np.random.Generator) -> list[Clip]:
    clips = []
    for i in range(work.clips):
        t, h, w = work.source
        if work.ragged:
            h, w = h + 8 * (i % 4) - 12, w + 16 * (i % 3) - 16
        video = rng.integers(0, 256, (t, h // 8 + 1, w // 8 + 1, 3)).repeat(8, 1).repeat(8, 2)[:, :h, :w]
        video = np.clip(video + rng.integers(-20, 20, video.shape), 0, 255).astype("uint8")
        side = np.sqrt(0.8 * rng.uniform(0.97, 1.03))
        bh, bw = round(h * side), round(w * side)
        y, x = int(rng.integers(0, h - bh + 1)), int(rng.integers(0, w - bw + 1))
        clips.append(Clip(video, np.arange(work.size[0]) * (t // work.size[0]), y, y + bh, x, x + bw, i % 2 == 1))
    return clips


def make_grid(work: Work, clip: Clip) -> Grid:
    t, h, w = work.size
    x, span = (clip.x1, clip.x0 - clip.x1) if clip.flip else (clip.x0, clip.x1 - clip.x0)
    return Grid(Axis(0, clip.video.shape[0], t), Axis(clip.y0, clip.y1 - clip.y0, h), Axis(x, span, w))


def ours(work: Work, clips: list[Clip], out: np.ndarray, threads: int = 1) -> None:
    normalise: dict[str, Any] = {} if work.dtype == "uint8" else {"mean": MEAN, "std": STD}
    resample(
        [clip.video for clip in clips],
        [make_grid(work, clip) for clip in clips],
        antialias=work.antialias,
        temporal=work.temporal,
        out=out,
        threads=threads,
        **normalise,
    )


def opencv(work: Work, clips: list[Clip], out: np.ndarray) -> None:
    cv2: Any = importlib.import_module("cv2")

    lut = [((np.arange(256, dtype="f4") / 255 - MEAN[c]) / STD[c]).astype("f4") for c in range(3)]
    frame = np.empty((*work.size[1:], 3), "uint8")
    planes = [np.empty(work.size[1:], "uint8") for _ in range(3)]
    for clip, to in zip(clips, out, strict=True):
        for t, box in enumerate(clip.box):
            cv2.resize(box, work.size[:0:-1], dst=frame, interpolation=cv2.INTER_LINEAR)
            if clip.flip:
                cv2.flip(frame, 1, dst=frame)
            cv2.split(frame, planes)
            for c in range(3):
                if work.dtype == "uint8":
                    to[c, t] = planes[c]
                else:
                    cv2.LUT(planes[c], lut[c], dst=to[c, t])


def opencv_resize_alone(work: Work, clips: list[Clip], out: np.ndarray) -> None:
    cv2: Any = importlib.import_module("cv2")

    frame = np.empty((*work.size[1:], 3), "uint8")
    for clip in clips:
        for box in clip.box:
            cv2.resize(box, work.size[:0:-1], dst=frame, interpolation=cv2.INTER_LINEAR)


def torch_float(work: Work, clips: list[Clip], out: np.ndarray) -> None:
    import torch
    from torch.nn.functional import interpolate

    mean, std = torch.from_numpy(MEAN).view(3, 1, 1, 1), torch.from_numpy(STD).view(3, 1, 1, 1)
    for clip, to in zip(clips, torch.from_numpy(out), strict=True):
        if work.temporal == "linear":
            video = torch.from_numpy(clip.video[:, clip.y0 : clip.y1, clip.x0 : clip.x1])
            x = interpolate(video.permute(3, 0, 1, 2)[None].float(), work.size, mode="trilinear")[0]
        else:
            video = torch.from_numpy(clip.box).permute(0, 3, 1, 2).float()
            x = interpolate(video, work.size[1:], mode="bilinear", antialias=work.antialias).transpose(0, 1)
        if clip.flip:
            x = x.flip(-1)
        torch.div(x.div_(255).sub_(mean), std, out=to)


def torch_uint8(work: Work, clips: list[Clip], out: np.ndarray) -> None:
    import torch
    from torch.nn.functional import interpolate

    scale = torch.from_numpy(1 / (255 * STD)).view(3, 1, 1, 1)
    shift = torch.from_numpy(-MEAN / STD).view(3, 1, 1, 1)
    for clip, to in zip(clips, torch.from_numpy(out), strict=True):
        video = torch.from_numpy(clip.box).permute(0, 3, 1, 2)
        x = interpolate(video, work.size[1:], mode="bilinear", antialias=work.antialias).transpose(0, 1)
        if clip.flip:
            x = x.flip(-1)
        to.copy_(x).mul_(scale).add_(shift)


def torchvision_v2(work: Work, clips: list[Clip], out: np.ndarray) -> None:
    import torch

    v2: Any = importlib.import_module("torchvision.transforms.v2.functional")

    for clip, to in zip(clips, torch.from_numpy(out), strict=True):
        x = torch.from_numpy(clip.box).permute(0, 3, 1, 2)
        x = v2.resize(x, list(work.size[1:]), antialias=work.antialias)
        if clip.flip:
            x = v2.horizontal_flip(x)
        x = v2.normalize(v2.to_dtype(x, torch.float32, scale=True), MEAN.tolist(), STD.tolist(), inplace=True)
        to.copy_(x.transpose(0, 1))


def pillow(work: Work, clips: list[Clip], out: np.ndarray) -> None:
    from PIL import Image

    scale, shift = 1 / (255 * STD), -MEAN / STD
    for clip, to in zip(clips, out, strict=True):
        for t, box in enumerate(clip.box):
            image = Image.fromarray(np.ascontiguousarray(box)).resize(work.size[:0:-1], Image.Resampling.BILINEAR)
            x = np.asarray(image)[:, :: -1 if clip.flip else 1]
            for c in range(3):
                np.multiply(x[..., c], scale[c], out=to[c, t])
                to[c, t] += shift[c]


def tf_image(work: Work, clips: list[Clip], out: np.ndarray) -> None:
    tf: Any = importlib.import_module("tensorflow")

    for clip, to in zip(clips, out, strict=True):
        x = tf.image.resize(tf.convert_to_tensor(clip.box), work.size[1:], antialias=work.antialias)
        if clip.flip:
            x = tf.reverse(x, [2])
        to[...] = tf.transpose((x / 255 - MEAN) / STD, [3, 0, 1, 2]).numpy()


@dataclass(frozen=True)
class Peer:
    """How a peer is called, where it applies, and how many levels (0..255) off it may be."""

    module: str
    run: Callable[[Work, list[Clip], np.ndarray], None]
    applies: Callable[[Work], bool]
    levels: float = 1.01


def plain_float(work: Work) -> bool:
    return work.dtype == "float32" and work.temporal == "nearest"


PEERS = {
    "OpenCV": Peer("cv2", opencv, lambda w: not w.antialias and w.temporal == "nearest" and w.dtype != "float16"),
    "cv2.resize alone": Peer("cv2", opencv_resize_alone, lambda w: w.dtype == "uint8", np.inf),
    "torch float": Peer("torch", torch_float, lambda w: w.dtype == "float32", 0.1),
    "torch uint8": Peer("torch", torch_uint8, plain_float, 2.01),
    "torchvision v2": Peer("torchvision.transforms.v2", torchvision_v2, plain_float, 2.01),
    "Pillow": Peer("PIL", pillow, lambda w: plain_float(w) and w.antialias, 1.51),
    "tf.image": Peer("tensorflow", tf_image, plain_float, 0.1),
}


def installed() -> dict[str, Peer]:
    found = {}
    for name, peer in PEERS.items():
        try:
            importlib.import_module(peer.module)
            found[name] = peer
        except Exception as error:  # a peer that does not import here is named and left out
            print(f"without {name}: {type(error).__name__}: {error}"[:120], file=sys.stderr)
    return found


def one_core() -> None:
    """Pin the process, and tell the peers."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    modules: dict[str, Any] = dict(sys.modules)
    if "torch" in modules:
        modules["torch"].set_num_threads(1)
    if "cv2" in modules:
        modules["cv2"].setNumThreads(1)


def roofline(work: Work, clips: list[Clip], out: np.ndarray) -> tuple[Callable[[], None], int]:
    """Return what reads the source boxes once and writes the clips once, and the bytes it moves."""
    boxes = [clip.box if work.temporal == "nearest" else clip.video for clip in clips]
    total = sum(box.size for box in boxes)
    source = np.concatenate([clip.video.ravel() for clip in clips])
    source = np.resize(source, -(-total // 8) * 8).view("u8")

    def run() -> None:
        source.max()
        out.fill(1)

    return run, total + out.nbytes


def check(work: Work, name: str, peer: Peer, clips: list[Clip], want: np.ndarray, out: np.ndarray) -> None:
    """Refuse a peer that does other work, up to its own rounding."""
    if np.isinf(peer.levels):
        return
    out.fill(0)
    peer.run(work, clips, out)
    levels = 1.0 if work.dtype == "uint8" else 255 * STD.max()
    off = np.abs(out.astype("f4") - want.astype("f4")).max() * levels
    if off > peer.levels:
        raise SystemExit(f"{name} does other work than ours on {work.name}: {off:.3f} levels apart")


def measure(work: Work, peers: dict[str, Peer], rounds: int) -> dict[str, float]:
    """Return median seconds by name, interleaved."""
    clips = make_clips(work, np.random.default_rng(0))
    shape = (work.clips, 3, *work.size)
    out, want = _core.empty(shape, np.dtype(work.dtype)), _core.empty(shape, np.dtype(work.dtype))
    ours(work, clips, want)
    runs: dict[str, Callable[[], None]] = {"pymultigrid": lambda: ours(work, clips, want)}
    runs["ours in fresh memory"] = lambda: ours(work, clips, np.empty_like(want))
    for name, peer in peers.items():
        if peer.applies(work):
            check(work, name, peer, clips, want, out)
            runs[name] = partial(peer.run, work, clips, out)
    runs["roofline"], moved = roofline(work, clips, out)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            for _ in range(3 if name in ("pymultigrid", "roofline") else 1):
                start = time.process_time()
                run()
                times[name].append(time.process_time() - start)
    return {"bytes": moved, **{name: float(np.median(values)) for name, values in times.items()}}


def two_threads(work: Work, rounds: int) -> float:
    """Return how many times faster two threads write the batch than one, by the clock on the wall."""
    clips = make_clips(work, np.random.default_rng(0))
    out = _core.empty((work.clips, 3, *work.size), np.dtype(work.dtype))
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3 * rounds):
        for threads, seconds in times.items():
            start = time.perf_counter()
            ours(work, clips, out, threads)
            seconds.append(time.perf_counter() - start)
    return float(np.median(times[1]) / np.median(times[2]))


def report(work: Work, result: dict[str, float]) -> None:
    mine, roof = result["pymultigrid"], result["roofline"]
    ratios = [
        f"{name} {t / mine:.1f}x" for name, t in result.items() if name not in ("bytes", "pymultigrid", "roofline")
    ]
    speed = f"{1e3 * mine:7.2f} ms {result['bytes'] / mine / 1e9:5.1f} GB/s {mine / roof:4.2f}x roofline"
    print(f"{work.name:20} {speed}  {'  '.join(ratios)}", flush=True)


def plot(results: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in PEERS if any(name in result for result in results.values())]
    figure, axes = plt.subplots(figsize=(11, 5), layout="constrained")
    for i, name in enumerate(names):
        at = [k for k, result in enumerate(results.values()) if name in result]
        ratios = [result[name] / result["pymultigrid"] for result in results.values() if name in result]
        axes.bar(np.array(at) + (i - len(names) / 2) * 0.8 / len(names), ratios, 0.8 / len(names), label=name)
    axes.axhline(1, color="black", linewidth=1)
    axes.set(yscale="log", ylabel="time / pymultigrid's", title="One core, the same work, existing memory")
    axes.set_xticks(range(len(results)), list(results), rotation=30, ha="right")
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default="", help="only the rows whose name contains this")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", default="", help="only the peers whose name contains one of these, by commas")
    parser.add_argument("--path", choices=_core._vector_paths(), help="vector instructions to use")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    if args.path:
        _core._choose_vector_path(args.path)
    wanted = args.peers.lower().split(",")
    peers = {name: peer for name, peer in installed().items() if any(word in name.lower() for word in wanted)}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    one_core()
    print(f"vector path {_core._vector_path()}; ratios are the other's time over ours")
    results = {}
    for work in WORKS:
        if args.rows in work.name:
            results[work.name] = measure(work, peers, args.rounds)
            report(work, results[work.name])
    if len(cores) > 1:
        os.sched_setaffinity(0, cores)
        ratios = [f"{work.name} {two_threads(work, args.rounds):.2f}x" for work in WORKS if work.name in results]
        print("two threads, of one's speed (needs two idle cores):  " + "  ".join(ratios))
    if args.json:
        args.json.write_text(json.dumps({"seconds": results, "vector_path": _core._vector_path()}, indent=1) + "\n")
    if args.plot:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
