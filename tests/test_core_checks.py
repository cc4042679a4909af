"""What enters the core is checked there, whoever calls it: values, pickles, arrays of others, counts, signals."""

import copy
import ctypes
import mmap
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from pymultigrid import Axis, Cycles, Grid, Phases, Schedule, Shape, _core, resample

SCHEDULE = Schedule(Shape(8, 32, 224, 224), samples=1000, epochs=10)
STEP = SCHEDULE[3]
VIDEO = np.full((4, 8, 8, 3), 255, np.uint8)
VALUES = [
    STEP.shape,
    STEP,
    SCHEDULE.stages[1],
    Axis(0, 1.5, 3),
    STEP.grid((300, 256, 340), seed=0, sample=0, beyond="loop"),
    SCHEDULE._plan.stages[0],
    SCHEDULE._plan.clock[0],
    SCHEDULE._plan,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_come_back_whole_from_any_pickle_and_copy(value):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(value, protocol)) == value
    assert copy.copy(value) == copy.deepcopy(value) == value


@pytest.mark.parametrize("name", [name for name, kind in vars(_core).items() if isinstance(kind, type)])
def test_no_object_without_a_value(name):
    kind = getattr(_core, name)
    with pytest.raises(TypeError, match=r"the call must be|No constructor"):
        kind.__new__(kind)
    with pytest.raises(TypeError, match="not safe"):
        object.__new__(kind)
    with pytest.raises(TypeError):
        type("Derived", (kind,), {})


