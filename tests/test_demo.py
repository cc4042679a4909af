"""examples/demo: a tiny real run of every part, from writing videos to the picture."""

import csv
import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

for package in ("av", "matplotlib", "sklearn", "torch", "tqdm"):
    pytest.importorskip(package, reason=f"{package} is missing: the demo was NOT run")

DEMO = Path(__file__).parent.parent / "examples" / "demo"


@pytest.fixture
def demo(monkeypatch):
    """The demo's __main__ module, as `python examples/demo` finds it."""
    monkeypatch.syspath_prepend(str(DEMO))
    spec = importlib.util.spec_from_file_location("demo_main", DEMO / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("network", "report", "training", "videos"):
        sys.modules.pop(name, None)


def test_a_tiny_run_writes_videos_table_and_picture(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "RUNS", (("baseline", 0.5), ("baseline", 1.0), ("long+short", 1.0)))
    monkeypatch.setattr(sys, "argv", ["demo", "--output", str(tmp_path), "--videos", "24", "--epochs", "2"])
    demo.main()

    assert len(list((tmp_path / "data" / "train").glob("*.mp4"))) == 24
    assert len(list((tmp_path / "data" / "test").glob("*.mp4"))) == 8
    with (tmp_path / "results.csv").open() as file:
        results = list(csv.DictReader(file))
    assert [row["schedule"] for row in results] == ["baseline", "baseline", "long+short"]
    assert [row["iterations"] for row in results[:2]] == ["3", "6"]
    assert float(results[1]["compute"]) == 1
    assert all(0 <= float(row["accuracy"]) <= 1 and float(row["s_model"]) > 0 for row in results)
    assert (tmp_path / "multigrid.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "An epoch took" in printed
    assert "synthetic" in printed


def test_videos_are_the_same_for_the_same_seed_and_turn_once(demo):
    videos = importlib.import_module("videos")
    scan = np.random.default_rng(0).random((8, 8))
    first, again, other = (videos.render(scan, 3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (videos.FRAMES, videos.SIDE, videos.SIDE)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    for motion in range(videos.MOTIONS):
        way = videos.turning_path(motion, speed=5.0, rng=np.random.default_rng(0))
        before, after = way[8] - way[0], way[-1] - way[-9]
        assert videos.DIRECTIONS[motion // 2] @ before == pytest.approx(40, abs=3)
        turned = before[1] * after[0] - before[0] * after[1]  # downward is positive y: right turns are positive
        assert turned > 0 if motion % 2 else turned < 0


def test_training_and_test_videos_show_different_scans(demo):
    videos = importlib.import_module("videos")
    train, test = (set(videos.scans_of(name, seed=0)) for name in ("train", "test"))
    assert not train & test
    assert len(train | test) == 1797


@pytest.mark.parametrize(("flag", "value"), [("--videos", "15"), ("--epochs", "0.5"), ("--seed", "-1")])
def test_a_wrong_flag_is_refused_by_name(demo, monkeypatch, capsys, flag, value):
    monkeypatch.setattr(sys, "argv", ["demo", f"{flag}={value}"])
    with pytest.raises(SystemExit):
        demo.main()
    assert f"{flag} ({float(value) if flag == '--epochs' else value}) must be" in capsys.readouterr().err
