"""Time `pymultigrid.torch.resample` on a GPU beside chains of torch operations, and CV-CUDA where installed.

    python benchmarks/resample_cuda.py [--rows 224] [--rounds 30] [--json out.json]

Each row is a batch of uint8 videos T x H x W x 3 on the GPU, a random box of about 0.8 of the area each, every second
one flipped, to normalised C x T x H x W, in existing memory. The result is checked against the CPU path first, and the
peers against ours. Times are medians between CUDA events, over batches that take turns and together exceed the L2
cache. GB/s are the bytes of the boxes, read once, and of the clips, written once; the share is of what a copy on the
device reaches in the same run.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pymultigrid import Axis, Grid, cuda_available, cuda_missing
from pymultigrid._core import cuda_build
from pymultigrid.torch import resample

MEAN, STD = (0.45, 0.44, 0.40), (0.225, 0.22, 0.23)


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    name: str
    clips: int
    source: tuple[int, int, int]
    size: tuple[int, int, int]
    antialias: bool = False
    temporal: Literal["nearest", "linear"] = "nearest"
    dtype: torch.dtype = torch.float16
    ragged: bool = False


SMALL, LARGE = (16, 256, 320), (8, 1080, 1920)
WORKS = (
    Work("224 linear", 64, SMALL, (16, 224, 224)),
    Work("224 linear uint8", 64, SMALL, (16, 224, 224), dtype=torch.uint8),
    Work("224 linear float32", 64, SMALL, (16, 224, 224), dtype=torch.float32),
    Work("224 antialias", 64, SMALL, (16, 224, 224), True),
    Work("224 antialias uint8", 64, SMALL, (16, 224, 224), True, dtype=torch.uint8),
    Work("158 antialias", 128, SMALL, (8, 158, 158), True),
    Work("112 linear", 256, SMALL, (8, 112, 112)),
    Work("112 antialias", 256, SMALL, (8, 112, 112), True),
    Work("158 trilinear", 64, SMALL, (8, 158, 158), False, "linear"),
    Work("158 antialias ragged", 128, SMALL, (8, 158, 158), True, ragged=True),
    Work("1080p antialias", 32, LARGE, (8, 224, 224), True),
    Work("224 linear one clip", 1, SMALL, (16, 224, 224)),
)


@dataclass(frozen=True)
class Batch:
    """Videos on the GPU, their boxes (y0, y1, x0, x1) and grids, and where the clips go."""

    work: Work
    videos: list[Tensor]
    boxes: list[tuple[int, int, int, int]]
    grids: list[Grid]
    out: Tensor

    @property
    def bytes(self) -> int:
        """Of the boxes' frames that are looked at, and of the clips."""
        frames = self.work.source[0] if self.work.temporal == "linear" else self.work.size[0]
        read = sum(frames * (y1 - y0) * (x1 - x0) * 3 for y0, y1, x0, x1 in self.boxes)
        return read + self.out.numel() * self.out.element_size()

    def frames(self, i: int) -> Tensor:
        """Return the box of the frames that are looked at, T x C x H x W."""
        t, (y0, y1, x0, x1) = self.work.source[0] // self.work.size[0], self.boxes[i]
        return self.videos[i][:: 1 if self.work.temporal == "linear" else t, y0:y1, x0:x1].permute(0, 3, 1, 2)


def make_batch(work: Work, rng: np.random.Generator) -> Batch:
    videos, boxes, grids = [], [], []
    for i in range(work.clips):
        t, h, w = work.source
        if work.ragged:
            h, w = h + 8 * (i % 4) - 12, w + 16 * (i % 3) - 16
        side = np.sqrt(0.8 * rng.uniform(0.97, 1.03))
        bh, bw = round(h * side), round(w * side)
        y, x = int(rng.integers(0, h - bh + 1)), int(rng.integers(0, w - bw + 1))
        videos.append(torch.randint(0, 256, (t, h, w, 3), dtype=torch.uint8, device="cuda"))
        boxes.append((y, y + bh, x, x + bw))
        across = Axis(x + bw, -bw, work.size[2]) if i % 2 else Axis(x, bw, work.size[2])
        grids.append(Grid(Axis(0, t, work.size[0]), Axis(y, bh, work.size[1]), across))
    return Batch(work, videos, boxes, grids, torch.empty((work.clips, 3, *work.size), dtype=work.dtype, device="cuda"))


