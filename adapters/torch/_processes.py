"""The processes that torch.distributed runs."""

from __future__ import annotations

from torch import distributed


def rank_and_processes() -> tuple[int, int] | None:
    """Return this process's rank and the number of processes, or None if torch.distributed is not running."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    return distributed.get_rank(), distributed.get_world_size()
