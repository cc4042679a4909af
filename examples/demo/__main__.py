"""Multigrid against baseline training of a small 3-D CNN, from real video files: python examples/demo."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from time import perf_counter

import report
import torch
from training import Outcome, plan, read, run
from videos import write_split

# The baseline's length as a share of --epochs; a schedule with a cycle takes 1.5 times its epochs, as in the paper.
RUNS = (
    ("baseline", 0.25),
    ("baseline", 0.5),
    ("baseline", 1.0),
    ("short", 1.0),
    ("long", 0.5),
    ("long", 1.0),
    ("long+short", 0.5),
    ("long+short", 1.0),
    ("long+short", 2.0),
)
QUICK = {"videos": 240, "epochs": 4.0}


def main() -> None:
    """Write the videos, train with each schedule, and report."""
    options = parse()
    began = perf_counter()
    output: Path = options.output
    data = output / "data"
    # One core's worth in the model: the loader's processes need the others.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    training = read(write_split(data, "train", options.videos, options.seed))
    test = read(write_split(data, "test", max(1, options.videos // 3), options.seed))
    outcomes: list[Outcome] = []
    for number, (kind, share) in enumerate(RUNS, start=1):
        schedule = plan(kind, len(training), options.epochs * share)
        title = f"{number}/{len(RUNS)} {kind:10} {schedule.clips / len(training):4.1f} epochs"
        outcomes.append(run(kind, schedule, training, test, options.seed, title))
    report.write_table(outcomes, output / "results.csv")
    report.draw(outcomes, output / "multigrid.png")
    print(f"\n{report.as_text(outcomes)}\n\n{report.summary(outcomes)}")
    print("The videos are synthetic: real scans of handwritten digits, moved by a program. Other data will differ.")
    print(f"{perf_counter() - began:.0f} s in all. See {output / 'multigrid.png'} and {output / 'results.csv'}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python examples/demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder to write to (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the first weights and the clips")
    parser.add_argument("--videos", type=int, default=1200, help="training videos; a third as many for the test")
    parser.add_argument("--epochs", type=float, default=8.0, help="length of the longest baseline training")
    parser.add_argument("--quick", action="store_true", help="240 videos, 4 epochs: a minute, and too short to learn")
    options = parser.parse_args()
    if options.quick:
        options.videos, options.epochs = QUICK["videos"], QUICK["epochs"]
    if options.videos < 16:
        parser.error(f"--videos ({options.videos}) must be at least 16: two mini-batches of the baseline")
    if not options.epochs >= 1:
        parser.error(f"--epochs ({options.epochs}) must be at least 1: the shortest run is a quarter of it")
    if options.seed < 0:
        parser.error(f"--seed ({options.seed}) must be 0 or above")
    return options


if __name__ == "__main__":
    main()
