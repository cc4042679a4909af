"""The code of docs/data.md runs as written, one block after the other, on real files."""

import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="PyAV is missing: docs/data.md was NOT run")

import mp4

from pymultigrid.torch import BatchSampler, SubBatchNorm3d

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
PATCH = 16  # mp4.write shows the frame's number in the top left corner


def run(block, names):
    exec(compile(block, "docs/data.md", "exec"), names)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    head = torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)
    model = torch.nn.Sequential(SubBatchNorm3d(3), *head)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return {
        "paths": 2 * [mp4.write(root / f"{i}.mp4", frames=24 + i) for i in range(4)],
        "labels": 4 * [0, 1],
        "model": model,
        "optimizer": optimizer,
        "cosine": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12),
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def feeding(names):
    assert len(BLOCKS) == 5
    run(BLOCKS[0], names)
    return names


def test_feeding(feeding):
    assert feeding["step"].index == len(feeding["schedule"]) - 1


def test_accumulation_and_the_device(feeding):
    before = feeding["model"][-1].weight.detach().clone()
    run(BLOCKS[1], feeding)
    assert feeding["n"] + 1 == len(feeding["loader"]) == 2 * len(feeding["schedule"])
    assert feeding["lr"].last_epoch == len(feeding["schedule"])
    assert not torch.equal(feeding["model"][-1].weight, before)
    run(BLOCKS[2], feeding)
    assert isinstance(feeding["clips"], torch.Tensor)


@pytest.fixture(scope="module")
def annotated(feeding):
    """The corner is boxed, and its mask is of class 7."""
    lengths = [24 + i for i in range(4)]
    feeding["boxes"] = 2 * [np.tile([0.0, 0.0, PATCH, PATCH], (n, 1)) for n in lengths]
    masks = [np.zeros((n, mp4.HEIGHT, mp4.WIDTH), np.uint8) for n in lengths]
    for mask in masks:
        mask[:, :PATCH, :PATCH] = 7
    feeding["masks"] = 2 * masks
    run(BLOCKS[3], feeding)
    return feeding


def test_boxes_and_masks_agree_with_the_pixels(annotated):
    """A cell of the mask is of the class where its centre lies in the box, on flipped and cut clips too."""
    dataset = annotated["Annotated"](annotated["paths"], annotated["boxes"], annotated["masks"])
    seen = {"flipped": 0, "cut": 0, "gone": 0}
    for batch in list(BatchSampler(annotated["schedule"], seed=1))[::2]:
        for sample in batch:
            clip, boxes, visible, mask = dataset[sample]
            frames, h, w = clip.shape[1:]
            grid = sample.grid(dataset.videos[sample.index].extent, stride=2, flip=0.5)
            assert boxes.shape == (frames, 4)
            x, y = np.arange(w) + 0.5, np.arange(h) + 0.5
            for box, picture in zip(boxes, mask, strict=True):
                inside = np.logical_and.outer((box[1] < y) & (y < box[3]), (box[0] < x) & (x < box[2]))
                np.testing.assert_array_equal(picture == 7, inside)
            assert set(np.unique(mask)) <= {0, 7}
            assert (mask.any((1, 2)) <= visible).all()
            whole = grid.map([[0, 0, PATCH, PATCH]])[0]
            seen["flipped"] += grid.w.span < 0
            seen["cut"] += bool(visible[0]) and not np.array_equal(whole, boxes[0])
            seen["gone"] += not visible[0]
    assert all(seen.values()), seen


def test_streams(annotated, tmp_path):
    pytest.importorskip("webdataset", reason="WebDataset is missing: the stream of docs/data.md was NOT run")
    with tarfile.open(tmp_path / "0.tar", "w") as tar, tarfile.open(tmp_path / "1.tar", "w") as other:
        for i, path in enumerate(annotated["paths"]):
            for name, content in ((f"{i}.mp4", path.read_bytes()), (f"{i}.cls", b"1")):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                (other if i % 2 else tar).addfile(entry, io.BytesIO(content))
    annotated["shards"] = [str(tmp_path / "0.tar"), str(tmp_path / "1.tar")]
    run(BLOCKS[4], annotated)
    assert annotated["step"].index == len(annotated["schedule"]) - 1
