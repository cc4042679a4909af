"""`resample` on a GPU: the same values as on the CPU, on the caller's stream, in graphs, without waiting."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_resample import MODES, make_video

import pymultigrid
from pymultigrid import Axis, Grid, cuda_available, cuda_missing
from pymultigrid.torch import resample

missing = cuda_missing() if not cuda_available() else None if torch.cuda.is_available() else "this torch has no CUDA"
pytestmark = pytest.mark.skipif(missing is not None, reason=f"CUDA: not run: {missing}")

GRID = Grid(Axis(5, -4.5, 3), Axis(1.25, 27, 12), Axis(38, -35.5, 21))
EVEN = Grid(Axis(0, 5, 4), Axis(0, 30, 20), Axis(1.5, 38, 32))
CLOSE = {
    torch.float32: {"rtol": 1e-5, "atol": 2e-6},
    torch.float16: {"rtol": 2.0**-9, "atol": 1e-6},
    torch.bfloat16: {"rtol": 2.0**-6, "atol": 1e-6},
    torch.uint8: {"rtol": 0, "atol": 1},  # sums that end next to a half
}


def both(video, grid, **options):
    """Compare the GPU's clips with the CPU's and return the former."""
    videos = video if isinstance(video, list) else [video]
    on_gpu = [one.cuda() for one in videos]
    got = resample(on_gpu if isinstance(video, list) else on_gpu[0], grid, **options)
    want = resample(video, grid, **options)
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), want, **CLOSE[want.dtype])
    return got


@pytest.mark.parametrize(("mode", "antialias"), MODES)
@pytest.mark.parametrize("temporal", ["nearest", "linear"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_equals_the_cpu(mode, antialias, temporal, channels):
    options = {"mode": mode, "antialias": antialias, "temporal": temporal}
    video = torch.from_numpy(make_video((5, 30, 41, channels)))
    for source, grid in itertools.product((torch.uint8, *CLOSE), (GRID, EVEN)):
        one = video if source == torch.uint8 else (video / 255).to(source)
        for dtype, layout in itertools.product(CLOSE, ("CTHW", "THWC")):
            if dtype == torch.uint8 and source != torch.uint8:
                continue
            normalise = {} if dtype == torch.uint8 else {"mean": [0.4, 0.45, 0.5, 0.6][:channels], "std": 0.25}
            both(one, grid, dtype=dtype, layout=layout, **options, **normalise)


def test_rows_at_every_address():
    memory = torch.from_numpy(np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8))
    for start, pitch, width in itertools.product((0, 1, 6, 15), (60, 61, 63, 64), (1, 3, 5, 19, 20)):
        view = {"size": (2, 5, width, 3), "stride": (5 * pitch, pitch, 3, 1), "storage_offset": start}
        got = resample(memory.cuda().as_strided(**view), (2, 4, 7))
        torch.testing.assert_close(got.cpu(), resample(memory.as_strided(**view), (2, 4, 7)), **CLOSE[torch.float32])


@pytest.mark.parametrize("antialias", [False, True])
def test_cells_of_every_width(antialias):
    video = torch.from_numpy(make_video((3, 83, 131, 3)))
    for stride in (0.4, 1, 1.2, 1.7, 2.4, 3.7, 9):
        for size in ((3, round(83 / stride), 2 * round(65 / stride)), (3, round(60 / stride), round(65 / stride) | 1)):
            for dtype in CLOSE:
                both(video, size, antialias=antialias, dtype=dtype)


def test_ragged_lists_and_many_clips():
    videos = [torch.from_numpy(make_video((4, 20 + i, 60 - i, 3), seed=i)) for i in range(40)]
    grids = [Grid(Axis(0, 4, 3), Axis(0, 20 + i, 16), Axis(60 - i, i - 60, 24)) for i in range(40)]
    both(videos, grids, dtype=torch.float16)
    both(videos * 10, (2, 9, 8))
    both(torch.stack([videos[0]] * 3).transpose(1, 0).transpose(1, 0), (4, 9, 8))


def test_out_and_the_current_stream():
    video = torch.from_numpy(make_video((16, 200, 300, 3))).cuda()
    want = resample(video, (16, 112, 112))
    out = torch.empty_like(want)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        resample(255 - video, (16, 112, 112), out=out)  # so that nothing is loaded or allocated below
        torch.cuda._sleep(200_000_000)  # what was enqueued before must come first
        changed = 255 - video
        assert resample(changed, (16, 112, 112), out=out) is out
        busy = not stream.query()
    assert busy, "resample waited for its stream"
    stream.synchronize()
    torch.testing.assert_close(out, 1 - want, rtol=0, atol=1e-5)


def test_a_graph_captures_it():
    videos = [torch.from_numpy(make_video((4, 30, 40, 3), seed=i)).cuda() for i in range(3)]
    out = torch.empty(3, 3, 2, 16, 16, device="cuda")
    resample(videos, (2, 16, 16), out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        resample(videos, (2, 16, 16), out=out)
        copied = resample(videos, (2, 16, 16), dtype=torch.float16)
    videos[1].copy_(videos[2])
    graph.replay()
    torch.testing.assert_close(out, resample(videos, (2, 16, 16)))
    torch.testing.assert_close(copied, resample(videos, (2, 16, 16), dtype=torch.float16))
    torch.testing.assert_close(out[1], out[2])


def test_operator_and_compile():
    video = torch.from_numpy(make_video((5, 30, 41, 3))).cuda()
    arguments = ([video], [], [], [3, 12, 21], "linear", "nearest", True, None, None, "CTHW", None, torch.float16)
    torch.library.opcheck(torch.ops.pymultigrid.resample.default, arguments)
    compiled = torch.compile(lambda video: resample(video, GRID) * 2, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(video), resample(video, GRID) * 2)


def test_on_the_device_of_the_tensor():
    if torch.cuda.device_count() < 2:
        pytest.skip("CUDA: several GPUs: not run: there is one")
    video = torch.from_numpy(make_video((5, 30, 41, 3)))
    got = resample(video.to("cuda:1"), GRID)
    assert got.device == torch.device("cuda:1")
    assert torch.cuda.current_device() == 0
    torch.testing.assert_close(got.cpu(), resample(video, GRID), **CLOSE[torch.float32])
    with pytest.raises(RuntimeError, match=re.escape("videos[1] is on cuda:1 and the first video on cuda:0")):
        resample([video.to("cuda:0"), video.to("cuda:1")], (1, 2, 2))


def test_refusals():
    video = torch.from_numpy(make_video((5, 30, 41, 3)))
    with pytest.raises(RuntimeError, match=re.escape("out is on cpu and the first video on cuda:0; move all to one")):
        resample(video.cuda(), GRID, out=torch.empty(3, 3, 12, 21))
    with pytest.raises(ValueError, match=re.escape("video is on CUDA device 0 and out in host memory")):
        pymultigrid.resample(video.cuda(), GRID)


PEERS = {
    "cupy": """
import cupy as xp
from_host, to_host, stream = xp.asarray, xp.asnumpy, xp.cuda.Stream(non_blocking=True)
with stream:
    video = from_host(host)
    out = xp.empty(want.shape, "float32")
    resample(video, (2, 16, 20), out=out, stream=stream.ptr)
got = (stream.synchronize(), to_host(out))[1]
""",
    "jax": """
import jax, torch
out = torch.empty(want.shape, device="cuda")
resample(jax.device_put(host, jax.devices("gpu")[0]), (2, 16, 20), out=out)
got = out.cpu().numpy()
""",
}


@pytest.mark.parametrize("peer", PEERS)
def test_arrays_of_others(peer):
    """In a process of its own: it brings its own CUDA libraries."""
    pytest.importorskip(peer, reason=f"CUDA: arrays of {peer}: not run: it is missing")
    code = "import numpy as np\nfrom pymultigrid import resample\n"
    code += "host = np.arange(2 * 30 * 40 * 3, dtype='uint32').astype('uint8').reshape(2, 30, 40, 3)\n"
    code += "want = resample(host, (2, 16, 20))\n" + PEERS[peer] + "assert np.abs(got - want).max() < 1e-5\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