def ours(batch: Batch) -> None:
    work = batch.work
    normalise: dict[str, Any] = {} if work.dtype == torch.uint8 else {"mean": MEAN, "std": STD}
    options: dict[str, Any] = {"antialias": work.antialias, "temporal": work.temporal, **normalise}
    resample(batch.videos, batch.grids, out=batch.out, **options)


def torch_chain(batch: Batch, dtype: torch.dtype) -> None:
    """Interpolate, flip, normalise and transpose: the fewest torch operations that do it, clip by clip."""
    from torch.nn.functional import interpolate

    work = batch.work
    mean = torch.tensor(MEAN, device="cuda", dtype=dtype).view(3, 1, 1, 1)
    std = torch.tensor(STD, device="cuda", dtype=dtype).view(3, 1, 1, 1)
    for i, to in enumerate(batch.out):
        frames = batch.frames(i)
        if work.temporal == "linear":
            x = interpolate(frames.transpose(0, 1)[None].to(dtype), work.size, mode="trilinear")[0]
        else:
            x = interpolate(frames.to(dtype), work.size[1:], mode="bilinear", antialias=work.antialias).transpose(0, 1)
        x = x.flip(-1) if i % 2 else x
        to.copy_(x.round_() if work.dtype == torch.uint8 else x.div_(255).sub_(mean).div_(std))


def cv_cuda(batch: Batch) -> None:
    """Resize by CV-CUDA into uint8, then flip, normalise and transpose by torch."""
    cvcuda: Any = importlib.import_module("cvcuda")

    mean = torch.tensor(MEAN, device="cuda", dtype=torch.float16).view(3, 1, 1, 1)
    scale = 1 / torch.tensor(STD, device="cuda", dtype=torch.float16).view(3, 1, 1, 1)
    for i, to in enumerate(batch.out):
        box = batch.frames(i).permute(0, 2, 3, 1).contiguous()
        shape = (batch.work.size[0], *batch.work.size[1:], 3)
        small = cvcuda.resize(cvcuda.as_tensor(box, "NHWC"), shape, cvcuda.Interp.LINEAR)
        x = torch.as_tensor(small.cuda(), device="cuda").permute(3, 0, 1, 2)
        x = x.flip(-1) if i % 2 else x
        to.copy_(x if batch.work.dtype == torch.uint8 else x.half().div_(255).sub_(mean).mul_(scale))


@dataclass(frozen=True)
class Peer:
    """How a peer is called, where it applies, and how many levels (0..255) off it may be."""

    run: Callable[[Batch], None]
    applies: Callable[[Work], bool]
    levels: float


PEERS = {
    "torch float32": Peer(lambda batch: torch_chain(batch, torch.float32), lambda work: True, 0.6),
    "torch float16": Peer(
        lambda batch: torch_chain(batch, torch.float16),
        lambda work: not (work.antialias or work.temporal == "linear"),
        2.0,
    ),
    "CV-CUDA": Peer(cv_cuda, lambda work: not (work.antialias or work.temporal == "linear"), 2.0),
}


def milliseconds(runs: list[Callable[[], Any]], rounds: int) -> float:
    """Return the median over rounds of one run each, in turns, between events; the clocks are read at the end."""
    for run in runs:
        run()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
    torch.cuda._sleep(20_000_000)  # so that the CPU is ahead
    for i, (start, end) in enumerate(events):
        start.record()
        runs[i % len(runs)]()
        end.record()
    torch.cuda.synchronize()
    return float(np.median([start.elapsed_time(end) for start, end in events]))


def copy_bandwidth(rounds: int) -> float:
    """Return bytes a second, read plus written, of copies of 512 MiB in turns."""
    sources = [torch.randint(0, 256, (2**29,), dtype=torch.uint8, device="cuda") for _ in range(3)]
    to = torch.empty_like(sources[0])
    return 2 * 2**29 / milliseconds([partial(to.copy_, source) for source in sources], rounds) * 1e3


