"""What `resample` takes, and what it refuses: the argument, its value, the rule, the next move."""

import re

import numpy as np
import pytest

from pymultigrid import Axis, Grid, resample

VIDEO = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
ONE, SIZE = Axis(0, 1, 1), (2, 8, 9)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("video", "grid", "options", "message"),
    [
        (VIDEO[0], SIZE, {}, "video is 20x30x3; it must be T x H x W x C, or B x T x H x W x C"),
        ([VIDEO[0]], SIZE, {}, "videos[0] is 20x30x3; in a list every video must be T x H x W x C"),
        ([], SIZE, {}, "videos is empty; pass at least one video"),
        (VIDEO[:0], SIZE, {}, "video is 0x20x30x3 (T x H x W x C); no axis may be empty"),
        ([VIDEO, VIDEO[..., :2]], SIZE, {}, "videos[1] has 2 channels and videos[0] 3"),
        (VIDEO, (2, 0, 9), {}, "grid.h.size (0) must be at least 1"),
        (VIDEO, (2, 2**40, 2**40), {}, "does not fit in memory: use smaller sizes"),
        (VIDEO, Grid(ONE, Axis(-1, 20, 4), ONE), {}, "grid.h = Axis(start=-1, span=20, size=4) must lie inside"),
        (VIDEO, Grid(ONE, ONE, Axis(30.5, -30, 4)), {}, "must lie inside the video's 30 columns; move or shrink it"),
        (VIDEO, Grid(Axis(0, 5, 4), ONE, ONE), {}, "Grid(..., beyond='clamp' or 'loop')"),
        (VIDEO, Grid(Axis(-1, 5, 4), ONE, ONE, beyond="loop"), {}, "the video's 4 frames or pass only their end"),
        (VIDEO, Grid(ONE, Axis(0, 1e300, 4), ONE), {}, "must lie inside the video's 20 rows"),
        (
            [VIDEO] * 3,
            [Grid(ONE, ONE, ONE)] * 2,
            {},
            "grids has 2 grids for 3 videos; pass one for all or one for each",
        ),
        (
            [VIDEO] * 2,
            [Grid(ONE, ONE, ONE), Grid(ONE, ONE, Axis(0, 1, 2))],
            {},
            "grids[1] has size 1x1x2 and grids[0] 1x1x1",
        ),
        (VIDEO, SIZE, {"mode": "cubic"}, "mode ('cubic') must be one of 'nearest', 'linear', 'area'"),
        (VIDEO, SIZE, {"temporal": "area"}, "temporal ('area') must be one of 'nearest', 'linear'"),
        (VIDEO, SIZE, {"layout": "HWC"}, "layout ('HWC') must be one of 'CTHW', 'THWC'"),
        (VIDEO, SIZE, {"dtype": "int32"}, "dtype ('int32')"),
        (VIDEO, SIZE, {"dtype": "bfloat16"}, "pass out="),
        (
            VIDEO,
            SIZE,
            {"mean": [1, 2]},
            "mean has 2 values and the video 3 channels; pass one number or one per channel",
        ),
        (VIDEO, SIZE, {"mean": NAN}, "mean (nan) must be finite"),
        (VIDEO, SIZE, {"mean": [123.7, 116.3, 103.5], "std": 58.4}, "divide mean and std by 255, too"),
        (VIDEO, SIZE, {"std": 0}, "std (0) must not be 0"),
        (VIDEO, SIZE, {"std": 0.5, "dtype": "uint8"}, "std needs a float dtype: uint8 output is not normalised"),
        (VIDEO.astype("f4"), SIZE, {"dtype": "uint8"}, "video is float and dtype uint8"),
        (VIDEO, SIZE, {"threads": 0}, "threads (0) must be at least 1"),
        (
            VIDEO,
            SIZE,
            {"out": np.empty((3, 2, 8, 8), "f4")},
            "out is 3x2x8x8; the clips are 3x2x8x9: pass an array of that shape",
        ),
        (VIDEO, SIZE, {"out": np.empty((3, 2, 9, 8), "f4").swapaxes(2, 3)}, "out must be C-contiguous"),
        (VIDEO, (4, 20, 30), {"out": VIDEO, "layout": "THWC"}, "out overlaps video in memory"),
    ],
)
def test_wrong_values(video, grid, options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        resample(video, grid, **options)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("axis", [(0, 0, 1), (0, 1, 0), (NAN, 1, 1), (0, INF, 1), (0, -INF, 1)])
def test_axes_that_cannot_be(axis):  # refused by the axis or by resample
    with pytest.raises(ValueError, match=r"Axis|size|span"):
        resample(VIDEO, Grid(ONE, Axis(*axis), ONE))


@pytest.mark.parametrize(
    ("video", "grid", "options", "message"),
    [
        ("clip.mp4", SIZE, {}, "video is a str; pass an array: NumPy, or anything with __dlpack__"),
        (None, SIZE, {}, "video is a NoneType"),
        (
            VIDEO.astype("f8"),
            SIZE,
            {},
            "video has dtype float64; uint8, float16, float32 and bfloat16 can be resampled",
        ),
        (VIDEO.astype(">f4"), SIZE, {}, "video has dtype >f4"),
        ([VIDEO, 3], SIZE, {}, "videos[1] is a int"),
        (VIDEO, "whole", {}, "grid must be a Grid, one Grid per video, or a size (t, h, w)"),
        (VIDEO, (2, 8.5, 9), {}, "size must be three whole numbers (t, h, w)"),
        (VIDEO, [Grid(ONE, ONE, ONE), 3], {}, "grids[1] must be a Grid"),
        (VIDEO, SIZE, {"mean": "grey"}, "mean must be a number or one number per channel"),
        (VIDEO, SIZE, {"out": [0.0]}, "out is a list"),
        (
            VIDEO,
            SIZE,
            {"dtype": SIZE},
            "dtype ((2, 8, 9)) must be a NumPy dtype or its name; pass 'float16', for example",
        ),
    ],
)
def test_wrong_kinds(video, grid, options, message):
    with pytest.raises(TypeError, match=re.escape(message)) as error:
        resample(video, grid, **options)
    assert len(str(error.value)) < 250


def test_read_only_input_and_output(tmp_path):
    want = resample(VIDEO, SIZE)
    frozen = VIDEO.copy()
    frozen.flags.writeable = False
    assert np.array_equal(resample(frozen, SIZE), want)
    VIDEO.tofile(tmp_path / "video")
    mapped = np.memmap(tmp_path / "video", np.uint8, "r", shape=VIDEO.shape)
    assert np.array_equal(resample(mapped, SIZE), want)
    out = np.zeros_like(want)
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"out is read-only.*; pass an array that can be written"):
        resample(VIDEO, SIZE, out=out)


