import math
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from pymultigrid import Axis, Cycles, Grid, Schedule, Shape, _core, mini_batch, resample, view_grids

SCHEDULE = Schedule(Shape(8, 32, 224, 224), samples=240_436, epochs=239, lr_drops=(94, 154, 196))
EXTENT = (300, 256, 340)


def interval(axis):
    return min(axis.start, axis.start + axis.span), max(axis.start, axis.start + axis.span)


def test_philox_known_answers():
    """The published known-answer vectors of Philox4x32-10 (Random123)."""
    ones = 0xFFFFFFFF
    assert reference.philox(0, [0, 0, 0, 0]) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert reference.philox(2**64 - 1, [ones] * 4) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert reference.philox(0x299F31D0A4093822, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]) == [
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    ]


def test_the_core_draws_with_philox():
    """Of 2^20 samples of one weight the core draws the one that 20 bits of the published generator's words name."""
    rising = np.arange(1.0, 2**20 + 1)
    for first, seed in ((0, 0), (2**40, 2**64 - 1), (77, 0x299F31D0A4093822)):
        words = (reference.philox(seed, [p & 0xFFFFFFFF, p >> 32, 0, 0xFFFFFFFE]) for p in range(first, first + 100))
        assert _core.draw(first, 100, rising, seed) == [high >> 12 for high, *_ in words]


