"""preflight: what it measures is there, and what it warns of happens."""

import math
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pymultigrid import Cycles, Schedule, Shape
from pymultigrid.torch import PositionEmbeddings, SubBatchNorm3d, VideoDataset, preflight, sub_batches

FULL = Shape(4, 8, 32, 32)


def plan(**options):
    return Schedule(FULL, **{"samples": 100, "epochs": 20, **options})


def net():
    torch.manual_seed(0)
    return SubBatchNorm3d.convert(
        nn.Sequential(
            nn.Conv3d(3, 6, 3, stride=(1, 2, 2), padding=1),
            nn.BatchNorm3d(6),
            nn.ReLU(),
            nn.Conv3d(6, 8, 3, stride=2, padding=1),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(8, 5),
        )
    )


def fly(model, schedule, *arguments, **options):
    return preflight(model, schedule, *arguments, **{"repeats": 1, "progress": False, **options})


def shapes_of(schedule):
    return {shape for stage in schedule.stages for shape in stage.shapes}


def test_every_shape_is_measured_the_largest_first():
    schedule = plan()
    report = fly(net(), schedule[100:], repeats=2)
    assert report.schedule == schedule
    assert {row.shape for row in report.rows} == shapes_of(schedule)
    cells = [math.prod(row.shape) for row in report.rows]
    assert cells == sorted(cells, reverse=True)
    assert all(row.seconds > 0 and row.bytes > 0 and row.fits == row.shape.b for row in report.rows)
    assert report.warnings == ()
    assert all(str(row.shape) in str(report) for row in report.rows)
    assert Schedule(FULL, samples=100, epochs=20, costs=report.costs)[-1].shape == FULL


def test_outputs_of_any_structure_have_a_default_loss():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(3, 2, 1)

        def forward(self, clips):
            return {"logits": [self.conv(clips).mean((2, 3, 4))], "index": torch.arange(3), "loss": None}

    assert len(fly(Heads(), plan(plan=Cycles(long=None, short=None))).rows) == 1

    class Nothing(Heads):
        def forward(self, clips):
            return super().forward(clips)["index"]

    with pytest.raises(TypeError, match=re.escape("model (Nothing) returns no tensor of floats; pass loss=")):
        fly(Nothing(), plan())


def test_a_loss_gets_clips_of_ones_own_kind():
    seen = set()

    def loss(model, clips):
        seen.add((clips.dtype, clips.shape[1], int(clips.max()) > 1))
        return model(clips.float() / 255).mean()

    model = nn.Conv3d(1, 2, 1)
    report = fly(model, plan(plan=Cycles(short=None)), loss, channels=1, dtype=torch.uint8)
    assert seen == {(torch.uint8, 1, True)}
    assert len(report.rows) == 4


def test_a_net_too_coarse_is_warned_of():
    model = nn.Sequential(
        nn.Conv3d(3, 4, 4, stride=4),
        nn.Conv3d(4, 4, (1, 2, 2), stride=(1, 2, 2)),
        nn.AdaptiveAvgPool3d((1, 2, 2)),
        nn.Conv3d(4, 4, 1),
        nn.Conv3d(4, 2, (1, 2, 2)),
    )
    schedule = plan(plan=Cycles(short=None, long=[(1, 0.5), (1, 1)]), frames_multiple_of=4, multiple_of=16)
    with pytest.warns(
        RuntimeWarning, match=re.escape("the network is too coarse for 16x8x16x16: its last feature map is 2x2")
    ):
        report = fly(model, schedule)
    assert report[FULL].feature_map == (2, 4, 4)  # not the 2x2 and 1x1 after pooling
    # A map of 1x1 at every shape is no pooling.
    model = nn.Sequential(nn.Conv3d(3, 4, 3, stride=32, padding=1), nn.Conv3d(4, 4, 1))
    with pytest.warns(RuntimeWarning, match=re.escape("its last feature map is 1x1 at 16x8x16x16")):
        fly(model, plan(plan=Cycles(short=None, long=[(1, 0.5), (1, 1)])))
    model = nn.Sequential(nn.Conv3d(3, 4, 3, stride=(8, 1, 1), padding=1))
    with pytest.warns(RuntimeWarning, match=re.escape("fewer frames than the network's temporal stride, 8: 8x4x32x32")):
        fly(model, plan(plan=Cycles(short=None, long=[(0.5, 1), (1, 1)])))


def test_frames_folded_into_the_batch():
    class Framewise(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

        def forward(self, clips):
            return self.conv(input=clips.transpose(1, 2).flatten(0, 1)).mean((2, 3))

    report = fly(Framewise(), plan())
    assert report[FULL].feature_map == (16, 16)
    assert report.warnings == ()


def test_a_model_without_convolutions_has_no_maps():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, clips):
            return self.head(clips.mean((2, 3, 4)))

    report = fly(Pooled(), plan())
    assert {row.feature_map for row in report.rows} == {None}
    assert report.warnings == ()


