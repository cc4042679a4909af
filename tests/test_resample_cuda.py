"""The CUDA kernel's code, run on the host tile by tile, against the reference and the CPU path.

What only a GPU can show (barriers between threads, the wide loads and conversions of the device, streams, graphs) is in
test_cuda.py.
"""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resample import LEVEL, MODES, cases, make_video, off_by, spread

from pymultigrid import Axis, Grid, _core, _cuda_host, cuda_available, cuda_missing, resample


def tiles(video, grid, *, layout="CTHW", dtype="float32", out=None, processors=1, **options):
    """`resample` by the kernel's code; more processors make smaller tiles."""
    options = {"mode": "linear", "temporal": "nearest", "antialias": True, "mean": None, "std": None, **options}
    if out is None:
        out = np.full(resample(video, grid, layout=layout).shape, 77, dtype)
    _cuda_host.resample_tiles(video, grid, out, **options, layout=layout, processors=processors)
    return out


@settings(max_examples=100, deadline=None)
@given(cases(), st.sampled_from([1, 64]), st.booleans())
def test_random_boxes_equal_the_reference(case, processors, planar):
    shape, grid, (mode, antialias), temporal, seed = case
    options = {"mode": mode, "antialias": antialias, "temporal": temporal}
    layout = {"layout": "CTHW" if planar else "THWC", "processors": processors}
    for dtype, scale in (("uint8", 1 / 255), ("float32", 1), ("float16", 1)):
        video = make_video(shape, dtype, seed)
        got = tiles(video, grid, **options, **layout)
        got = got if planar else got.transpose(3, 0, 1, 2)
        assert off_by(got, reference.resample(video, grid, **options, scale=scale)) < 2 * LEVEL


