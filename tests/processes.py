"""Real processes of one gloo group, on this machine, and how they end."""

import contextlib
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import distributed


def processes(work, *arguments, ranks=2):
    """Run ``work(rank, *arguments)`` in `ranks` processes; an error of any is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store").as_uri()
        torch.multiprocessing.spawn(_joined, (ranks, store, work, arguments), nprocs=ranks)


def leave():
    """End a process whose work is done without the interpreter's own end, in which a thread of gloo may abort it.

    docs/torch.md tells why.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def gloo_has_ended():
    """Whether no thread of this process works for gloo any more; Linux tells, of one that ended a moment later."""
    deadline = time.monotonic() + 10
    while (works := _gloo_works()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not works


def _gloo_works():
    for name in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            if name.read_text().strip() == "pt_gloo_runloop":
                return True
    return False


def _joined(rank, ranks, store, work, arguments):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", store, rank=rank, world_size=ranks)
    work(rank, *arguments)
    leave()
