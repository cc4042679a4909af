"""Real processes of one gloo group, on this machine, and how they end."""

import contextlib
import os
import sys
import tempfile
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


def workers_of_gloo():
    """Count this process' threads that run what is asked of gloo; Linux tells."""
    names = []
    for name in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            names.append(name.read_text().strip())
    return names.count("pt_gloo_runloop")


def _joined(rank, ranks, store, work, arguments):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", store, rank=rank, world_size=ranks)
    work(rank, *arguments)
    leave()
