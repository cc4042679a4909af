"""The command: ``python -m pymultigrid plan 8x32x224x224 --samples 240436 --epochs 239 --lr-drops 94,154,196``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pymultigrid import Cycles, Phases, Progressive, Schedule, Shape
from pymultigrid._patches import cut_off

# Each plan and its options. --phases and --progressive select their plans; the default is Cycles.
_PLANS: dict[str, tuple[type[Cycles | Phases | Progressive], tuple[str, ...]]] = {
    "phases": (Phases, ("phases", "short")),
    "progressive": (Progressive, ("progressive", "start", "stages", "full_from")),
    "cycles": (Cycles, ("long", "short", "cycles", "epoch_factor")),
}
_USAGE = "%(prog)s {} --samples N --epochs E [--lr-drops E,E,...] [--processes N] [the plan] [the rules]"

_T = TypeVar("_T")


def _as(what: str, read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return `read` for an option that must be `what`."""

    def convert(text: str) -> _T:
        try:
            return read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} must be {what}") from None

    return convert


def _shape(text: str) -> Shape:
    sizes = text.split("x")
    if len(sizes) != 4 or not all(size.isdigit() for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} must be clips x frames x height x width, as in 8x32x224x224")
    try:
        return Shape(*map(int, sizes))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _numbers(text: str, between: str = ",") -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(between))


def _factors(text: str) -> tuple[tuple[float, ...], ...]:
    return tuple(_numbers(factor, "x") for factor in text.split(","))


def _phases(text: str) -> list[tuple[float, Shape | tuple[float, ...]]]:
    rows = (phase.split(":") for phase in text.split(","))
    return [(float(epochs), _shape(size) if size.count("x") == 3 else _numbers(size, "x")) for epochs, size in rows]


def _patch(text: str) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in text.split("x"))
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError
    return sizes


def _or_none(read: Callable[[str], _T]) -> Callable[[str], _T | None]:
    return lambda text: None if text == "none" else read(text)


def _add_baseline(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("the baseline", "The training you have today.").add_argument
    drops = _as("numbers and commas, as in 94,154,196", _numbers)
    add("--samples", type=int, metavar="N", help="number of videos in the data set")
    add("--epochs", type=float, metavar="E", help="length in epochs, with --samples")
    add("--iterations", type=int, metavar="N", help="length in iterations, with or without --samples")
    add("--lr-drops", type=drops, metavar="E,E,...", help="where the learning rate drops, in the unit of the length")
    add("--processes", type=int, metavar="N", help="number of processes that train together (1)")


def _add_plan(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("the plan", "Cycles, or --phases, or --progressive.").add_argument
    long = _as("none, or factors as in 0.25x0.7,1x1", _or_none(_factors))
    short = _as("none, or factors as in 0.5,0.7", _or_none(_numbers))
    phases = _as("epochs:sizes, as in 90:16x256x256,10:64x384x384", _phases)
    start = _as("a factor, as in 1x0.5", lambda text: _numbers(text, "x"))
    add("--long", type=long, metavar="TxS,TxS,...", help="factors of the long cycle, or none (default: the paper's)")
    add("--short", type=short, metavar="S,S,...", help="factors of the short cycle, or none (default: the paper's)")
    add("--cycles", type=int, metavar="N", help="number of long cycles if there are no --lr-drops (3)")
    add("--epoch-factor", type=float, metavar="F", help="epochs relative to the baseline's (1.5, or 1 without cycles)")
    add("--phases", type=phases, metavar="E:SIZES,...", help="your own phases, as in 90:16x256x256,10:64x384x384")
    add("--progressive", action="store_true", help="progressive resizing")
    add("--start", type=start, metavar="TxS", help="factor of the first stage (1x0.5)")
    add("--stages", type=int, metavar="N", help="number of stages (4)")
    add("--full-from", type=float, metavar="F", help="share of the training before the full shape")


def _add_rules(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("the rules", "How batches and sizes follow the plan.").add_argument
    add("--batch-growth", type=float, metavar="G", help="1: batches grow as in the paper (default); 0: they don't")
    add("--lr-scaling", metavar="RULE", help="linear (default), sqrt or none")
    add("--multiple-of", type=int, metavar="N", help="round heights and widths to multiples of N (1)")
    add("--frames-multiple-of", type=int, metavar="N", help="round frames to multiples of N (1)")
    add("--batch-multiple-of", type=int, metavar="N", help="round batches to multiples of N (1)")
    patch = _as("frames x rows x columns, as in 2x16x16", _patch)
    add("--patch", type=patch, metavar="TxHxW", help="warn of sizes that are not whole patches")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pymultigrid", description="Plan multigrid training.")
    commands = parser.add_subparsers(dest="command", required=True)
    made: dict[str, Any] = {"argument_default": argparse.SUPPRESS}
    plan = commands.add_parser("plan", usage=_USAGE.format("shape"), help="print the schedule of a training", **made)
    plot = commands.add_parser("plot", usage=_USAGE.format("shape path"), help="draw it (the paper's Figure 2)", **made)
    for command in (plan, plot):
        command.add_argument("shape", type=_shape, help="the baseline's mini-batch per process, as in 8x32x224x224")
    plot.add_argument("path", help="the picture to write, such as plan.png")
    plan.add_argument("--json", action="store_true", help="print Schedule.to_dict() instead of the table")
    for command in (plan, plot):
        _add_baseline(command)
        _add_plan(command)
        _add_rules(command)
    return parser


def _plan(given: dict[str, Any]) -> Cycles | Phases | Progressive:
    """Take the plan's options out of `given` and make the plan."""
    make, mine = _PLANS["phases" if "phases" in given else "progressive" if "progressive" in given else "cycles"]
    options = {name: given.pop(name) for _, names in _PLANS.values() for name in names if name in given}
    for name in options:
        if name not in mine:
            owner = next(plan for plan, (_, names) in _PLANS.items() if name in names)
            move = "leave --phases and --progressive out" if owner == "cycles" else f"it belongs to {_flag(owner)}"
            raise ValueError(
                f"{_flag(name)} is not an option of this plan, which takes {', '.join(map(_flag, mine))}; {move}"
            )
    options.pop("progressive", None)
    return make(**options)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, and 2 with a message if the input was bad."""
    given = vars(_parser().parse_args(arguments))
    command, path, as_json, patch = (given.pop(name, None) for name in ("command", "path", "json", "patch"))
    try:
        schedule = Schedule(plan=_plan(given), **given)
        cut = patch and cut_off(schedule.shapes, patch, "--{}={}")
        if cut:
            print(f"warning: {cut.replace('_', '-')}", file=sys.stderr)
        if command == "plot":
            from pymultigrid.plot import draw_schedule

            draw_schedule(schedule, path)
            print(f"wrote {path}")
        else:
            print(json.dumps(schedule.to_dict()) if as_json else schedule)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
