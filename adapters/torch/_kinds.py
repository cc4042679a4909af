"""Checks of arguments that need torch."""

from __future__ import annotations

import reprlib

from torch import nn


def check_model(model: object) -> None:
    """Refuse what is not a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model ({reprlib.repr(model)}) must be a torch.nn.Module")
