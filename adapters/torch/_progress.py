"""A progress bar, if tqdm is installed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")


def bar(items: Iterable[Item], show: bool, **options: Any) -> Iterable[Item]:
    """Return `items`, with a progress bar if `show` is True; `options` are tqdm's."""
    if not show:
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return tqdm(items, **options)