def test_a_damaged_pickle_is_refused():
    whole = pickle.dumps(Shape(8, 77, 224, 224))
    with pytest.raises(ValueError, match=re.escape("t (0) must be at least 1")):
        pickle.loads(whole.replace(b"K\x4d", b"K\x00"))
    kind, state = STEP.__reduce__()
    for place, wrong in ((9, float("nan")), (10, 2.0), (2, Shape(8, 33, 1, 1)), (5, -1), (6, "0"), (0, 2**70)):
        with pytest.raises((ValueError, TypeError), match=r"\w"):
            kind(*state[:place], wrong, *state[place + 1 :])
    kind, state = SCHEDULE.stages[0].__reduce__()
    with pytest.raises(ValueError, match="a stage of 0 shapes"):
        kind((), *state[1:])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: _core.shuffled(0, 0, 0), ValueError, "samples (0) must be at least 1"),
        (lambda: _core.shuffled(0, 2**62 + 1, 0), ValueError, "samples (4611686018427387905) must be at most 1099511"),
        (lambda: _core.shuffled(-1, 5, 0), ValueError, "position (-1) must be at least 0"),
        (lambda: _core.shuffle(0, 2**60, 5, 0), ValueError, "count (1152921504606846976) must be at most"),
        (lambda: _core.draw(0, 1, [], 0), ValueError, "at least one weight"),
        (lambda: _core.draw(0, 1, [0.0], 0), ValueError, "rising ends at 0"),
        (lambda: _core.draw(0, 1, "abc", 0), TypeError, "rising ('abc') must be an array of numbers"),
        (lambda: _core.clips_by(float("nan"), 5), ValueError, "epochs (nan) of 5 samples"),
        (lambda: _core.clips_by("5", 5), TypeError, "end_epoch ('5') must be a number"),
        (lambda: _core.empty([3], "u1"), TypeError, "shape ([3]) must be a tuple of sizes"),
        (lambda: _core.empty((3,), "O"), TypeError, "dtype ('O') must be a kind of number"),
        (lambda: _core.empty((-1,), "u1"), ValueError, "shape (-1) must be at least 0"),
        (lambda: _core.empty((2**40, 2**40), "u1"), MemoryError, "bad_alloc"),
        (lambda: _core.set_buffer_limit(-1), ValueError, "limit (-1) must be at least 0"),
        (lambda: _core.set_buffer_limit(0.5), TypeError, "limit (0.5) must be a whole number"),
        (lambda: _core.plan_phases(1, phases=[], short=[]), TypeError, "rules (1) must be a Rules"),
        (lambda: _core.plan_phases(), TypeError, "the call must be plan_phases(rules, phases=, short=)"),
        (lambda: _core.Plan(stages=3, clock=[]), TypeError, "stages (3) must be a sequence"),
        (lambda: _core.Plan(stages=[3], clock=[]), TypeError, "an item of stages (3) must be a PlannedStage"),
        (lambda: _core.Factor(t=0.5, h=float("nan"), w=1), ValueError, "h has the factor nan"),
        (lambda: SCHEDULE._laid.at(len(SCHEDULE)), ValueError, "index (366) must be at most 365"),
        (lambda: SCHEDULE._laid.steps(0, 2**40), ValueError, "stop (1099511627776) must be at most"),
        (lambda: SCHEDULE._laid.find(None), TypeError, "position (None) must be a whole number"),
        (lambda: Shape(8, 32, 2**25, 224), ValueError, "h (33554432) must be at most 16777216"),
        (lambda: Axis(0, 1, 2**25), ValueError, "size (33554432) must be at most 16777216"),
        (lambda: Axis("0", 1, 2), TypeError, "start ('0') must be a number"),
        (lambda: Grid(1, 2, 3), TypeError, "t (1) must be a Axis"),
        (lambda: Grid(), TypeError, "the call must be Grid(t, h, w, beyond='error')"),
        (
            lambda: STEP.grid((9, 9, 9), seed=0, sample=0, stride=2**59),
            ValueError,
            "stride (576460752303423488) must be",
        ),
        (lambda: STEP.grid((2**40, 9, 9), seed=0, sample=0), ValueError, "extent (1099511627776) must be at most"),
        (lambda: STEP.grid((99, 9, 9), seed=0, sample=0, area=(20, "x")), TypeError, "area ('x') must be a number"),
        (lambda: STEP.grid((99, 9, 9), seed=0, sample=0, segments=2), TypeError, "segments (2) must be True or False"),
        (lambda: STEP.grid(), TypeError, "the call must be step.grid(extent, seed=, sample=)"),
        (lambda: Grid(*[Axis(0, 1, 1)] * 3).map("points"), TypeError, "points ('points') must be an array of numbers"),
        (lambda: Grid(Axis(0, 2e19, 4), *[Axis(0, 1, 1)] * 2).frames(30), ValueError, "which no video has"),
        (
            lambda: Grid(Axis(1e300, -1e300, 4), *[Axis(0, 1, 1)] * 2, "loop").frames(30),
            ValueError,
            "which no video has",
        ),
        (lambda: resample(VIDEO, (1, 1, 1), std=1e-300), ValueError, "std (1e-300) is too small"),
        (
            lambda: resample(VIDEO.astype("f4"), (1, 1, 1), mean=1e10, std=1e-30),
            ValueError,
            "mean (10000000000) / std must be a float32",
        ),
        (lambda: resample(VIDEO, (1, 1, 1), mode=None), TypeError, "mode (None) must be one of 'nearest'"),
        (lambda: resample(VIDEO, (1, 1, 1), layout=b"CTHW"), TypeError, "layout (b'CTHW') must be one of 'CTHW'"),
        (lambda: resample(VIDEO, (1, 1, 1), threads=0.5), TypeError, "threads (0.5) must be a whole number"),
        (lambda: resample(VIDEO, (1, 1, 1), threads=2**30), ValueError, "threads (1073741824) must be at most 4096"),
        (lambda: resample(VIDEO, (1, 1, 1), antialias="yes"), TypeError, "antialias ('yes') must be True or False"),
        (lambda: resample(np.broadcast_to(VIDEO, (2**21, *VIDEO.shape)), (1, 1, 1)), ValueError, "2097152 videos"),
        (lambda: Schedule(Shape(1, 8, 8, 8), samples=2**70, epochs=1), ValueError, "samples (118059162071741130"),
        (lambda: Schedule(Shape(1, 8, 8, 8), samples=9, epochs=10**400), ValueError, "is too large for a float"),
        (
            lambda: Schedule(Shape(1, 8, 8, 8), samples=9, epochs=5e-324),
            ValueError,
            "epochs (4.94065645841247e-324) must",
        ),
        (
            lambda: Schedule(Shape(1, 8, 8, 8), iterations=2**40),
            ValueError,
            "iterations (1099511627776) must be at most",
        ),
        (lambda: Schedule(Shape(1, 8, 8, 8), samples=2**36, epochs=1), ValueError, "at most 4294967296 are supported"),
        (
            lambda: Schedule(Shape(8, 8, 32, 32), samples=9, epochs=9, plan=Cycles(short=[0.5] * 10**5)),
            ValueError,
            "short has 100000 factors",
        ),
        (
            lambda: Schedule(Shape(8, 8, 32, 32), samples=9, epochs=9, plan=Cycles(cycles=10**6)),
            ValueError,
            "at most 1000000 stages",
        ),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=re.escape(message)) as raised:
        call()
    assert "incompatible" not in str(raised.value)