@settings(max_examples=300, deadline=None)
@given(
    index=st.integers(0, len(SCHEDULE) - 1),
    extent=st.tuples(st.integers(1, 400), st.integers(1, 400), st.integers(1, 400)),
    seed=st.integers(0, 2**64 - 1),
    sample=st.integers(0, 2**60),
    stride=st.integers(1, 8),
    options=st.sampled_from(
        [{}, {"area": (0.08, 1.0)}, {"area": (0.3, 0.5), "aspect": (0.2, 0.3)}, {"short_side": (224, 224)}]
    ),
)
def test_boxes_lie_inside_the_video(index, extent, seed, sample, stride, options):
    step = SCHEDULE[index]
    grid = step.grid(extent, seed=seed, sample=sample, stride=stride, beyond="loop", **options)
    assert (grid.t.size, grid.h.size, grid.w.size) == (step.shape.t, step.shape.h, step.shape.w)
    for axis, length in ((grid.h, extent[1]), (grid.w, extent[2])):
        low, high = interval(axis)
        assert 0 <= low < high <= length
    assert grid.t.stride == int(grid.t.stride)
    assert stride <= grid.t.stride <= stride * (32 // step.shape.t)
    if grid.t.span <= extent[0]:
        assert grid.t.start + grid.t.span <= extent[0]
    else:
        assert grid.t.stride == stride
        assert grid.beyond == "loop"
    assert all(0 <= frame < extent[0] for frame in grid.frames(extent[0]))


def test_square_pixels_by_default():
    for sample in range(50):
        grid = SCHEDULE[2].grid(EXTENT, seed=0, sample=sample)
        assert grid.h.stride == pytest.approx(abs(grid.w.stride))


def test_no_clip_is_flipped_unless_it_is_asked_for():
    """Labels may be directions: a loop that becomes multigrid must not gain an augmentation."""
    sample = mini_batch(SCHEDULE, SCHEDULE[2], seed=0)[0]
    for grid in (*(SCHEDULE[2].grid(EXTENT, seed=0, sample=i) for i in range(200)), sample.grid(EXTENT)):
        assert min(grid.t.span, grid.h.span, grid.w.span) > 0
    assert SCHEDULE[2].grid(EXTENT, seed=0, sample=0, flip=1).w.span < 0


def test_draws_are_uniform():
    grids = [SCHEDULE[2].grid(EXTENT, seed=0, sample=i, stride=2, flip=0.5) for i in range(4000)]
    flips = sum(g.w.span < 0 for g in grids) / len(grids)
    assert abs(flips - 0.5) < 5 * 0.5 / math.sqrt(len(grids))
    for stride in range(2, 9):
        share = sum(g.t.stride == stride for g in grids) / len(grids)
        assert abs(share - 1 / 7) < 5 * math.sqrt(1 / 7 * 6 / 7 / len(grids))
    starts = [g.h.start / (256 - g.h.span) for g in grids if g.h.span < 250]
    assert abs(sum(starts) / len(starts) - 0.5) < 5 / math.sqrt(12 * len(starts))


def test_the_same_grid_wherever_it_is_drawn():
    """Counter-based: pinned by literal values, so that no release changes a run silently."""
    grid = SCHEDULE[2].grid(EXTENT, seed=0, sample=17, stride=2, flip=0.5)
    assert grid == Grid(
        Axis(227.0, 48.0, 8),
        Axis(73.98004490916382, 90.33159039447754, 112),
        Axis(93.60092349341288, -90.33159039447754, 112),
    )
    others = [
        SCHEDULE[i].grid(EXTENT, seed=s, sample=n, stride=2, flip=0.5)
        for i, s, n in ((5, 0, 17), (2, 1, 17), (2, 0, 18))
    ]
    assert len({grid, *others}) == 4
    assert [SCHEDULE.sample(i, seed=5) for i in range(4)] == [148547, 122699, 82339, 15408]
    code = (
        "from pymultigrid import Schedule, Shape\n"
        "s = Schedule(Shape(8, 32, 224, 224), samples=240_436, epochs=239, lr_drops=(94, 154, 196))\n"
        f"print(s[2].grid({EXTENT}, seed=0, sample=17, stride=2, flip=0.5))"
    )
    assert subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip() == repr(grid)


def test_segments():
    """One frame from each of t equal parts, for long videos and for videos of exactly t frames."""
    step = SCHEDULE[2]
    t = step.shape.t
    for frames in (8, 9, 50, 1000):
        seen = set()
        for sample in range(200):
            picked = step.grid((frames, 256, 256), seed=0, sample=sample, segments=True).frames(frames)
            for i, frame in enumerate(picked):
                assert i * frames // t <= frame <= math.ceil((i + 1) * frames / t) - 1
            seen.add(picked[0])
        assert min(seen) == 0
        assert max(seen) >= (frames // t - 1) * 0.9


def test_short_videos():
    step = SCHEDULE[2]
    clamp = step.grid((10, 256, 256), seed=0, sample=0, stride=2, beyond="clamp")
    assert clamp.frames(10) == [0, 2, 4, 6, 8, 9, 9, 9]
    loop = step.grid((10, 256, 256), seed=0, sample=3, stride=2, beyond="loop")
    first = int(loop.t.start)
    assert loop.frames(10) == [(first + 2 * i) % 10 for i in range(8)]
    with pytest.raises(
        ValueError, match=re.escape("the video has 10 frames, fewer than the clip's 8 frames x stride 2 = 16")
    ):
        step.grid((10, 256, 256), seed=0, sample=0, stride=2)
    # Not long enough for the coarsest stride: the strides that fit.
    assert {step.grid((20, 256, 256), seed=0, sample=i, stride=2).t.stride for i in range(20)} == {2}


def test_views():
    full = SCHEDULE.shape
    grids = view_grids(full, (300, 256, 340), clips=3, crops=3, stride=2)
    assert [g.t.start for g in grids[::3]] == [0, 118, 236]
    assert [(g.h.start, g.w.start) for g in grids[:3]] == [(0, 0), (0, 42), (0, 84)]
    assert {(g.t.size, g.h.size, g.w.size, g.h.span, g.w.span) for g in grids} == {(32, 224, 224, 256, 256)}
    (centre,) = view_grids(full, (300, 340, 256), stride=2)
    assert (centre.t.start, centre.h.start, centre.w.start) == (118, 42, 0)
    assert view_grids(full, (300, 256, 340), stride=2) == [grids[4]]
    (small,) = view_grids(Shape(8, 8, 112, 112), (300, 256, 340))
    assert (small.t.size, small.h.size, small.w.size) == (8, 112, 112)
    (segments,) = view_grids(full, (320, 256, 340), segments=True)
    assert segments.frames(320) == list(range(5, 320, 10))
    for wrong in ({"clips": 0}, {"crops": 1.5}, {"stride": 0}):
        with pytest.raises((ValueError, TypeError), match=next(iter(wrong)) + r" \("):
            view_grids(full, (300, 256, 340), **wrong)
    with pytest.raises(ValueError, match=re.escape("the video has 20 frames, fewer than the clip's 32 frames")):
        view_grids(full, (20, 256, 340))
    with pytest.raises(TypeError, match=re.escape("shape ((8, 112, 112)) must be a Shape; write Shape(8, 32, 224")):
        view_grids((8, 112, 112), (300, 256, 340))
    with pytest.raises(TypeError, match=r"shape \(<Schedule: .*>\) must be a Shape; pass schedule.shape"):
        view_grids(SCHEDULE, (300, 256, 340))


def test_points_and_boxes_follow_the_grid():
    """A mapped point is the cell that covers it, forwards and flipped; the corners of the box map to the clip's."""
    grid = Grid(Axis(0, 8, 8), Axis(10, 60, 30), Axis(70, -40, 20))
    assert grid.map([[30, 10], [70, 70], [50, 40]]).tolist() == [[20, 0], [0, 30], [10, 15]]
    assert grid.map([30, 10, 70, 70]).tolist() == [0, 0, 20, 30]
    assert grid.map(np.zeros((2, 3, 4), np.float32)).shape == (2, 3, 4)
    with pytest.raises(ValueError, match=re.escape("points has a last axis of 3; it must hold (x, y) points or")):
        grid.map([1, 2, 3])


def test_frames_stay_inside_the_video():
    rows = Axis(0, 8, 8)
    for axis, message in (
        (Axis(8, 8, 4), "the grid reads frames 8 to 15 of a video of 10"),
        (Axis(-5, 4, 4), "the grid reads frames -5 to -2 of a video of 10"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            Grid(axis, rows, rows).frames(10)
    assert Grid(Axis(8, 8, 4), rows, rows, beyond="clamp").frames(10) == [8, 9, 9, 9]
    with pytest.raises(ValueError, match=re.escape("length (0) must be at least 1")):
        Grid(Axis(0, 8, 4), rows, rows, beyond="loop").frames(0)


def test_a_coarser_axis_reads_the_same_box():
    """(t, h, w) factors that differ per axis sample the baseline's box more coarsely; they do not cut it."""
    schedule = Schedule(
        Shape(2, 16, 192, 320), samples=500, epochs=10, plan=Cycles(long=[(0.5, 0.5, 0.25), (1, 1, 1)], short=None)
    )
    coarse, full = schedule[0], schedule[-1]
    assert (coarse.shape.h, coarse.shape.w) == (96, 80)
    for step in (coarse, full):
        boxes = [step.grid((60, 192, 320), seed=0, sample=i) for i in range(200)]
        assert all(abs(g.w.span) / g.h.span == pytest.approx(320 / 192) for g in boxes)
        assert max(g.h.span for g in boxes) > 0.8 * 192


def test_frames_of_a_reversed_axis():
    forward = Grid(Axis(3, 16, 4), Axis(0, 8, 8), Axis(0, 8, 8))
    backward = Grid(Axis(19, -16, 4), Axis(0, 8, 8), Axis(0, 8, 8))
    assert forward.frames(30) == [3, 7, 11, 15]
    assert backward.frames(30) == [15, 11, 7, 3]


def test_values():
    grid = Grid(Axis(0, 16, 4), Axis(0, 8, 8), Axis(8, -8, 8), beyond="loop")
    assert pickle.loads(pickle.dumps(grid)) == grid
    assert hash(pickle.loads(pickle.dumps(grid))) == hash(grid)
    assert eval(repr(grid)) == grid
    assert grid != Grid(grid.t, grid.h, grid.w)
    step = SCHEDULE[100]
    assert pickle.loads(pickle.dumps(step)) == step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride (0) must be at least 1"),
        ({"seed": -1}, "seed (-1) must be at least 0"),
        ({"seed": 2**64}, "seed (18446744073709551616) must be below 2**64"),
        ({"short_side": (256, math.inf)}, "short_side (256, inf) must be a rising pair above 0 and finite"),
        ({"segments": True, "stride": 2}, "leave out stride (2)"),
        ({"segments": True, "beyond": "loop"}, 'leave out stride (1) and beyond="loop"'),
        ({"flip": 1.5}, "flip (1.5) must be a probability in [0, 1]"),
        ({"short_side": (256, 320), "area": (0.1, 1)}, "short_side and area both choose the box; pass one of them"),
        ({"aspect": (1, 2)}, "aspect needs area; pass area=(0.08, 1.0), for example"),
        ({"area": (0.5, 1.5)}, "area (0.5, 1.5) must be a rising pair above 0 and at most 1"),
        ({"short_side": (320, 256)}, "short_side (320, 256) must be a rising pair above 0"),
        ({"short_side": (128, 160)}, "short_side (128, 160) must begin at the baseline's crop (224) or above"),
        ({"beyond": "mirror"}, 'beyond ("mirror") must be "error", "clamp" (repeat the last frame) or "loop"'),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SCHEDULE[0].grid(EXTENT, **{"seed": 0, "sample": 0, **options})


@pytest.mark.parametrize("seed", range(20))
def test_the_box_that_a_grid_looks_at(seed):
    """All of it counts in the clip, and nothing else does."""
    grid = SCHEDULE[0].grid((40, 50, 60), seed=seed, sample=0, flip=0.5)
    top, bottom, left, right = _core.touched_box(grid, 50, 60)
    video = np.full((40, 50, 60, 1), np.nan, np.float32)
    video[:, top:bottom, left:right] = 0.5
    assert (resample(video, grid, mode="area") == 0.5).all()
    for row, column in ((top, left), (top, right - 1), (bottom - 1, left), (bottom - 1, right - 1)):
        video[:, row, column] = np.nan
        assert np.isnan(resample(video, grid, mode="area")).any()
        video[:, row, column] = 0.5


def test_the_box_of_a_grid_that_leaves_the_video():
    grid = Grid(Axis(0, 4, 4), Axis(0, 8, 8), Axis(-1, 8, 8))
    with pytest.raises(ValueError, match=re.escape("grid.w = Axis(start=-1, span=8, size=8) must lie inside")):
        _core.touched_box(grid, 8, 8)


def test_options_are_checked_without_a_video():
    _core.check_sampling(SCHEDULE.shape, short_side=(224, 320), flip=0.5, beyond="loop")
    _core.check_sampling(short_side=(128, 160))  # too small for some baselines only
    with pytest.raises(ValueError, match=re.escape("short_side (128, 160) must begin at the baseline's crop (224)")):
        _core.check_sampling(SCHEDULE.shape, short_side=(128, 160))
    with pytest.raises(TypeError, match=re.escape("baseline (8) must be a Shape")):
        _core.check_sampling(8)
    with pytest.raises(TypeError, match=re.escape("the call must be check_sampling(baseline=None, *, stride")):
        _core.check_sampling(sride=2)


def test_refuses_bad_axes_and_extents():
    for bad in ((math.nan, 1, 1), (0, math.inf, 1), (0, 0, 1), (0, 1, 0)):
        with pytest.raises(ValueError, match=re.escape("start must be finite, span finite and not 0")):
            Axis(*bad)
    with pytest.raises(ValueError, match=re.escape("extent (0) must be at least 1")):
        SCHEDULE[0].grid((0, 256, 340), seed=0, sample=0)
    for extent in ((300, 256), 300):
        with pytest.raises(TypeError, match=re.escape(f"extent ({extent}) must be the video's (frames")):
            SCHEDULE[0].grid(extent, seed=0, sample=0)
    with pytest.raises(TypeError, match=re.escape("stride (1.5) must be a whole number")):
        SCHEDULE[0].grid(EXTENT, seed=0, sample=0, stride=1.5)
    with pytest.raises(ValueError, match=re.escape("position (-1) must be at least 0")):
        SCHEDULE.sample(-1, seed=0)