def test_a_model_that_is_fitted_to_each_step():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4))
            self.pos_embed = nn.Parameter(torch.randn(1, 4 * 8 * 8, 8))

        def forward(self, clips):
            return self.patches(clips).flatten(2).transpose(1, 2) + self.pos_embed

    model = Patches()
    # So short that some planned shapes are no step's.
    schedule = plan(samples=5, epochs=7, multiple_of=8, frames_multiple_of=2)
    embeddings = PositionEmbeddings(model, schedule.shape, patch=(2, 4, 4))
    report = fly(model, schedule, at=embeddings.at)
    assert {row.shape for row in report.rows} == shapes_of(schedule)
    assert min(row.iterations for row in report.rows) == 0
    for row in report.rows:
        assert row.feature_map == (row.shape.t // 2, row.shape.h // 4, row.shape.w // 4)
    with pytest.raises(RuntimeError, match=r"The size of tensor a .* must match the size of tensor b"):
        fly(model, schedule)


class Sliced(nn.Module):
    """Takes of its table as many rows as the clip has patches: at a coarse step those of the first frames."""

    def __init__(self, name="pos_embed", stored=False):
        super().__init__()
        self.patches = nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4))
        self.name = name
        if stored:
            self.grid_size, self.grid_depth = (8, 8), 4
        else:
            self.register_parameter(name, nn.Parameter(torch.randn(1, 4 * 8 * 8, 8)))

    def forward(self, clips):
        x = self.patches(clips).flatten(2).transpose(1, 2)
        return x if hasattr(self, "grid_size") else x + getattr(self, self.name)[:, : x.shape[1]]


WHOLE_PATCHES = {"multiple_of": 4, "frames_multiple_of": 2}


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (Sliced(), "pos_embed"),
        (Sliced("place"), "place"),
        (nn.Sequential(Sliced(stored=True)), "0.grid_size, 0.grid_depth"),
        (nn.Sequential(nn.Identity(), Sliced()), "1.pos_embed"),
    ],
)
def test_positions_that_nobody_fits_are_named(model, named):
    told = re.escape(f"the model keeps positions of the full shape's patches ({named}), and at= was not given")
    with pytest.warns(RuntimeWarning, match=told):
        fly(model, plan(**WHOLE_PATCHES))
    fly(model, plan(plan=Cycles(long=None, short=None)))  # one shape, its own
    if "place" not in named:
        embeddings = PositionEmbeddings(model, FULL, patch=(2, 4, 4))
        assert fly(model, plan(**WHOLE_PATCHES), at=embeddings.at).warnings == ()


def test_a_transformer_is_not_too_coarse_but_may_be_cut():
    model = nn.Sequential(nn.Conv3d(3, 8, (2, 8, 8), (2, 8, 8)), nn.Flatten(2), nn.GELU())
    report = fly(model, plan(multiple_of=8, frames_multiple_of=2))
    assert min(row.feature_map[-1] for row in report.rows) == 2
    assert (report.patch, report.warnings) == ((2, 8, 8), ())
    with pytest.warns(RuntimeWarning, match=re.escape("not whole patches of 2x8x8: ") + ".*plan with multiple_of=8"):
        report = fly(model, plan())
    assert len(report.warnings) == 1
    frames = nn.Conv2d(3, 8, 8, 8)  # frame by frame, as image models are used
    report = fly(frames, plan(multiple_of=8), lambda m, clips: m(clips.transpose(1, 2).flatten(0, 1)).mean())
    assert (report.patch, report.warnings) == ((1, 8, 8), ())
    assert fly(net(), plan()).patch is None


def test_batch_norms_that_are_not_converted_are_told_of():
    class NormAct(nn.BatchNorm3d):
        pass

    model = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4))
    with pytest.warns(RuntimeWarning, match="has batch norms and none of them is a SubBatchNorm; call"):
        fly(model, plan(plan=Cycles(short=None)))
    model = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), NormAct(4))
    with pytest.warns(RuntimeWarning, match=re.escape("batch norm 1 (NormAct) not converted")):
        report = fly(model, plan(plan=Cycles(short=None)))
    assert len(report.warnings) == 1


def test_advice_fits_the_error():
    model = nn.Sequential(nn.Conv3d(5, 4, 3, padding=1))
    with pytest.raises(RuntimeError, match=re.escape("In preflight channels= is their number")) as got:
        fly(model, plan())
    assert "PositionEmbeddings" not in str(got.value)
    fly(model, plan(plan=Cycles(short=None)), channels=5)


