"""The processes that torch.distributed runs."""

from __future__ import annotations

from torch import distributed


def rank_and_processes() -> tuple[int, int] | None:
    """Return which of the processes this one is, and how many there are; None where torch.distributed does not run."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    return distributed.get_rank(), distributed.get_world_size()
