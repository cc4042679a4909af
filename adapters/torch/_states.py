"""The schedule in the states of `Loader` and `ScaledLR`, and its check on loading."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from pymultigrid import Schedule


def of_one_process(schedule: Schedule) -> dict[str, Any]:
    """Return the whole schedule in a form that does not depend on the number of processes."""
    return schedule.whole.with_processes(1).to_dict()


def check_state(state: Any, kind: str, names: tuple[str, ...], schedule: Schedule) -> None:
    """Refuse a state that is not of this kind of object, or is of another schedule."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state_dict ({reprlib.repr(state)}) must be what {kind}.state_dict() returned")
    missing = [name for name in (*names, "schedule") if name not in state]
    if missing:
        raise ValueError(f"state_dict has no {missing[0]!r}; it must be what {kind}.state_dict() returned")
    mine, theirs = of_one_process(schedule), state["schedule"]
    for name in mine:
        if mine[name] != theirs.get(name):
            raise ValueError(
                f"the state is of a schedule whose {name} is {_short(theirs.get(name))}, here it is "
                f"{_short(mine[name])}; build the same one, from the checkpoint's Schedule.from_dict if you "
                "keep it there"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
