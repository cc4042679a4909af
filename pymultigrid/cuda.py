"""Whether `resample` runs on a GPU here."""

from __future__ import annotations

from pymultigrid import _core


def cuda_missing() -> str | None:
    """Return what CUDA lacks here, or None: the kernel in this build, a driver, a GPU.

    >>> from pymultigrid import cuda_available, cuda_missing
    >>> cuda_available() == (cuda_missing() is None)
    True
    """
    return _core.cuda_missing()


def cuda_available() -> bool:
    """Return whether `resample` takes arrays on a GPU here; `cuda_missing` says why not.

    >>> from pymultigrid import cuda_available
    >>> device = "cuda" if cuda_available() else "cpu"
    """
    return _core.cuda_missing() is None
