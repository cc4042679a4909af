import inspect
import json
import re
import subprocess
import sys

import pytest

from pymultigrid import Cycles, Phases, Progressive, Schedule, Shape

KINETICS = ["8x32x224x224", "--samples", "240436", "--epochs", "239", "--lr-drops", "94,154,196", "--processes", "8"]


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "pymultigrid", *arguments], capture_output=True, text=True)


def test_plan():
    done = run("plan", *KINETICS)
    assert done.returncode == 0, done.stderr
    ends = re.findall(r"^ +\d+ +[\d,]+ +([\d.]+) ", done.stdout, re.MULTILINE)
    assert [round(float(end)) for end in ends] == [73, 110, 142, 158, 205, 228, 248, 259, 291, 308, 322, 329, 358]
    assert "3.42x fewer iterations" in done.stdout
    assert "5.14x fewer iterations" in run("plan", *KINETICS, "--epoch-factor", "1.0").stdout


def test_json_is_the_schedule():
    done = run("plan", *KINETICS, "--json", "--short", "none")
    schedule = Schedule(
        Shape(8, 32, 224, 224),
        samples=240_436,
        epochs=239,
        lr_drops=(94, 154, 196),
        processes=8,
        plan=Cycles(short=None),
    )
    assert Schedule.from_dict(json.loads(done.stdout)) == schedule


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (
            ["--long", "0.5x0.5,1x1", "--short", "0.5,0.75", "--cycles", "2", "--epoch-factor", "1.2"],
            {"plan": Cycles(long=[(0.5, 0.5), (1, 1)], short=[0.5, 0.75], cycles=2, epoch_factor=1.2)},
        ),
        (
            ["--long", "0.5x0.5x0.25,1x1", "--short", "none"],
            {"plan": Cycles(long=[(0.5, 0.5, 0.25), (1, 1)], short=None)},
        ),
        (["--progressive"], {"plan": Progressive()}),
        (
            ["--progressive", "--start", "0.5x0.5", "--stages", "3", "--full-from", "0.5"],
            {"plan": Progressive(start=(0.5, 0.5), stages=3, full_from=0.5)},
        ),
        (
            ["--batch-growth", "0.5", "--lr-scaling", "sqrt", "--multiple-of", "16", "--frames-multiple-of", "2"],
            {"batch_growth": 0.5, "lr_scaling": "sqrt", "multiple_of": 16, "frames_multiple_of": 2},
        ),
        (["--batch-multiple-of", "4"], {"batch_multiple_of": 4}),
    ],
)
def test_every_word_of_the_schedule_is_an_option(options, given):
    done = run("plan", "8x32x224x224", "--samples", "1000", "--epochs", "30", *options, "--json")
    assert done.returncode == 0, done.stderr
    schedule = Schedule(Shape(8, 32, 224, 224), samples=1000, epochs=30, **given)
    assert Schedule.from_dict(json.loads(done.stdout)) == schedule


def test_phases():
    done = run("plan", "8x64x384x384", "--samples", "1000", "--phases", "90:40x16x256x256,10:64x384x384", "--json")
    assert done.returncode == 0, done.stderr
    plan = Phases([(90, Shape(40, 16, 256, 256)), (10, (64, 384, 384))])
    schedule = Schedule(Shape(8, 64, 384, 384), samples=1000, plan=plan)
    assert Schedule.from_dict(json.loads(done.stdout)) == schedule


@pytest.mark.parametrize("command", ["plan", "plot"])
def test_options_come_in_the_order_of_the_arguments(command):
    """As in `Schedule(...)`, with those of the plans where `plan` is; costs are not for a command line."""
    plans = (Cycles, Phases, Progressive)
    words = [name for name in inspect.signature(Schedule).parameters if name != "costs"]
    at = words.index("plan")
    own = dict.fromkeys(name for plan in plans for name in inspect.signature(plan).parameters)
    words[at : at + 1] = [*list(own)[:5], "progressive", *list(own)[5:]]
    options = [f"--{word.replace('_', '-')}" for word in words[1:]]
    printed = re.findall(r"^  (--[a-z-]+) ?", run(command, "--help").stdout, re.MULTILINE)
    assert [option for option in printed if option != "--json"] == [*options, "--patch"]


def test_plan_in_iterations():
    done = run("plan", "8x32x224x224", "--iterations", "112000", "--long", "none")
    assert "baseline 8x32x224x224: 112,000 iterations" in done.stdout


def test_plot(tmp_path):
    pytest.importorskip("matplotlib", reason="Matplotlib is missing: the plot command was NOT run")
    path = tmp_path / "plan.png"
    done = run("plot", *KINETICS[:1], str(path), *KINETICS[1:])
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
    for wrong in ("plan.xyz", "nowhere/plan.png"):
        done = run("plot", *KINETICS[:1], str(tmp_path / wrong), *KINETICS[1:])
        assert (done.returncode, done.stderr[:7]) == (2, "error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["8x32x224", "--epochs", "1"], "'8x32x224' must be clips x frames x height x width, as in 8x32x224x224"),
        (["8x32x224x224", "--epochs", "1"], "samples is missing: pass the number of videos in an epoch"),
        (["0x32x224x224", "--iterations", "1"], "'0x32x224x224': b (0) must be at least 1"),
        (["8x32x224x224", "--iterations", "1", "--lr-drops", "a"], "'a' must be numbers and commas, as in 94,154,196"),
        (
            ["8x32x224x224"],
            "one of epochs= (with samples=) and iterations= is the baseline's length; you passed neither",
        ),
        (["8x32x224x224", "--iterations", "9", "--long", "1"], "long has (1.0,); a factor is (temporal, spatial)"),
        (["8x32x224x224", "--iterations", "9", "--long", "a"], "'a' must be none, or factors as in 0.25x0.7,1x1"),
        (["8x32x224x224", "--iterations", "9", "--phases", "3"], "'3' must be epochs:sizes, as in 90:16x256x256"),
        (
            ["8x32x224x224", "--iterations", "9", "--start", "1x1"],
            "--start is not an option of this plan, which takes --long",
        ),
        (
            ["8x32x224x224", "--progressive", "--cycles", "1"],
            "--cycles is not an option of this plan, which takes --progressive",
        ),
        (["8x32x224x224", "--phases", "1:4x8x8", "--progressive"], "--progressive is not an option of this plan"),
        (["8x32x224x224", "--phases", "1:4x8x8", "--samples", "9", "--epochs", "2"], "both choose the length"),
        (["8x32x224x224", "--epochs", "9", "--samples", "9", "--lr-drops", "3,2"], "the drops must increase"),
    ],
)
def test_refuses(arguments, message):
    done = run("plan", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_patches_that_sizes_do_not_fill_are_warned_of():
    done = run("plan", *KINETICS, "--patch", "2x16x16")
    assert done.returncode == 0
    assert done.stdout == run("plan", *KINETICS).stdout
    assert done.stderr.startswith("warning: not whole patches of 2x16x16: 64x8x158x158, 32x16x158x158, 16x32x158x158")
    assert done.stderr.endswith("plan with --multiple-of=16\n")
    assert run("plan", *KINETICS, "--patch", "2x16x16", "--multiple-of=16").stderr == ""
    done = run("plan", *KINETICS, "--patch", "16x14x28", "--json")
    assert json.loads(done.stdout)
    assert done.stderr.endswith("plan with --multiple-of=28 and --frames-multiple-of=16\n")
    for wrong in ("2x16", "0x16x16", "16"):
        assert (
            f"'{wrong}' must be frames x rows x columns, as in 2x16x16"
            in run("plan", *KINETICS, "--patch", wrong).stderr
        )