def check_ours(batch: Batch) -> None:
    """Compare the first clips with the CPU path."""
    few = slice(0, 3)
    work = batch.work
    normalise: dict[str, Any] = {} if work.dtype == torch.uint8 else {"mean": MEAN, "std": STD}
    options: dict[str, Any] = {"antialias": work.antialias, "temporal": work.temporal, **normalise}
    want = resample([video.cpu() for video in batch.videos[few]], batch.grids[few], dtype=work.dtype, **options)
    batch.out.fill_(torch.nan if work.dtype.is_floating_point else 7)
    ours(batch)
    if not bool(batch.out.isfinite().all()):
        raise SystemExit(f"{work.name}: not everything was written")
    levels = 1.0 if work.dtype == torch.uint8 else 255 * max(STD)
    off = float((batch.out[few].cpu().float() - want.float()).abs().max()) * levels
    allowed = {torch.uint8: 1.0, torch.float32: 1e-3, torch.float16: 0.2}[work.dtype]
    if off > allowed:
        raise SystemExit(f"{work.name}: {off:.5f} levels from the CPU path")


def installed() -> dict[str, Peer]:
    found = dict(PEERS)
    try:
        importlib.import_module("cvcuda")
    except Exception as error:  # a peer that does not import here is named and left out
        del found["CV-CUDA"]
        print(f"without CV-CUDA: {type(error).__name__}: {error}"[:120], file=sys.stderr)
    return found


def measure(work: Work, peers: dict[str, Peer], rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    batches = [make_batch(work, rng)]
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    while len(batches) < 2 or (sum(batch.bytes for batch in batches) < 4 * l2 and len(batches) < 64):
        batches.append(make_batch(work, rng))
    check_ours(batches[0])
    result = {"bytes": float(np.mean([batch.bytes for batch in batches]))}
    result["pymultigrid"] = milliseconds([partial(ours, batch) for batch in batches], rounds)
    graphs = []
    for batch in batches:  # without Python's part
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            ours(batch)
        graphs.append(graph)
    result["in a graph"] = milliseconds([graph.replay for graph in graphs], rounds)
    want = batches[0].out.float().clone()
    for name, peer in peers.items():
        if not peer.applies(work):
            continue
        try:
            peer.run(batches[0])
        except Exception as error:  # a peer that cannot do the row is named and left out
            print(f"without {name} on {work.name}: {type(error).__name__}: {error}"[:160], file=sys.stderr)
            continue
        off = float((batches[0].out.float() - want).abs().max()) * (1 if work.dtype == torch.uint8 else 255 * max(STD))
        if off > max(peer.levels, 1.0 if work.dtype == torch.uint8 else 0):
            raise SystemExit(f"{name} does other work than ours on {work.name}: {off:.3f} levels apart")
        result[name] = milliseconds([partial(peer.run, batch) for batch in batches], rounds // 4 + 1)
    return result


def report(work: Work, result: dict[str, float], copy: float) -> str:
    mine = result["in a graph"]
    speed = result["bytes"] / mine * 1e3
    others = [f"{name} {time / mine:.1f}x" for name, time in result.items() if name in PEERS]
    return (
        f"{work.name:22} {1e3 * mine:8.1f} us {speed / 1e9:6.0f} GB/s {speed / copy:5.0%} of copy"
        f"  called from Python {1e3 * result['pymultigrid']:.1f} us  {'  '.join(others)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default="", help="only the rows whose name contains this")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not cuda_available() or not torch.cuda.is_available():
        raise SystemExit(f"CUDA: not run: {cuda_missing() or 'this torch has no CUDA'}")
    peers = installed()
    copy = copy_bandwidth(args.rounds)
    lines = [f"{torch.cuda.get_device_name()}, {cuda_build()}: a copy moves {copy / 1e9:.0f} GB/s, read and written"]
    print(lines[0])
    results = {}
    for work in WORKS:
        if args.rows in work.name:
            results[work.name] = measure(work, peers, args.rounds)
            print(report(work, results[work.name], copy), flush=True)
            torch.cuda.empty_cache()
    if args.json:
        args.json.write_text(json.dumps({"milliseconds": results, "copy": copy, "device": lines[0]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
