"""Every argument of every public function with the wrong kind: refused where it enters, by name."""

import contextlib
import inspect

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

pytest.importorskip("av", reason="PyAV is missing: the arguments of data sets are NOT tested")

import mp4

import pymultigrid
import pymultigrid.torch as adapter
from pymultigrid import Axis, Cycles, Grid, Phases, Progress, Progressive, Schedule, Shape

SHAPE = Shape(2, 4, 16, 16)
SCHEDULE = Schedule(SHAPE, samples=4, epochs=4)
GRID = Grid(Axis(0, 4, 4), Axis(0, 16, 8), Axis(0, 16, 8))
VIDEO = np.zeros((4, 16, 16, 3), np.uint8)


class Wrong:
    """A value that is of no use to anyone."""

    def __repr__(self):
        return "<wrong>"


TEXT, OTHER, NUMBER = "12", Wrong(), 3
# By what an argument takes.
WRONG = {
    "number": (TEXT, OTHER, [1, 2]),
    "numbers": (TEXT, OTHER, [TEXT]),
    "text": (NUMBER, OTHER, "no such word"),
    "other": (TEXT, OTHER, NUMBER),
    "function": (TEXT, NUMBER),
    "flag": (TEXT, OTHER),
    "path": (NUMBER, OTHER),
}
# What the library makes itself and hands out, and what is torch's own.
MADE_HERE = {"LONG_CYCLE", "SHORT_CYCLE", "Batch", "DecodedClips", "Report", "Sample", "ShapeCost", "Stage", "Step"}
MADE_HERE |= {"RunReport", "ShapeTime"}
MADE_HERE |= {"SubBatchNorm", "SubBatchNorm1d", "SubBatchNorm2d", "SubBatchNorm3d", "VideoViews"}


class Clips(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, sample):
        return torch.zeros(3, *tuple(sample.step.shape)[1:]), 0


class Positioned(nn.Module):
    """A table of positions for 4 x 2 x 2 patches."""

    def __init__(self):
        super().__init__()
        self.pos = nn.Parameter(torch.zeros(1, 16, 8))

    def forward(self, clips):
        return clips


