import json
import re
import subprocess
import sys

import pytest

from pymultigrid import Schedule, Shape

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
    done = run("plan", *KINETICS, "--json", "--no-short-cycle")
    schedule = Schedule.from_epochs(
        Shape(8, 32, 224, 224),
        samples=240_436,
        epochs=239,
        lr_drops=(94, 154, 196),
        processes=8,
        short_cycle=None,
    )
    assert Schedule.from_dict(json.loads(done.stdout)) == schedule


def test_plan_in_iterations():
    done = run("plan", "8x32x224x224", "--iterations", "112000", "--no-long-cycle")
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
        (["8x32x224x224", "--epochs", "1"], "--epochs needs --samples"),
        (["0x32x224x224", "--iterations", "1"], "'0x32x224x224': b (0) must be at least 1"),
        (["8x32x224x224", "--iterations", "1", "--lr-drops", "a"], "'a' must be numbers and commas, as in 94,154,196"),
        (["8x32x224x224"], "one of the arguments --epochs --iterations is required"),
        (["8x32x224x224", "--epochs", "9", "--samples", "9", "--lr-drops", "3,2"], "the drops must increase"),
    ],
)
def test_refuses(arguments, message):
    done = run("plan", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
