"""The README's code runs as written, and its plan is what the command prints."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_plan():
    command, printed = re.search(r"^\$ python (.*)\n((?:.+\n)+?)```", README, re.MULTILINE).groups()
    done = subprocess.run([sys.executable, *shlex.split(command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


def test_the_loop(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is missing: the README's training loop was NOT run")
    pytest.importorskip("av", reason="PyAV is missing: the README's training loop was NOT run")
    import mp4

    from pymultigrid.torch import VideoDataset

    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    torch.manual_seed(0)
    paths = 8 * [mp4.write(tmp_path / f"{i}.mp4") for i in range(3)]
    model = torch.nn.Sequential(
        torch.nn.Conv3d(3, 4, 3, stride=2, padding=1),
        torch.nn.BatchNorm3d(4),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool3d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    )
    names = {"paths": paths, "labels": 8 * [0, 1, 0], "model": model}
    names["validation"] = VideoDataset(paths, names["labels"], mean=0.5, std=0.25, stride=2)
    exec(compile(blocks[0], "README.md", "exec"), names)
    assert torch.isfinite(names["loss"])
    assert names["step"].index == len(names["schedule"]) - 1
    assert names["lr"].last_epoch == names["loader"].state_dict()["step"] == len(names["schedule"])
    exec(compile(blocks[1], "README.md", "exec"), names)
    assert names["report"].schedule == names["schedule"]
    exec(compile(blocks[2], "README.md", "exec"), names)
    assert names["found"].scores.shape == (24, 2)
