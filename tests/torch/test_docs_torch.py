"""docs/torch.md: its code runs as written, its links lead somewhere, and what it says of torch.compile holds."""

import re
from pathlib import Path

import pytest

pytest.importorskip("av", reason="PyAV is missing: the code of docs/torch.md was NOT run")

import torch
import watched

from pymultigrid import Schedule, Shape
from pymultigrid.torch import SubBatchNorm3d, VideoDataset, sub_batches

# torch.compile imports a part of torch that torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
PAGE = Path(__file__).parents[2] / "docs" / "torch.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def network():
    net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3, 2, 1), torch.nn.BatchNorm3d(4), torch.nn.AdaptiveAvgPool3d(1))
    return torch.nn.Sequential(net, torch.nn.Flatten(), torch.nn.Linear(4, 2))


@pytest.fixture
def recompile_limit():
    before = torch._dynamo.config.recompile_limit
    yield
    torch._dynamo.config.recompile_limit = before


def test_the_code(tmp_path, monkeypatch, recompile_limit):
    monkeypatch.chdir(tmp_path)
    dataset = VideoDataset.from_folder(watched.write_videos(tmp_path / "videos"), mean=0.45, std=0.225)
    schedule = Schedule(Shape(2, 8, 24, 24), samples=len(dataset), epochs=4)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=schedule.baseline_iterations)
    names = {
        "torch": torch,
        "Path": Path,
        "Schedule": Schedule,
        "dataset": dataset,
        "schedule": schedule,
        "model": model,
    }
    names |= {"optimizer": optimizer, "cosine": cosine}
    assert len(BLOCKS) == 5
    exec(compile(BLOCKS[0], PAGE, "exec"), names)
    assert names["step"] == schedule[-1]
    exec(compile(BLOCKS[1], PAGE, "exec"), names)
    assert list(names["loader"]) == []  # the state that was saved is the end's
    saved = torch.load("checkpoint.pt")
    assert Schedule.from_dict(saved["loader"]["schedule"]) == schedule
    exec(compile(BLOCKS[2].replace("clips=10, crops=3", "clips=2"), PAGE, "exec"), names)
    assert names["found"].scores.shape == (len(dataset), 2)
    exec(compile(BLOCKS[3], PAGE, "exec"), names)
    assert torch._dynamo.config.recompile_limit > len(schedule.shapes)
    exec(compile(BLOCKS[4], PAGE, "exec"), names | {"validation_loss": 1.0})


@torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)
def test_compile_once_for_each_shape(recompile_limit):
    """The page's limit is enough: no step falls back, and none is compiled that was compiled before."""
    schedule = Schedule(Shape(4, 8, 24, 24), samples=100, epochs=12, lr_drops=(6,), lr_scaling="none")
    names = {"torch": torch, "schedule": schedule, "model": network()}
    exec(compile(BLOCKS[3].replace("compiled =", "_ ="), PAGE, "exec"), names)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    model = SubBatchNorm3d.convert(names["model"])
    compiled = torch.compile(model, dynamic=False, backend=counter)
    for _ in range(2):
        for step in {(step.shape, step.base): step for step in schedule}.values():
            b, t, h, w = step.shape
            with sub_batches(model, step):
                compiled(torch.zeros(b, 3, t, h, w)).sum().backward()
        model.eval()
        with torch.no_grad():
            compiled(torch.zeros(4, 3, 8, 24, 24))
        model.train()
    assert len(schedule.shapes) < counter.frame_count <= torch._dynamo.config.recompile_limit
    torch._dynamo.reset()


def test_links():
    for target in re.findall(r"\]\(([^)#]+)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