def test_a_million_stages_are_planned_in_seconds():
    start = time.monotonic()
    schedule = Schedule(Shape(1, 4, 8, 8), samples=100, plan=Phases([(1, (4, 4, 4)), (1, (4, 8, 8))] * 10**5))
    assert len(schedule.stages) == 2 * 10**5
    drops = Schedule(Shape(1, 4, 8, 8), samples=1, epochs=10**5 + 1, lr_drops=range(1, 10**5))
    assert len(drops.stages) == 4 * (10**5 - 1) + 1
    assert time.monotonic() - start < 60  # what grows with the square takes hours


# -- arrays of others --------------------------------------------------------------------------------------------------


class Tensor(ctypes.Structure):
    """The DLTensor of DLPack 1."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class Foreign:
    """An array of a library that exports what its fields say."""

    def __init__(self, array, sizes, strides=None, **fields):
        self.array = array
        self.sizes = (ctypes.c_int64 * len(sizes))(*sizes)
        self.strides = (ctypes.c_int64 * len(sizes))(*strides) if strides else None
        pointer = ctypes.POINTER(ctypes.c_int64)
        self.tensor = Tensor(array.ctypes.data, 1, 0, len(sizes), 1, 8, 1, ctypes.cast(self.sizes, pointer))
        if self.strides:
            self.tensor.strides = ctypes.cast(self.strides, pointer)
        for name, value in fields.items():
            setattr(self.tensor, name, value)

    def __dlpack__(self, **options):
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return make(ctypes.addressof(self.tensor), b"dltensor", None)


def test_a_tensor_of_a_foreign_library():
    assert np.array_equal(resample(Foreign(VIDEO, VIDEO.shape), (4, 8, 8)), resample(VIDEO, (4, 8, 8)))


@pytest.mark.parametrize(
    ("shape", "fields", "message"),
    [
        (VIDEO.shape, {"data": None}, "video has no memory behind it"),
        (VIDEO.shape, {"ndim": -1}, "exports a DLPack tensor of -1 axes"),
        (VIDEO.shape, {"ndim": 2**30}, "exports a DLPack tensor of 1073741824 axes"),
        (VIDEO.shape, {"shape": None}, "exports a DLPack tensor of 4 axes"),
        ((4, -8, 8, 3), {}, "with an axis of -8"),
        ((2**40, 2**40, 8, 3), {}, "more memory than any machine has"),
        ((4, 8, 8, 3), {"strides": (2**62, 24, 3, 1)}, "more memory than any machine has"),
        ((4, 8, 8, 3), {"strides": (-(2**63), 24, 3, 1)}, "more memory than any machine has"),
    ],
)
def test_a_damaged_tensor_is_refused(shape, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        resample(Foreign(VIDEO, shape, **fields), (2, 4, 4))


@pytest.mark.parametrize("answer", [None, 3, (1,), "cpu"])
def test_a_device_that_is_none(answer):
    class Odd:
        def __dlpack_device__(self):
            return answer

        def __dlpack__(self, **options):
            return VIDEO.__dlpack__()

    with pytest.raises(TypeError, match=re.escape("video.__dlpack_device__() did not return the pair")):
        resample(Odd(), (2, 4, 4))


def test_a_list_that_changes_while_it_is_read():
    class Lazy:
        def __getattr__(self, name):
            videos.clear()
            raise AttributeError(name)

    videos = [Lazy(), Lazy(), Lazy()]
    with pytest.raises(TypeError, match=re.escape("videos[0] is a Lazy")):
        resample(videos, (2, 4, 4))


def guarded(rows, row_bytes):
    """Memory whose rows end where a page ends, with no memory behind any of them."""
    page, libc = mmap.PAGESIZE, ctypes.CDLL(None)
    memory = mmap.mmap(-1, 2 * page * rows)
    all_bytes = np.frombuffer(memory, np.uint8)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for row in range(rows):
        assert libc.mprotect(all_bytes.ctypes.data + (2 * row + 1) * page, page, 0) == 0
    return np.lib.stride_tricks.as_strided(all_bytes[page - row_bytes :], (rows, row_bytes), (2 * page, 1))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="guard pages: not run, they need Linux")
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("path", _core._vector_paths())
def test_no_byte_behind_a_row_is_read(path, channels):
    before = _core._vector_path()
    assert _core._choose_vector_path(path)
    try:
        for pixels in (1, 2, 5, 10, 33, 100):
            rows = guarded(3, pixels * channels)
            rows[:] = np.random.default_rng(pixels).integers(0, 256, rows.shape)
            video = np.lib.stride_tricks.as_strided(rows, (1, 3, pixels, channels), (0, rows.strides[0], channels, 1))
            for mode, width in (("linear", 1), ("linear", 7), ("area", 10), ("nearest", 150)):
                for flip in (False, True):
                    w = Axis(pixels, -pixels, width) if flip else Axis(0, pixels, width)
                    grid = Grid(Axis(0, 1, 1), Axis(0, 3, 2), w)
                    assert np.array_equal(resample(video, grid, mode=mode), resample(video.copy(), grid, mode=mode))
    finally:
        _core._choose_vector_path(before)


def test_wide_cells_keep_the_level():
    for pixels in (60, 100, 1000, 2000, 4000):
        for shape in ((1, 1, pixels, 1), (1, pixels, 1, 1), (1, 1, pixels, 3)):
            for dtype in ("uint8", "float32"):
                for mode in ("area", "linear"):
                    level = resample(np.full(shape, 254, dtype), (1, 1, 1), mode=mode) * (
                        255 if dtype == "uint8" else 1
                    )
                    assert np.abs(level - 254).max() < 0.00025


# -- signals, threads, interpreters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_ends_a_long_call(threads):
    video = np.zeros((64, 720, 1280, 3), np.uint8)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            resample([video] * 2000, (64, 4, 4), threads=threads)
        assert time.monotonic() - start < 5  # of minutes; a fifth of a second where the machine has time
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_long_draw():
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)  # from outside: no other thread of Python runs meanwhile
    try:
        with pytest.raises(KeyboardInterrupt):
            _core.shuffle(0, 2**33, 5, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_daemon_threads_at_the_end_of_a_script():
    code = """
import threading, time
import numpy as np
from pymultigrid import resample
video = np.zeros((16, 240, 320, 3), np.uint8)
def prefetch():
    while True:
        resample(video, (16, 224, 224), threads=2)
for _ in range(4):
    threading.Thread(target=prefetch, daemon=True).start()
time.sleep(0.3)
"""
    for _ in range(3):
        done = run(code)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_sub_interpreter_is_refused():
    code = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
number = interpreters.create()
code = '''
try:
    import pymultigrid
except ImportError as error:
    print("refused:", error)
'''
interpreters.run_string(number, code)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "refused:" in done.stdout
    assert re.search("sub-?interpreter", done.stdout)
