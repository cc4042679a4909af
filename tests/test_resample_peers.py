"""The table of docs/resample.md: which call of which library `resample` equals, and to how many levels (of 255)."""

import numpy as np
import pytest
import reference

from pymultigrid import Axis, Grid, resample

MODES = {
    "nearest": {"mode": "nearest"},
    "linear": {"mode": "linear", "antialias": False},
    "smooth": {"mode": "linear", "antialias": True},
    "area": {"mode": "area"},
}
SIZES = {"smaller": (31, 40), "larger": (101, 150), "mixed": (90, 40), "whole": (32, 24)}


def peer(module):
    return pytest.importorskip(module, reason=f"{module} is missing: its rows of docs/resample.md were NOT held")


def torch_call(box, size, mode):
    torch = peer("torch")
    kind = {"nearest": "nearest-exact", "area": "area"}.get(mode, "bilinear")
    x = torch.from_numpy(box).permute(0, 3, 1, 2).float()
    options = {"antialias": True} if mode == "smooth" else {}
    return torch.nn.functional.interpolate(x, size, mode=kind, **options).permute(1, 0, 2, 3).numpy()


def torch_uint8(box, size, mode):
    torch = peer("torch")
    x = torch.from_numpy(box).permute(0, 3, 1, 2)
    got = torch.nn.functional.interpolate(x, size, mode="bilinear", antialias=mode == "smooth")
    return got.permute(1, 0, 2, 3).numpy()


def pillow_call(box, size, mode):
    image = peer("PIL.Image")
    kind = image.Resampling.NEAREST if mode == "nearest" else image.Resampling.BILINEAR
    frames = [np.asarray(image.fromarray(frame).resize(size[::-1], kind)) for frame in box]
    return np.stack(frames).transpose(3, 0, 1, 2)


def pillow_float(box, size, mode):
    image = peer("PIL.Image")
    planes = box.astype("f4").transpose(3, 0, 1, 2)
    resized = [
        np.asarray(image.fromarray(plane).resize(size[::-1], image.Resampling.BILINEAR))
        for plane in planes.reshape(-1, *planes.shape[2:])
    ]
    return np.stack(resized).reshape(*planes.shape[:2], *size)


def opencv_call(box, size, mode):
    cv2 = peer("cv2")
    kind = {"nearest": cv2.INTER_NEAREST_EXACT, "linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[mode]
    return np.stack([cv2.resize(f.astype("f4"), size[::-1], interpolation=kind) for f in box]).transpose(3, 0, 1, 2)


def opencv_uint8(box, size, mode):
    cv2 = peer("cv2")
    return np.stack([cv2.resize(f, size[::-1], interpolation=cv2.INTER_LINEAR) for f in box]).transpose(3, 0, 1, 2)


def tf_call(box, size, mode):
    tf = peer("tensorflow")
    kind = {"nearest": "nearest", "area": "area"}.get(mode, "bilinear")
    return tf.image.resize(box, size, method=kind, antialias=mode == "smooth").numpy().transpose(3, 0, 1, 2)


EVERY = tuple(SIZES)
TABLE = [
    ("nearest", torch_call, EVERY, 0),
    ("linear", torch_call, EVERY, 2e-3),
    ("smooth", torch_call, EVERY, 2e-3),
    ("area", torch_call, ("whole",), 2e-3),
    ("linear", torch_uint8, EVERY, 1.01),
    ("smooth", torch_uint8, EVERY, 1.01),
    ("nearest", pillow_call, EVERY, 0),
    ("smooth", pillow_call, EVERY, 1.01),
    ("smooth", pillow_float, EVERY, 2e-3),
    ("nearest", opencv_call, EVERY, 0),
    ("linear", opencv_call, EVERY, 2e-2),
    ("area", opencv_call, ("smaller", "larger", "whole"), 2e-3),
    ("linear", opencv_uint8, EVERY, 1.01),
    ("nearest", tf_call, EVERY, 0),
    ("linear", tf_call, EVERY, 2e-2),
    ("smooth", tf_call, EVERY, 2e-3),
    ("area", tf_call, EVERY, 1e-2),
]
# Where a library's own rounding grows with the size of what it reads: the level from full HD.
FULL_HD = (1080, 1920)
FROM_FULL_HD = {("linear", torch_call): 4e-2, ("linear", tf_call): 4e-2, ("smooth", torch_call): 5e-3}
FROM_FULL_HD |= {("smooth", tf_call): 5e-3, ("area", tf_call): 2e-2}


def clear(extent, size):
    """Cells whose centre is not exactly between two pixels: there Pillow and OpenCV take either."""
    return np.flatnonzero((2 * np.arange(size) + 1) * extent % (2 * size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mode", "call", "sizes", "levels"), TABLE)
def test_equal_to_the_peer(mode, call, sizes, levels, size):
    video = np.random.default_rng(0).integers(0, 256, (2, 70, 130, 3), dtype=np.uint8)
    y, x, h, w = 3, 11, 64, 96
    height, width = SIZES[size]
    grid = Grid(Axis(0, 2, 2), Axis(y, h, height), Axis(x, w, width))
    got = 255 * resample(video, grid, **MODES[mode]).astype("f8")
    want = call(np.ascontiguousarray(video[:, y : y + h, x : x + w]), (height, width), mode)
    if mode == "nearest":
        rows, columns = clear(h, height), clear(w, width)
        got, want = got[:, :, rows][..., columns], want[:, :, rows][..., columns]
    off = np.abs(got - want).max(initial=0)
    if size in sizes:
        assert off <= max(levels, 1e-4)
    else:
        assert off > levels, "equal after all: say so in the table"


@pytest.mark.parametrize(("mode", "call", "sizes", "levels"), [row for row in TABLE if row[0] != "nearest"])
def test_equal_to_the_peer_from_full_hd(mode, call, sizes, levels):
    box = np.random.default_rng(0).integers(0, 256, (1, *FULL_HD, 3), dtype=np.uint8)
    if "smaller" in sizes:
        got = 255 * resample(box, (1, 112, 112), **MODES[mode]).astype("f8")
        assert np.abs(got - call(box, (112, 112), mode)).max() <= FROM_FULL_HD.get((mode, call), levels)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("size", "levels"), [((224, 224), 1e-4), ((7, 7), 1e-4), ((1, 1), 2e-4)])
def test_the_definition_holds_from_full_hd(mode, size, levels):
    noise = np.random.default_rng(0).integers(0, 256, (1, *FULL_HD, 3), dtype=np.uint8)
    for box in (noise, np.full_like(noise, 255)):
        grid = Grid(Axis(0, 1, 1), Axis(0, FULL_HD[0], size[0]), Axis(0, FULL_HD[1], size[1]))
        want = 255 * reference.resample(box, grid, scale=1 / 255, **MODES[mode])
        assert np.abs(255 * resample(box, grid, **MODES[mode]).astype("f8") - want).max() < levels


def test_trilinear_is_torchs():
    torch = peer("torch")
    video = np.random.default_rng(0).integers(0, 256, (9, 40, 50, 3), dtype=np.uint8)
    x = torch.from_numpy(video).permute(3, 0, 1, 2)[None].float()
    for size in ((4, 21, 60), (14, 40, 33)):
        want = torch.nn.functional.interpolate(x, size, mode="trilinear")[0].numpy()
        got = 255 * resample(video, size, antialias=False, temporal="linear").astype("f8")
        assert np.abs(got - want).max() < 2e-3
