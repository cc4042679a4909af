"""Check that every kind of file is read right, and time it: the table of docs/video.md.

    python benchmarks/video.py [--kind PART] [--rounds 7] [--files 100000]

First, for each kind that tests/video_kinds.py writes (120 frames of 256 x 340): how many frames of it, in random order
and one by one, are those of decoding the whole file; how they are found; and what reading a clip of 8 frames costs,
every fourth from a random one on, and the first look at the file, both as multiples of the first kind's clip. Then 16
frames, every second, of 300 of H.264 in mp4, beside what OpenCV takes. Then the memory of an index, and the time to
open many files with and without a saved one.
Times are the process's own, medians over interleaved rounds; everything runs on one core.
"""

import argparse
import importlib
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from pymultigrid._files import VideoFiles
from pymultigrid.video import Video

TESTS = Path(__file__).resolve().parent.parent / "tests"


def kinds(height: int, width: int, frames: int) -> Any:
    """Return the module that writes the files, of so many frames of this size."""
    sys.path.insert(0, str(TESTS))
    made: Any = importlib.import_module("video_bytes")
    made.HEIGHT, made.WIDTH, made.FRAMES = height, width, frames
    return importlib.import_module("video_kinds")


def timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


def looked_at(path: Path) -> tuple[int, int, int]:
    return Video(path).extent


def table(part: str, rounds: int, folder: Path) -> None:
    writer, numbers = kinds(256, 340, 120), random.Random(0)
    print("| kind | frames read right | found by | a clip | first look |\n|---|---|---|---|---|")
    unit = 0.0
    for kind in writer.KINDS:
        if part not in kind:
            continue
        try:
            path = writer.make(kind, folder)
        except (av.codec.codec.UnknownCodecError, av.error.EncoderNotFoundError) as error:
            print(f"| {kind} | no encoder: {error} | | | |")
            continue
        whole, video = writer.decoded(path), Video(path)
        count = len(whole)
        right = sum(np.array_equal(video.read([n])[0], whole[n]) for n in numbers.sample(range(count), count))
        clips = [[n % count for n in range(start, start + 32, 4)] for start in numbers.sample(range(1000), rounds)]
        looks = statistics.median(timed(partial(looked_at, path)) for _ in range(rounds))
        clip = statistics.median(timed(partial(video.read, sorted(clip))) for clip in clips)
        found = video._probed().how if video._probed().keys else f"{video._probed().how}, from the start"
        unit = unit or clip
        print(f"| {kind} | {right} of {count} | {found} | {clip / unit:.1f} | {looks / unit:.1f} |", flush=True)
        path.unlink()


def by_opencv(path: Path, frames: list[int]) -> Callable[[], object] | None:
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(1)

    def read() -> object:
        file = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        file.set(cv2.CAP_PROP_POS_FRAMES, frames[0])
        for number in range(frames[0], frames[-1] + 1):
            file.grab()
            if number in frames:
                file.retrieve()
        file.release()
        return None

    return read


def clips_of_16(rounds: int, folder: Path) -> None:
    writer, numbers = kinds(256, 340, 120), random.Random(0)
    print("\nms for 16 frames, every second, of 300 of 256 x 340, H.264 in mp4; as many times as rounds, interleaved")
    for gop in (12, 250):
        path = folder / f"gop{gop}.mp4"
        noise = np.random.default_rng(1).integers(0, 25, (300, 256, 340, 1), np.uint8)
        frames = [picture // 2 + rough for picture, rough in zip(writer.pictures(300), noise, strict=True)]
        writer.write(path, "libx264", frames, options={"g": str(gop), "bf": "3"})
        known = Video(path)
        _ = known.extent
        times: dict[str, list[float]] = {}
        for _ in range(3 * rounds):
            start = numbers.randrange(300 - 32)
            chosen = list(range(start, start + 32, 2))
            works: dict[str, Callable[[], object] | None] = {
                "opened for the first time": partial(Video.read, Video(path), chosen),
                "known": partial(known.read, chosen),
                "OpenCV": by_opencv(path, chosen),
            }
            for name, work in works.items():
                if work is not None:
                    times.setdefault(name, []).append(timed(work))
        said = ", ".join(f"{name} {statistics.median(found):.1f}" for name, found in times.items())
        print(f"key frame every {gop}: {said}")


def many_files(count: int, folder: Path) -> None:
    writer = kinds(48, 64, 300)
    print(f"\nan index of 300 frames, in bytes of memory; and {count} files")
    for kind in ("h264 mp4", "h264 mkv", "h264 mp4, variable rate", "mpeg4 avi"):
        path = writer.make(kind, folder)
        tracemalloc.start()
        videos = [Video(path) for _ in range(100)]
        empty = tracemalloc.get_traced_memory()[0]
        for video in videos:
            _ = video.extent
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        print(f"{kind}: {empty // 100} before it is opened, {(grown - empty) // 100} for its index")
    path = writer.make("h264 mp4", folder)
    (folder / "many").mkdir()
    paths = [folder / "many" / f"{n}.mp4" for n in range(count)]
    for first in range(0, count, 10_000):  # a file may not have more links than that in some file systems
        paths[first].write_bytes(path.read_bytes())
        for link in paths[first + 1 : first + 10_000]:
            link.hardlink_to(paths[first])
    place = folder / "many.index"
    files = VideoFiles(paths, range(count))
    looking = timed(lambda: [video.extent for video in files.videos[: count // 20]]) * 20
    writing = timed(lambda: files.save_index(place, workers=1))
    bare = timed(lambda: VideoFiles(paths, range(count)))
    tracemalloc.start()
    known = VideoFiles(paths, range(count), index=place)
    memory = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    loading = timed(lambda: VideoFiles(paths, range(count), index=place))
    using = timed(lambda: [video.extent for video in known.videos])
    size = place.stat().st_size
    print(
        f"looking through all: {looking / 1e3:.0f} s; writing the index: {writing / 1e3:.0f} s, {size >> 10} kB\n"
        f"a data set without it: {bare / 1e3:.1f} s; with it: {loading / 1e3:.1f} s, {memory:.0f} bytes a file, and "
        f"{using / 1e3:.1f} s for all extents"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="", help="only kinds that have this in their name, and nothing else")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    av.logging.set_level(av.logging.PANIC)
    with tempfile.TemporaryDirectory() as folder:
        table(options.kind, options.rounds, Path(folder))
        if not options.kind:
            clips_of_16(options.rounds, Path(folder))
            many_files(options.files, Path(folder))


if __name__ == "__main__":
    main()
