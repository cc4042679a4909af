"""The command: ``python -m pymultigrid plan 8x32x224x224 --samples 240436 --epochs 239 --lr-drops 94,154,196``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from pymultigrid import LONG_CYCLE, SHORT_CYCLE, Schedule, Shape


def _shape(text: str) -> Shape:
    sizes = text.split("x")
    if len(sizes) != 4 or not all(size.isdigit() for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} must be clips x frames x height x width, as in 8x32x224x224")
    try:
        return Shape(*map(int, sizes))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _drops(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(drop) for drop in text.split(",") if drop)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers and commas, as in 94,154,196") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pymultigrid", description="Plan multigrid training.")
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser("plan", help="print the schedule of a training")
    plot = commands.add_parser("plot", help="draw the schedule of a training (the paper's Figure 2)")
    for command in (plan, plot):
        command.add_argument("shape", type=_shape, help="the baseline's mini-batch per process, as in 8x32x224x224")
        length = command.add_mutually_exclusive_group(required=True)
        length.add_argument("--epochs", type=float, help="length of the baseline's training; needs --samples")
        length.add_argument("--iterations", type=int, help="length of the baseline's training")
        command.add_argument("--samples", type=int, help="videos in the data set")
        command.add_argument("--lr-drops", type=_drops, default=(), help="as 94,154,196, in the unit of the length")
        command.add_argument("--processes", type=int, default=1, help="that train together (%(default)s)")
        command.add_argument("--epoch-factor", type=float, help="epochs of this schedule / of the baseline (1.5; 1)")
        command.add_argument("--cycles", type=int, default=3, help="long cycles where there are no --lr-drops")
        for cycle, factors in (("long", LONG_CYCLE), ("short", SHORT_CYCLE)):
            name, to = f"--no-{cycle}-cycle", f"{cycle}_cycle"
            command.add_argument(name, dest=to, action="store_const", const=None, default=factors, help="turn it off")
        command.add_argument("--batch-growth", type=float, default=1.0, help="1 as the paper, 0 keeps it (%(default)s)")
        command.add_argument("--lr-scaling", default="linear", help="linear, sqrt or none (%(default)s)")
        command.add_argument("--multiple-of", type=int, default=1, help="round heights and widths to it (%(default)s)")
        command.add_argument("--frames-multiple-of", type=int, default=1, help="round frames to it (%(default)s)")
    plan.add_argument("--json", action="store_true", help="print Schedule.to_dict() instead of the table")
    plot.add_argument("path", help="the picture to write, as plan.png")
    return parser


def _schedule(options: dict[str, object]) -> Schedule:
    given = {name: value for name, value in options.items() if name not in ("command", "json", "path", "shape")}
    if given["epochs"] is None:
        del given["epochs"]
        return Schedule(options["shape"], **given)  # type: ignore[arg-type]
    if given["samples"] is None:
        raise ValueError("--epochs needs --samples, the number of videos in an epoch; or pass --iterations")
    del given["iterations"]
    return Schedule.from_epochs(options["shape"], **given)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when it did what was asked, 2 with a message when the input was bad."""
    options = vars(_parser().parse_args(arguments))
    try:
        schedule = _schedule(options)
        if options["command"] == "plot":
            from pymultigrid.plot import draw_schedule

            draw_schedule(schedule, options["path"])
            print(f"wrote {options['path']}")
        else:
            print(json.dumps(schedule.to_dict()) if options["json"] else schedule)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
