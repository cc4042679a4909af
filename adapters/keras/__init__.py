"""pymultigrid for Keras 3: the place is kept, the adapter is not written yet.

Until it is, a Keras loop can use `pymultigrid.Schedule` for the shapes and learning rates and `pymultigrid.resample`
for the clips; both return plain numbers and NumPy arrays.
"""

from typing import NoReturn


def __getattr__(name: str) -> NoReturn:
    # Import machinery asks for dunders (__path__, __wrapped__, ...) and expects to be told no in its own way.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise NotImplementedError(
        f"pymultigrid.keras.{name}: the Keras adapter is not written yet; "
        "pymultigrid.Schedule and pymultigrid.resample work without it, pymultigrid.torch is there"
    )