@pytest.mark.parametrize(("mode", "antialias"), MODES)
@pytest.mark.parametrize("temporal", ["nearest", "linear"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_dtype_and_layout_equals_the_cpu_path(mode, antialias, temporal, channels):
    grid = Grid(Axis(5, -4.5, 3), Axis(1.25, 27, 12), Axis(38, -35.5, 21))
    options = {"mode": mode, "antialias": antialias, "temporal": temporal}
    for source, layout in itertools.product(("uint8", "float32", "float16"), ("CTHW", "THWC")):
        video = make_video((5, 30, 41, channels), source)
        normalise = {"mean": np.linspace(0.4, 0.5, channels), "std": 0.25, "layout": layout}
        want = resample(video, grid, **options, **normalise)
        assert off_by(tiles(video, grid, **options, **normalise), want) < 5 * LEVEL
        half = tiles(video, grid, **options, **normalise, dtype="float16")
        assert np.abs(half - want).max() < 2.0**-10
        if source == "uint8":
            whole = reference.resample(video, grid, **options)
            whole = whole if layout == "CTHW" else whole.transpose(1, 2, 3, 0)
            got = tiles(video, grid, **options, dtype="uint8", layout=layout)
            assert np.abs(got - whole).max() < 0.5 + 1e-3


@pytest.mark.parametrize("layout", ["CTHW", "THWC"])
@pytest.mark.parametrize("channels", [1, 3])
def test_bfloat16(layout, channels):
    torch = pytest.importorskip("torch", reason="PyTorch is missing: bfloat16 was NOT compared")
    video = torch.from_numpy(make_video((3, 20, 31, channels)))
    for width in (16, 17):
        for source in (video, (video / 255).bfloat16()):
            shape = (channels, 3, 9, width) if layout == "CTHW" else (3, 9, width, channels)
            want = torch.empty(shape, dtype=torch.bfloat16)
            resample(source, (3, 9, width), layout=layout, out=want)
            got = tiles(source, (3, 9, width), layout=layout, out=torch.full_like(want, 77))
            torch.testing.assert_close(got, want, rtol=2.0**-7, atol=0)


def test_rows_at_every_address():
    """Packed rows are staged in aligned chunks: every start, pitch and end of a row, and of the memory."""
    memory = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8)
    for start, pitch, width in itertools.product((0, 1, 6, 11, 15), (60, 61, 63, 64), (1, 2, 3, 5, 16, 19, 20)):
        rows = np.lib.stride_tricks.as_strided(memory[start:], (2, 5, width, 3), (5 * pitch, pitch, 3, 1))
        for video in (rows, rows[:, ::-1], rows[::-1], rows[:, :, ::-1], rows[..., ::-1]):
            assert off_by(tiles(video, (2, 4, 7)), resample(video, (2, 4, 7))) < LEVEL
        ends = np.ascontiguousarray(rows)  # an allocation of its own, for a memory checker
        assert off_by(tiles(ends, (2, 4, 7)), resample(ends, (2, 4, 7))) < LEVEL


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
def test_any_strides(dtype):
    video = make_video((3, 20, 31, 3), dtype)
    grid = Grid(Axis(0, 3, 3), Axis(2, 16, 9), Axis(30, -29, 17))
    want = tiles(video, grid)
    for pitches in itertools.product((1, -1, 2), (1, -2), (1, -1, 3), (1, -1, 2)):
        assert np.array_equal(tiles(spread(video, pitches), grid), want)
    planes = np.ascontiguousarray(video.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0)
    assert np.array_equal(tiles(planes, grid), want)
    still = np.broadcast_to(video[:1], video.shape)
    assert np.array_equal(tiles(still, grid), tiles(video[[0, 0, 0]], grid))


@pytest.mark.parametrize("layout", ["CTHW", "THWC"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_everything_is_written_and_nothing_beside_it(layout, channels):
    video = make_video((2, 9, 61, channels))
    for width, rows, dtype in itertools.product(range(1, 20), (Axis(0, 9, 4), Axis(9, -9, 4)), ("float32", "uint8")):
        grid = Grid(Axis(0, 2, 2), rows, Axis(0, 61, width))
        want = tiles(video, grid, layout=layout, dtype=dtype)
        room = np.full(want.size + 40, 7, dtype)
        for start in (1, 16):
            room[:] = 7
            tiles(video, grid, layout=layout, out=room[start : start + want.size].reshape(want.shape), processors=99)
            assert np.array_equal(room[start : start + want.size].reshape(want.shape), want)
            assert np.all(room[:start] == 7)
            assert np.all(room[start + want.size :] == 7)


@pytest.mark.parametrize(("mode", "antialias"), MODES)
def test_a_flip_is_the_forward_result_in_reverse(mode, antialias):
    video = make_video((7, 33, 47, 3))
    t, h = Axis(0, 7, 3), Axis(0.7, 31.9, 12)
    for start, span in [(0.0, 47.0), (0.1, 45.3), (2.2, 17.0)]:
        want = tiles(video, Grid(t, h, Axis(start, span, 20)), mode=mode, antialias=antialias)
        got = tiles(video, Grid(t, h, Axis(start + span, -span, 20)), mode=mode, antialias=antialias)
        assert np.array_equal(got, want[..., ::-1])
    got = tiles(video, Grid(t, Axis(0.7 + 31.9, -31.9, 12), Axis(start, span, 20)), mode=mode, antialias=antialias)
    assert np.array_equal(got, want[:, :, ::-1])


@pytest.mark.parametrize("temporal", ["nearest", "linear"])
@pytest.mark.parametrize("beyond", ["clamp", "loop"])
def test_short_videos(temporal, beyond):
    video = make_video((5, 8, 9, 3))
    for t in (Axis(2, 9, 6), Axis(11, -9, 6), Axis(0.5, 20, 7)):
        grid = Grid(t, Axis(0, 8, 4), Axis(0, 9, 5), beyond=beyond)
        want = reference.resample(video, grid, temporal=temporal, scale=1 / 255)
        assert off_by(tiles(video, grid, temporal=temporal), want) < LEVEL


def test_a_ragged_list_of_every_kind():
    sizes = [(4, 20, 30, 3), (3, 40, 17, 3), (9, 200, 300, 3), (1, 1, 1, 3), (2, 9, 90, 3)]
    videos = [make_video(size, seed=i) for i, size in enumerate(sizes)]
    grids = [Grid(Axis(0, t, 3), Axis(h, -h, 11), Axis(w / 4, w / 2, 13)) for t, h, w, _ in sizes]
    for mode, antialias in MODES:
        for temporal, processors in (("nearest", 1), ("linear", 50)):
            options = {"mode": mode, "antialias": antialias, "temporal": temporal}
            for mixed in (videos, [v if i % 2 else (v / 255).astype("f4") for i, v in enumerate(videos)]):
                got = tiles(mixed, grids, **options, processors=processors)
                assert off_by(got, resample(mixed, grids, **options)) < LEVEL


@pytest.mark.parametrize(("mode", "antialias"), MODES)
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 7, 1500, 3), (1, 5, 1301)),  # several tiles across
        ((1, 3, 9000, 3), (1, 2, 40)),  # rows that fill the shared memory
        ((1, 900, 12, 3), (1, 3, 9)),  # cells of hundreds of rows
        ((2, 300, 700, 3), (2, 13, 37)),
        ((3, 5, 6, 40), (3, 7, 9)),  # many channels
        ((70, 3, 4, 3), (70, 2, 2)),  # many planes in a tile
    ],
)
def test_sizes_that_make_other_tiles(mode, antialias, shape, size):
    video = make_video(shape)
    for temporal in ("nearest", "linear"):
        options = {"mode": mode, "antialias": antialias, "temporal": temporal}
        want = reference.resample(video, Grid(*(Axis(0, e, s) for e, s in zip(shape, size, strict=False))), **options)
        assert off_by(tiles(video, size, **options, processors=8), want / 255) < 5 * LEVEL  # sums of up to 600 rows


