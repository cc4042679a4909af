import re

import numpy as np
import pytest
import torch

import pymultigrid
from pymultigrid import Axis, Grid
from pymultigrid.torch import resample

GRID = Grid(Axis(2, 8, 4), Axis(3.5, 40, 20), Axis(60, -48, 24))
VIDEO = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
@pytest.mark.parametrize("layout", ["CTHW", "THWC"])
def test_the_same_as_the_core(dtype, layout):
    options = {} if dtype == torch.uint8 else {"mean": [0.4, 0.45, 0.5], "std": 0.225}
    got = resample(VIDEO, GRID, dtype=dtype, layout=layout, **options)
    want = pymultigrid.resample(VIDEO.numpy(), GRID, dtype=str(dtype).split(".")[1], layout=layout, **options)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.numpy(), want)


def test_bfloat16_in_and_out():
    got = resample(VIDEO, GRID, dtype=torch.bfloat16)
    torch.testing.assert_close(got.float(), resample(VIDEO, GRID), rtol=0.01, atol=0.01)
    again = resample((VIDEO / 255).bfloat16(), GRID)
    torch.testing.assert_close(again, resample(VIDEO, GRID), rtol=0.02, atol=0.01)


def test_batches_and_lists_and_sizes():
    both = torch.stack([VIDEO, VIDEO.flip(0)])
    assert resample(both, GRID).shape == (2, 3, 4, 20, 24)
    assert torch.equal(resample([VIDEO, VIDEO[:, :, :50]], (4, 20, 24))[0], resample(VIDEO, (4, 20, 24)))


@pytest.mark.parametrize("antialias", [False, True])
def test_equals_interpolate(antialias):
    frames = (VIDEO / 255).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(
        frames, size=(20, 24), mode="bilinear", antialias=antialias, align_corners=False
    )
    got = resample(VIDEO, (12, 20, 24), antialias=antialias).permute(1, 0, 2, 3)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_strided_tensors_are_read_where_they_lie():
    model_layout = VIDEO.permute(3, 0, 1, 2).contiguous()
    assert torch.equal(resample(model_layout.permute(1, 2, 3, 0), GRID), resample(VIDEO, GRID))


def test_out():
    out = torch.empty(3, 4, 20, 24, dtype=torch.float16)
    assert resample(VIDEO, GRID, out=out) is out
    assert torch.equal(out, resample(VIDEO, GRID, dtype=torch.float16))


def test_refusals():
    with pytest.raises(
        RuntimeError, match=re.escape("video is on meta; resample reads CPU and CUDA tensors: pass video.cpu()")
    ):
        resample(VIDEO.to("meta"), GRID)
    with pytest.raises(
        RuntimeError, match=re.escape("video requires grad and resample has no backward; pass video.detach")
    ):
        resample((VIDEO / 255).requires_grad_(), GRID)
    with pytest.raises(
        TypeError, match=re.escape("videos[0] is a ndarray, not a torch.Tensor; pymultigrid.resample takes")
    ):
        resample([VIDEO.numpy()], GRID)
    with pytest.raises(TypeError, match=re.escape("video has dtype torch.int64; it must be one of torch.uint8")):
        resample(VIDEO.long(), GRID)
    with pytest.raises(TypeError, match=re.escape("dtype (torch.float64) must be one of torch.uint8, torch.float16")):
        resample(VIDEO, GRID, dtype=torch.float64)
    with pytest.raises(TypeError, match=re.escape("dtype ('float32') must be one of torch.uint8")):
        resample(VIDEO, GRID, dtype="float32")
    with pytest.raises(RuntimeError, match=re.escape("out is on meta")):
        resample(VIDEO, GRID, out=torch.empty(3, 4, 20, 24, device="meta"))
    with pytest.raises(ValueError, match="out"):
        resample(VIDEO, GRID, out=torch.empty(3, 4, 20, 23))
    with pytest.raises(ValueError, match="video"):
        resample(VIDEO, Grid(Axis(2, 80, 4), Axis(0, 40, 20), Axis(0, 48, 24)))


def test_operator():
    """What torch.compile and export see, and what opcheck asks of an operator."""
    whole = ([VIDEO, VIDEO[:, :, :50]], [], [], [4, 20, 24], "linear", "nearest", True, [0.5], None, "CTHW", 1)
    boxes = ([VIDEO[None]], [2.0, 8.0, 3.5, 40.0, 60.0, -48.0], ["error"], *whole[3:9], "THWC", None)
    for arguments in (whole, boxes):
        torch.library.opcheck(torch.ops.pymultigrid.resample.default, (*arguments, torch.float16))
    got = torch.ops.pymultigrid.resample(*boxes, torch.float16)
    assert torch.equal(got, resample(VIDEO[None], GRID, mean=[0.5], layout="THWC", dtype=torch.float16))


@pytest.mark.filterwarnings("default")
def test_compiled():
    def batch(video, grid, **options):
        return resample(video, grid, mean=0.5, std=[0.2, 0.3, 0.4], **options) * 2

    compiled = torch.compile(batch, backend="eager", fullgraph=True)
    other = Grid(Axis(2, 8, 4), Axis(1.5, 40, 20), Axis(0, 48, 24), beyond="clamp")
    for video in (VIDEO, VIDEO[None], [VIDEO, VIDEO[1:]]):
        for grid in (GRID, other, (4, 20, 24)):
            torch._dynamo.reset()
            assert torch.equal(compiled(video, grid), batch(video, grid))
    out = torch.empty(3, 4, 20, 24, dtype=torch.float16)
    assert torch.equal(compiled(VIDEO, GRID, out=out), batch(VIDEO, GRID, dtype=torch.float16))
    assert torch.equal(out * 2, batch(VIDEO, GRID, dtype=torch.float16))
    unequal = [GRID, Grid(Axis(2, 8, 4), Axis(1.5, 40, 22), Axis(0, 48, 24))]
    with pytest.raises(Exception, match=re.escape("grids[1] has size 4x22x24 and grids[0] 4x20x24")):
        compiled([VIDEO, VIDEO], unequal)


class Named(torch.Tensor):
    """A subclass that only adds to a tensor, as torchvision's Video."""


def test_a_subclass_is_read_as_a_tensor():
    video = torch.randint(0, 256, (3, 20, 31, 3), dtype=torch.uint8)
    for wrapped in (video.as_subclass(Named), [video.as_subclass(Named), video], video[None].as_subclass(Named)):
        plain = [video, video] if isinstance(wrapped, list) else video if wrapped.ndim == 4 else video[None]
        got = resample(wrapped, (3, 9, 12), mean=0.45)
        assert torch.equal(got.as_subclass(torch.Tensor), resample(plain, (3, 9, 12), mean=0.45))