def test_a_compiled_model_is_compiled_for_every_step():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    model = net()
    plan = Cycles(short=(0.5,), long=[(1, 0.5), (1, 1)])
    schedule = Schedule(Shape(16, 4, 32, 32), samples=200, epochs=20, plan=plan, lr_scaling="none")
    assert len(schedule.shapes) == 2
    fast = torch.compile(model, backend=backend, dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=8):
        assert fly(fast, schedule).warnings == ()
        versions = len(compiled)
        assert versions == 3  # the same shape with other sub-batches is another one
        for stage in schedule.stages:
            for step in schedule[stage.start : stage.stop][:3]:
                with sub_batches(fast, step):
                    fast(torch.rand(step.shape.b, 3, *tuple(step.shape)[1:])).mean().backward()
        assert len(compiled) == versions
    with torch._dynamo.config.patch(recompile_limit=2):
        torch._dynamo.reset()
        with pytest.warns(
            RuntimeWarning, match=re.escape("torch.compile keeps 2 versions of a function, and training")
        ):
            report = fly(fast, schedule)
    assert "set torch._dynamo.config.recompile_limit = " in str(report)


def test_reading_is_timed(tmp_path):
    pytest.importorskip("av", reason="PyAV is missing: a data set's reading time was NOT measured")
    import mp4

    paths = [mp4.write(tmp_path / f"{i}.mp4") for i in range(4)]
    schedule = Schedule(FULL, samples=4, epochs=50)
    report = fly(net(), schedule, dataset=VideoDataset(paths, [0] * 4))
    assert all(row.read_seconds > 0 for row in report.rows if row.iterations)
    assert re.search(r"data: \d+ workers keep up with every shape", str(report))


def test_a_progress_bar_is_shown(capfd):
    pytest.importorskip("tqdm", reason="tqdm is missing: the progress bar was NOT seen")
    fly(net(), plan(plan=Cycles(short=None)), progress=True)
    shown = capfd.readouterr().err
    assert "preflight: memory: 100%" in shown
    assert "preflight: time: 100%" in shown


def test_refuses():
    with pytest.raises(
        TypeError,
        match=re.escape("schedule (3) must be a pymultigrid.Schedule; write Schedule(shape, ...)"),
    ):
        preflight(net(), 3)
    with pytest.raises(ValueError, match=re.escape("repeats (0) must be at least 1: the passes that are timed")):
        fly(net(), plan(), repeats=0)

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(TypeError, match=re.escape("dataset (Stream) is a stream, which can't be asked for a clip")):
        fly(net(), plan(), dataset=Stream())
    with pytest.raises(ValueError, match=r"the data set has 7 videos and the schedule was made for samples=\d+: some"):
        fly(net(), plan(), dataset=[0] * 7)
    for wrong, meant in (("uint8", "uint8"), ("torch.float16", "float16"), (np.float32, "float32"), (None, "float32")):
        rule = f"dtype ({wrong!r}) must be a torch dtype; pass torch.{meant}"
        with pytest.raises(TypeError, match=re.escape(rule) + "$"):
            fly(net(), plan(), dtype=wrong)
    with pytest.raises(ValueError, match=re.escape("model is on meta, where memory can't be measured; move it to cpu")):
        fly(net().to("meta"), plan())


def test_no_warning_without_a_cause():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fly(net(), plan())


def test_the_page_runs_as_written(tmp_path):
    pytest.importorskip("matplotlib", reason="Matplotlib is missing: docs/preflight.md was NOT run")
    page = (Path(__file__).parents[2] / "docs" / "preflight.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    names = {"model": net(), "paths": [0] * 50, "picture": tmp_path / "preflight.png"}
    for block in blocks:
        exec(compile(block, "preflight.md", "exec"), names)
    assert names["report"].warnings == ()
    assert (tmp_path / "preflight.png").read_bytes().startswith(b"\x89PNG")
    assert names["schedule"].shape == names["report"].schedule.shape


def test_the_pages_command(tmp_path):
    for package in ("av", "sklearn", "tqdm"):
        pytest.importorskip(package, reason=f"{package} is missing: examples/demo/costs.py was NOT run")
    command = Path(__file__).parents[2] / "examples" / "demo" / "costs.py"
    done = subprocess.run(
        [sys.executable, command, "--videos", "4", "--rounds", "1"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    page = (Path(__file__).parents[2] / "docs" / "preflight.md").read_text()
    for line in done.stdout.splitlines():
        if line.split()[:1] in (["shape"], ["stage"]):  # the headers of the three tables
            assert " ".join(line.split()) in " ".join(page.split())
