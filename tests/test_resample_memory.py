"""Buffers that are used again, threads, and processes: results that never depend on them."""

import gc
import multiprocessing
import os
import threading

import numpy as np
import pytest

from pymultigrid import _core, resample, set_buffer_limit
from pymultigrid._resample import default_threads

MIB = 1 << 20
VIDEO = np.random.default_rng(0).integers(0, 256, (8, 60, 80, 3), dtype=np.uint8)
SIZE = (8, 224, 224)  # 4.6 MiB of float32


@pytest.fixture(autouse=True)
def empty_ring():
    set_buffer_limit(0)
    set_buffer_limit(256 * MIB)
    yield
    set_buffer_limit(0)
    set_buffer_limit(256 * MIB)


def test_memory_comes_back_when_the_last_view_is_gone():
    clip = resample(VIDEO, SIZE)
    address, want = clip.ctypes.data, clip.copy()
    assert address % (2 * MIB) == 0
    view = clip[1, ::2]
    del clip
    gc.collect()
    assert _core.unused_buffer_bytes() == 0
    assert np.array_equal(view, want[1, ::2])
    del view
    gc.collect()
    assert _core.unused_buffer_bytes() == 6 * MIB
    again = resample(VIDEO, SIZE)
    assert again.ctypes.data == address
    assert _core.unused_buffer_bytes() == 0
    other = resample(VIDEO, SIZE)
    assert not np.shares_memory(again, other)


def test_the_ring_is_bounded():
    clips = [_core.empty((3 * MIB,), np.dtype("u1")) for _ in range(20)]
    clips.clear()
    gc.collect()
    assert 0 < _core.unused_buffer_bytes() <= 8 * 4 * MIB
    set_buffer_limit(9 * MIB)
    assert _core.unused_buffer_bytes() == 8 * MIB
    large = _core.empty((10 * MIB,), np.dtype("u1"))
    del large
    gc.collect()
    assert _core.unused_buffer_bytes() == 8 * MIB
    set_buffer_limit(0)
    assert _core.unused_buffer_bytes() == 0
    resample(VIDEO, SIZE)
    gc.collect()
    assert _core.unused_buffer_bytes() == 0


def test_a_small_batch_does_not_take_a_large_buffer():
    large = _core.empty((100 * MIB,), np.dtype("u1"))
    del large
    gc.collect()
    assert _core.unused_buffer_bytes() == 100 * MIB
    small = _core.empty((20 * MIB,), np.dtype("u1"))
    assert _core.unused_buffer_bytes() == 100 * MIB
    assert small.nbytes == 20 * MIB


@pytest.mark.parametrize("videos", [1, 2, 5])
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_threads_do_not_change_the_result(videos, threads):
    batch = [VIDEO[:, i:] for i in range(videos)]
    for temporal in ("nearest", "linear"):
        for size in ((5, 31, 29), (7, 150, 170)):  # too small for a second thread, and large enough
            want = resample(batch, size, temporal=temporal, threads=1)
            assert np.array_equal(resample(batch, size, temporal=temporal, threads=threads), want)


def test_many_python_threads_at_once():
    want = resample(VIDEO, SIZE)
    wrong = []

    def work():
        for _ in range(5):
            if not np.array_equal(resample(VIDEO, SIZE, threads=2), want):
                wrong.append(threading.get_ident())

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def child(queue):
    clip = resample(VIDEO, SIZE)
    queue.put((float(clip.sum(dtype="f8")), default_threads(), float(resample(VIDEO, SIZE, threads=2).sum(dtype="f8"))))


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_child_processes(start):
    if start not in multiprocessing.get_all_start_methods():
        start = "spawn"
    want = float(resample(VIDEO, SIZE, threads=2).sum(dtype="f8"))
    context = multiprocessing.get_context(start)
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    got = queue.get()
    process.join(60)
    assert process.exitcode == 0
    assert got == (want, 1, want)


def test_threads_by_default():
    assert default_threads() == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
