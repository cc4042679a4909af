"""Real processes of one gloo group, on this machine."""

import socket
import warnings

import torch
from torch import distributed


def processes(work, *arguments, ranks=2):
    """Run ``work(rank, *arguments)`` in `ranks` processes; an error of any is raised here."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_joined, (ranks, port, work, arguments), nprocs=ranks)


def _joined(rank, ranks, port, work, arguments):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    work(rank, *arguments)
    distributed.destroy_process_group()