@pytest.mark.parametrize("stride", [0.4, 1, 1.2, 1.7, 2.4, 2.9, 3.7, 9])
@pytest.mark.parametrize("layout", ["CTHW", "THWC"])
def test_cells_of_every_width(stride, layout):
    """Cells of two rows, and of two to six columns, have code of their own where pixels are stored in pairs."""
    video = make_video((3, 83, 131, 3))
    for mode, antialias in MODES:
        for size in ((3, round(83 / stride), 2 * round(65 / stride)), (3, round(60 / stride), round(65 / stride) | 1)):
            want = resample(video, size, mode=mode, antialias=antialias, layout=layout)
            for processors in (1, 40):
                got = tiles(video, size, mode=mode, antialias=antialias, layout=layout, processors=processors)
                assert off_by(got, want) < 2 * LEVEL


def test_more_clips_than_one_launch_takes():
    videos = list(make_video((700, 1, 4, 5, 3)))
    assert off_by(tiles(videos, (1, 3, 4)), resample(videos, (1, 3, 4))) < LEVEL


def test_a_nan_outside_a_cell_is_not_seen():
    row = np.arange(12, dtype="float32").reshape(1, 1, 12, 1)
    row[0, 0, 5] = np.nan
    for mode, antialias in MODES:
        for video, pick in ((row, (0, 0, 0)), (row.transpose(0, 2, 1, 3), (0, 0))):
            got = tiles(video, (1, 1, 5) if len(pick) == 3 else (1, 5, 1), mode=mode, antialias=antialias)[pick]
            assert np.isfinite(got.ravel()[[0, 4]]).all()
    assert np.isfinite(tiles(row, Grid(Axis(0, 1, 1), Axis(0, 1, 1), Axis(6, 6, 4)))).all()


def test_refusals():
    video = make_video((1, 2, 30000, 3))
    with pytest.raises(ValueError, match=re.escape("grid.h or grid.w has cells of thousands of pixels")):
        tiles(video, (1, 1, 1))
    many = make_video((1, 2, 3, 33))
    with pytest.raises(
        ValueError, match=re.escape("mean and std are for 33 channels; on CUDA they are for at most 32")
    ):
        tiles(many, (1, 1, 1), mean=np.full(33, 0.5))
    assert off_by(tiles(many, (1, 1, 2), mean=0.5), resample(many, (1, 1, 2), mean=0.5)) < LEVEL
    unaligned = np.frombuffer(bytes(49), "uint8")[1:].view("f4").reshape(1, 2, 6, 1)
    with pytest.raises(ValueError, match=re.escape("video is not aligned to its dtype; copy it first")):
        tiles(unaligned, (1, 1, 2))


def test_what_is_missing_is_said():
    build = _core.cuda_build()
    assert build.startswith(("CUDA ", "none: "))
    if build.startswith("none"):
        assert cuda_missing() == f"this build of pymultigrid has no CUDA kernel ({build})"
    elif not cuda_available():
        assert "driver" in cuda_missing()


def test_a_kernel_that_does_not_load_is_named(tmp_path):
    broken = tmp_path / "_cuda.so"
    broken.write_bytes(b"no library")
    code = f"""
import importlib.util, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "pymultigrid._cuda":
            loader = importlib.machinery.ExtensionFileLoader(name, {str(broken)!r})
            return importlib.util.spec_from_file_location(name, {str(broken)!r}, loader=loader)
sys.meta_path.insert(0, Finder())
import pymultigrid
assert not pymultigrid.cuda_available()
print(pymultigrid.cuda_missing())
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert re.match(r"pymultigrid's CUDA kernel \(.*\) does not load: .*_cuda.so", said)


class OnGpu:
    """An array that says it is on a CUDA device, for what is decided before any launch."""

    def __init__(self, array):
        self.array, self.asked = array, []

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, **options):
        self.asked.append(options.pop("stream", "nothing"))
        return self.array.__dlpack__(**options)


def test_the_stream_is_handed_over():
    video = OnGpu(make_video((2, 5, 6, 3)))
    for stream, said in ((None, 1), (0, 1), (1, 1), (2, 2), (2**40, 2**40)):
        resample([video], (2, 3, 4), stream=stream, out=np.empty((1, 3, 2, 3, 4), "f4"))
        assert video.asked[-1] == said
    with pytest.raises(ValueError, match=re.escape("stream (-1) must be a CUDA stream, 1, 2 or None")):
        resample([video], (2, 3, 4), stream=-1, out=np.empty((1, 3, 2, 3, 4), "f4"))
    plain = make_video((2, 5, 6, 3))
    assert np.array_equal(resample(plain, (2, 3, 4), stream=7), resample(plain, (2, 3, 4)))