def model():
    return nn.Sequential(nn.Conv3d(3, 2, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten())


def cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    return lr_scheduler.CosineAnnealingLR(optimizer, SCHEDULE.baseline_iterations)


def entered(*arguments, **options):
    with adapter.sub_batches(*arguments, **options):
        pass


def computed_anew(*arguments, **options):
    with adapter.precise_bn(*arguments, **options):
        pass


def looked_into(*arguments, **options):
    with adapter.layer_errors(*arguments, **options):
        pass


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos") / "grey"
    folder.mkdir()
    return mp4.write_grey(folder / "a.mp4", 100)


def functions(path):
    """By name: a function, and its arguments as they should be with what they take."""
    data = adapter.VideoDataset(4 * [path], range(4))
    index = path.parent.parent.with_suffix(".index")
    data.save_index(index, workers=1)
    drawn = {
        "stride": (1, "number"),
        "short_side": ((20, 30), "numbers"),
        "flip": (0.5, "number"),
        "segments": (False, "flag"),
        "beyond": ("error", "text"),
    }
    boxes = {"area": ((0.5, 1.0), "numbers"), "aspect": ((0.7, 1.4), "numbers")}
    output = {"mean": (0.5, "numbers"), "std": (0.5, "numbers")}
    resampling = {
        "grid": (GRID, "other"),
        "mode": ("linear", "text"),
        "temporal": ("nearest", "text"),
        "antialias": (True, "flag"),
        **output,
        "layout": ("CTHW", "text"),
        "out": (None, "other"),
        "threads": (1, "number"),
    }
    shared = {"seed": (0, "number"), "rank": (0, "number"), "accumulate": (1, "number")}
    videos = {"repeats": (1, "number"), "weights": ([1.0] * 4, "numbers")}
    views = {"clips": (1, "number"), "crops": (1, "number")}
    at_hand = {"extent": ((12, 48, 64), "numbers"), "seed": (0, "number"), "sample": (0, "number")}
    sides = dict.fromkeys("bthw", (4, "number"))
    return {
        "Axis": (Axis, dict.fromkeys(("start", "span", "size"), (4, "number"))),
        "Grid": (Grid, {**{name: (Axis(0, 4, 4), "other") for name in "thw"}, "beyond": ("error", "text")}),
        "Grid.frames": (GRID.frames, {"length": (12, "number")}),
        "Shape": (Shape, sides),
        "Cycles": (
            Cycles,
            {
                "long": ([(0.5, 0.5), (1.0, 1.0)], "numbers"),
                "short": ((0.5, 0.7), "numbers"),
                "cycles": (1, "number"),
                "epoch_factor": (1.5, "number"),
            },
        ),
        "Phases": (Phases, {"phases": ([(1, (4, 16, 16))], "numbers"), "short": ((0.5, 0.7), "numbers")}),
        "Progress": (
            Progress,
            {
                "loader": (adapter.Loader(Clips(), SCHEDULE), "other"),
                "lr": (adapter.ScaledLR(cosine(), SCHEDULE), "other"),
                "costs": ({(4, 16, 16): 1.0}, "other"),
                "show": (False, "flag"),
            },
        ),
        "Progressive": (
            Progressive,
            {"start": ((1.0, 0.5), "numbers"), "stages": (4, "number"), "full_from": (0.5, "number")},
        ),
        "Schedule": (
            Schedule,
            {
                "shape": (SHAPE, "other"),
                "samples": (4, "number"),
                "epochs": (4, "number"),
                "lr_drops": ((2,), "numbers"),
                "processes": (1, "number"),
                "plan": (Cycles(), "other"),
                "batch_growth": (1.0, "number"),
                "lr_scaling": ("linear", "text"),
                "multiple_of": (1, "number"),
                "frames_multiple_of": (1, "number"),
                "batch_multiple_of": (1, "number"),
                "costs": (None, "other"),
            },
        ),
        "Schedule of iterations": (Schedule, {"shape": (SHAPE, "other"), "iterations": (10, "number")}),
        "Schedule.epoch": (SCHEDULE.epoch, {"number": (0, "number")}),
        "Schedule.sample": (SCHEDULE.sample, {"position": (0, "number"), "seed": (0, "number")}),
        "Schedule.with_processes": (SCHEDULE.with_processes, {"processes": (2, "number")}),
        "Schedule.from_dict": (Schedule.from_dict, {"state": (SCHEDULE.to_dict(), "other")}),
        "Step.grid": (SCHEDULE[0].grid, {**at_hand, **drawn}),
        "Step.grid of boxes": (SCHEDULE[0].grid, {**at_hand, **boxes}),
        "mini_batch": (
            pymultigrid.mini_batch,
            {
                "schedule": (SCHEDULE, "other"),
                "step": (SCHEDULE[0], "other"),
                "seed": (0, "number"),
                "rank": (0, "number"),
            },
        ),
        "view_grids": (
            pymultigrid.view_grids,
            {
                "shape": (SHAPE, "other"),
                "extent": ((12, 48, 64), "numbers"),
                **views,
                **{name: drawn[name] for name in ("stride", "segments", "beyond")},
            },
        ),
        "resample": (
            pymultigrid.resample,
            {"video": (VIDEO, "other"), **resampling, "dtype": ("float32", "text"), "stream": (None, "number")},
        ),
        "set_buffer_limit": (pymultigrid.set_buffer_limit, {"limit": (2**30, "number")}),
        "cuda_available": (pymultigrid.cuda_available, {}),
        "cuda_missing": (pymultigrid.cuda_missing, {}),
        "torch.resample": (
            adapter.resample,
            {"video": (torch.from_numpy(VIDEO), "other"), **resampling, "dtype": (torch.float32, "other")},
        ),
        "torch.BatchSampler": (adapter.BatchSampler, {"schedule": (SCHEDULE, "other"), **shared, **videos}),
        "torch.Loader": (
            adapter.Loader,
            {
                "dataset": (Clips(), "other"),
                "schedule": (SCHEDULE, "other"),
                **shared,
                **videos,
                "collate_fn": (torch.utils.data.default_collate, "function"),
            },
        ),
        "torch.Loader of a stream": (
            adapter.Loader,
            {"dataset": (range(4), "other"), "schedule": (SCHEDULE, "other"), "read": (max, "function"), **shared},
        ),
        "torch.Loader.load_state_dict": (
            adapter.Loader(Clips(), SCHEDULE).load_state_dict,
            {"state_dict": (adapter.Loader(Clips(), SCHEDULE).state_dict(), "other")},
        ),
        "torch.StreamDataset": (
            adapter.StreamDataset,
            {
                "source": (range(4), "other"),
                "schedule": (SCHEDULE, "other"),
                "read": (max, "function"),
                **shared,
                "collate": (max, "function"),
            },
        ),
        "torch.ScaledLR": (
            adapter.ScaledLR,
            {
                "scheduler": (cosine(), "other"),
                "schedule": (SCHEDULE, "other"),
                "per": ("iteration", "text"),
                "steps": (len(SCHEDULE), "number"),
            },
        ),
        "torch.ScaledLR.load_state_dict": (
            adapter.ScaledLR(cosine(), SCHEDULE).load_state_dict,
            {"state_dict": (adapter.ScaledLR(cosine(), SCHEDULE).state_dict(), "other")},
        ),
        "torch.VideoDataset": (
            adapter.VideoDataset,
            {
                "paths": (4 * [path], "other"),
                "labels": (range(4), "other"),
                **output,
                "dtype": (torch.float32, "other"),
                "resample_on": ("worker", "text"),
                "damaged": ("error", "text"),
                "rotate": (True, "flag"),
                "fps": (25, "number"),
                **drawn,
            },
        ),
        "torch.VideoDataset with an index": (
            adapter.VideoDataset,
            {"paths": ([path], "other"), "labels": ([0], "other"), "index": (index, "path")},
        ),
        "torch.VideoDataset.save_index": (data.save_index, {"path": (index, "path"), "workers": (1, "number")}),
        "torch.VideoDataset of boxes": (
            adapter.VideoDataset,
            {"paths": (4 * [path], "other"), "labels": (range(4), "other"), **boxes},
        ),
        "torch.VideoDataset.from_folder": (
            adapter.VideoDataset.from_folder,
            {"folder": (path.parent.parent, "path")},
        ),
        "torch.VideoDataset.subset": (data.subset, {"indices": ([0], "numbers")}),
        "torch.VideoDataset.evaluation": (data.evaluation, {"shape": (SHAPE, "other"), **views}),
        "torch.PositionEmbeddings": (
            adapter.PositionEmbeddings,
            {
                "model": (Positioned(), "other"),
                "full": (SHAPE, "other"),
                "patch": ((1, 8, 8), "numbers"),
                "tables": ({"pos": "thw"}, "other"),
            },
        ),
        "torch.Evaluation": (
            adapter.Evaluation,
            {"scores": (torch.zeros(2, 3), "other"), "labels": (torch.tensor([0, 1]), "other")},
        ),
        "torch.Evaluation.accuracy": (
            adapter.Evaluation(torch.zeros(2, 3), torch.tensor([0, 1])).accuracy,
            {"k": (1, "number")},
        ),
        "torch.evaluate": (
            adapter.evaluate,
            {
                "model": (nn.Sequential(model(), nn.Linear(2, 4)), "other"),
                "views": (data.evaluation(SHAPE), "other"),
                "average": ("softmax", "text"),
                "batch_size": (2, "number"),
                "num_workers": (0, "number"),
                "progress": (False, "flag"),
            },
        ),
        "torch.precise_bn": (
            computed_anew,
            {
                "model": (nn.Sequential(nn.BatchNorm3d(3), model()), "other"),
                "loader": (adapter.Loader(Clips(), SCHEDULE.without_multigrid()[:1]), "other"),
                "base": (8, "number"),
                "forward": (lambda batch: None, "function"),
            },
        ),
        "torch.layer_errors": (looked_into, {"model": (model(), "other")}),
        "torch.preflight": (
            adapter.preflight,
            {
                "model": (model(), "other"),
                "schedule": (SCHEDULE, "other"),
                "loss": (lambda model, clips: model(clips).sum(), "function"),
                "channels": (3, "number"),
                "dtype": (torch.float32, "other"),
                "at": (lambda step: contextlib.nullcontext(), "function"),
                "repeats": (1, "number"),
                "dataset": (Clips(), "other"),
                "progress": (False, "flag"),
            },
        ),
        "torch.sub_batches": (
            entered,
            {"model": (model(), "other"), "step": (SCHEDULE[0], "other"), "base": (8, "number")},
        ),
    }


def call(function, arguments, **changed):
    """Call a function by names, or by places where it has none."""
    return function(**{name: value for name, (value, _) in arguments.items()} | changed)


NAMES = (
    "Axis",
    "Cycles",
    "Grid",
    "Grid.frames",
    "Phases",
    "Progress",
    "Progressive",
    "Schedule",
    "Schedule of iterations",
    "Schedule.epoch",
    "Schedule.from_dict",
    "Schedule.sample",
    "Schedule.with_processes",
    "Shape",
    "Step.grid",
    "Step.grid of boxes",
    "cuda_available",
    "cuda_missing",
    "mini_batch",
    "resample",
    "set_buffer_limit",
    "torch.BatchSampler",
    "torch.Evaluation",
    "torch.Evaluation.accuracy",
    "torch.Loader",
    "torch.Loader of a stream",
    "torch.Loader.load_state_dict",
    "torch.PositionEmbeddings",
    "torch.ScaledLR",
    "torch.ScaledLR.load_state_dict",
    "torch.StreamDataset",
    "torch.VideoDataset",
    "torch.VideoDataset of boxes",
    "torch.VideoDataset with an index",
    "torch.VideoDataset.evaluation",
    "torch.VideoDataset.from_folder",
    "torch.VideoDataset.save_index",
    "torch.VideoDataset.subset",
    "torch.evaluate",
    "torch.layer_errors",
    "torch.precise_bn",
    "torch.preflight",
    "torch.resample",
    "torch.sub_batches",
    "view_grids",
)
# What an error calls an argument, where that is another word.
CALLED = {
    ("Phases", "phases"): "phase",
    ("torch.Loader of a stream", "dataset"): "source",
    ("torch.Loader", "dataset"): "data set",
    ("torch.preflight", "dataset"): "data set",
}


@pytest.mark.filterwarnings("ignore")  # of what is tried here for its arguments alone
@pytest.mark.parametrize("name", NAMES)
def test_the_wrong_kind_is_refused_by_name(path, name):
    function, arguments = functions(path)[name]
    call(function, arguments)
    for argument, (_, takes) in arguments.items():
        for wrong in WRONG[takes]:
            function, fresh = functions(path)[name]
            said = CALLED.get((name, argument), argument)
            with pytest.raises((TypeError, ValueError), match=rf"\b{said}") as caught:
                call(function, fresh, **{argument: wrong})
            assert "incompatible" not in str(caught.value)


def test_every_public_function_is_tried(path):
    table = functions(path)
    assert sorted(table) == sorted(NAMES)
    for prefix, module in (("", pymultigrid), ("torch.", adapter)):
        for public in set(module.__all__) - MADE_HERE - {"set_buffer_limit"}:
            tried = {name: arguments for name, (_, arguments) in table.items() if name.split(" ")[0] == prefix + public}
            assert tried, f"{prefix}{public} is not tried"
            function = getattr(module, public)
            if function in (Axis, Grid, Shape):
                continue  # of the core, without a signature
            parameters = inspect.signature(function).parameters.values()
            names = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"}
            assert names <= {argument for arguments in tried.values() for argument in arguments}, public