class Exported:
    """An array seen through DLPack only; `versioned` says whether it knows DLPack 1.0."""

    def __init__(self, array, versioned):
        self.array, self.versioned = array, versioned

    def __dlpack__(self, **options):
        if options and not self.versioned:
            raise TypeError("unexpected keyword argument 'max_version'")
        return self.array.__dlpack__(**options)


@pytest.mark.parametrize("versioned", [True, False])
def test_dlpack(versioned):
    want = resample(VIDEO, SIZE)
    out = np.empty_like(want)
    assert isinstance(resample(Exported(VIDEO[:, ::-1], versioned), SIZE, out=Exported(out, True)), Exported)
    assert np.array_equal(out, resample(VIDEO[:, ::-1], SIZE))
    assert np.array_equal(resample([Exported(VIDEO, versioned)], SIZE)[0], want)


def test_a_capsule_that_does_not_say_whether_it_may_be_written():
    """Before DLPack 1.0 a capsule has no read-only flag: the array's buffer says it, or it is not written."""
    out = np.zeros_like(resample(VIDEO, SIZE))
    with pytest.raises(ValueError, match="out is read-only, or does not say that it is writable; pass"):
        resample(VIDEO, SIZE, out=Exported(out, False))
    assert not out.any()


def test_an_exporter_that_fails_says_why():
    class Broken:
        def __dlpack__(self, **options):
            raise BufferError("not today")

    with pytest.raises(BufferError, match="not today"):
        resample(Broken(), SIZE)


def test_buffer_protocol():
    flat = memoryview(VIDEO.tobytes()).cast("B", VIDEO.shape)
    assert np.array_equal(resample(flat, SIZE), resample(VIDEO, SIZE))


def test_out_is_filled_and_returned():
    out = np.empty((1, 3, *SIZE), "float16")
    assert resample([VIDEO], SIZE, out=out) is out
    assert np.array_equal(out[0], resample(VIDEO, SIZE, dtype="float16"))
    assert resample([VIDEO], SIZE, layout="THWC").shape == (1, *SIZE, 3)


def test_numpy_numbers():
    size = tuple(np.array(SIZE))
    assert np.array_equal(resample(VIDEO, size, mean=np.float32(0.5)), resample(VIDEO, SIZE, mean=0.5))
    assert np.array_equal(resample(VIDEO, SIZE, std=np.array([2, 3, 4])), resample(VIDEO, SIZE, std=(2, 3, 4)))
    assert resample(VIDEO, SIZE, dtype=np.uint8).dtype == resample(VIDEO, SIZE, dtype=np.dtype("u1")).dtype
